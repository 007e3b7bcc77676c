"""The checkpoints that a command asks for, each found one ahead of the work, and the gaps where there is none."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from rare_tokens.common.errors import OptionError, UserError
from rare_tokens.common.layers import Layers
from rare_tokens.ingest.model import locate
from rare_tokens.ingest.model.checkpoint_folders import NoCheckpointError
from rare_tokens.ingest.run.ranges import select
from rare_tokens.ingest.run.request import SAMPLE, Options, Request, identify, run_id
from rare_tokens.ingest.text.corpus import open_corpus

MISSING, FAILED = "missing", "failed"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Gap:
    """A checkpoint that cannot be measured: recorded and passed over.

    Attributes:
        run_id: that its run is recorded under.
        model: as shown to people.
        revision: the checkpoint.
        status: `missing`: of a range, a checkpoint that is not there or has no weights; `failed`: it cannot be used.
        why: what is wrong with it.
        contexts: what its positions would have been.
        known: what it would have in common with the other checkpoints of its series, columns of `dim_run`; None where
            that cannot be told without its weights.
    """

    run_id: str
    model: str
    revision: str
    status: str
    why: str
    contexts: str
    known: dict[str, Any] = field(default_factory=dict)

    @property
    def is_failure(self) -> bool:
        """Whether it is more than a gap that a range may have."""
        return self.status == FAILED


def checkpoints(options: Options, wanted: str, *, fetch: bool = True) -> Iterator[Request | Gap]:
    """The requests of a range, each identified (and fetched, from a hub, if `fetch`) only when it is its turn.

    Raises:
        UserError: as `select`, or an option is wrong at every checkpoint. What is wrong with one checkpoint is no
            error: it is a gap.
    """
    _of_corpus(options)
    yield from _in_turn(options, select(wanted, locate.available_revisions(options.model)), absent=MISSING, fetch=fetch)


def named(options: Options, *, fetch: bool = True) -> Iterator[Request | Gap]:
    """The requests at each revision of the options, likewise; one that is not there is `failed`, for it was named.

    Raises:
        UserError: a folder of checkpoints lacks one of them, or an option is wrong at every checkpoint.
    """
    _of_corpus(options)
    locate.require_folders(options.model, options.revisions)
    yield from _in_turn(options, options.revisions or (None,), absent=FAILED, fetch=fetch)


def _in_turn(options: Options, revisions: Sequence[str | None], *, absent: str, fetch: bool) -> Iterator[Request | Gap]:
    depth: int | None = None  # the same in every checkpoint
    waiting: list[tuple[str, str, str]] = []  # gaps of all layers, until one shows how many there are
    is_open = isinstance(options.layer, Layers) and options.layer.are_all
    for revision in revisions:
        try:
            requests = identify(replace(options, revisions=(revision,) if revision else ()), fetch=fetch)
        except OptionError:
            raise
        except UserError as error:
            status = absent if isinstance(error, NoCheckpointError) else FAILED
            found = (revision or "main", status, str(error))
            if is_open and depth is None:
                waiting.append(found)
            else:
                yield from gaps(options, *found, depth)
        else:
            depth = requests[0].depth
            yield from (one for found in waiting for one in gaps(options, *found, depth))
            waiting.clear()
            yield from requests
    yield from (one for found in waiting for one in gaps(options, *found))


def gaps(options: Options, revision: str, status: str, why: str, depth: int | None = None) -> list[Gap]:
    """A gap in the series of each layer and reference; `depth` is how many layers the model has, if that is known."""
    each = [one for layer in options.by_layer(depth) for one in layer.by_reference()]
    return [gap(one, revision, status, why, depth) for one in each]


def gap(options: Options, revision: str, status: str, why: str, depth: int | None = None) -> Gap:
    """A gap under an id of its own, the same each time the same is asked for."""
    name = locate.shown_name(options.model)
    layer = None
    if not isinstance(options.layer, Layers) and (options.layer >= 0 or depth is not None):
        layer = options.layer % depth if depth is not None else options.layer
    known: dict[str, Any] = {"layer": layer, "seed": options.seed, "ablation": options.ablation}
    known |= {"dtype": options.dtype} | _of_corpus(options)
    if options.contexts == SAMPLE:
        known |= {"positions": options.tokens, "window_length": options.window}
    for path in (options.model, str(Path(options.model).expanduser())):
        why = why.replace(path, name)  # what is stored is passed on: no folder of this machine
    return Gap(gap_id(options, revision), name, revision, status, why, options.contexts, known)


def gap_ids(request: Request) -> list[str]:
    """The ids under which a gap in the place of a run may be recorded: by either number of its layer, or of all."""
    layers: tuple[int | Layers, ...] = (request.layer, request.layer - request.depth, Layers())
    return [gap_id(replace(request.options, layer=layer), request.folder.revision) for layer in layers]


def gap_id(options: Options, revision: str) -> str:
    """The id that a gap at a revision is recorded under; once it is closed, that record can go."""
    name = locate.shown_name(options.model)
    asked = {key: value for key, value in asdict(options).items() if key not in ("model", "revisions", "device")}
    return run_id(name, revision, [name, revision, asked])


def _of_corpus(options: Options) -> dict[str, Any]:
    """Columns of `dim_run` about the text; UserError where it cannot be read."""
    corpus = open_corpus(options.corpus, options.text_field)
    return {"corpus": corpus.name, "corpus_hash": corpus.identity}


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; while one is worked on, the next is found (fetched, hashed, read into memory) beside it."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
