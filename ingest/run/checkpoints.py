"""Ranges of checkpoints: which revisions `--revisions FIRST..LAST[:STRIDE|log]` names, found one ahead of the work."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model import locate
from rare_tokens.ingest.model.files import short_name
from rare_tokens.ingest.model.locate import NoCheckpointError
from rare_tokens.ingest.run.request import SAMPLE, Options, Request, identify
from rare_tokens.ingest.text.corpus import open_corpus

LOG = "log"
_RANGE = re.compile(r"(?P<first>.+?)\.\.(?P<last>[^:]+)(?::(?P<by>\w+))?")
_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)")
Item = TypeVar("Item")


@dataclass(frozen=True)
class MissingCheckpoint:
    """A checkpoint of a range that is not there, or has no weights: recorded and passed over.

    Attributes:
        run_id: that its run is recorded under.
        model: as shown to people.
        revision: the checkpoint.
        why: what is missing.
        contexts: what its positions would have been.
        known: what it would have in common with the other checkpoints of its series, columns of `dim_run`; None where
            that cannot be told without its weights.
    """

    run_id: str
    model: str
    revision: str
    why: str
    contexts: str
    known: dict[str, Any]


def select(wanted: str, available: Sequence[str]) -> list[str]:
    """The revisions that a range names, in order of their steps.

    Args:
        wanted: `FIRST..LAST`: every checkpoint between the two, both included; with `:STRIDE` those at FIRST,
            FIRST + STRIDE, … whether they are there or not; with `:log` the first, the last, and of the rest the
            nearest to each power of two.
        available: the model's revisions.

    Raises:
        UserError: it is no such range, it runs backwards, its ends are named differently, or no checkpoint is in it.
    """
    match = _RANGE.fullmatch(wanted)
    ends = [_NUMBERED.fullmatch(match[name]) for name in ("first", "last")] if match else []
    if not match or not all(ends):
        raise UserError(
            f"--revisions {wanted}: not a range. Write FIRST..LAST, FIRST..LAST:STRIDE or FIRST..LAST:log, as in "
            "step0..step143000:log."
        )
    first, last = (int(end["number"]) for end in ends if end)
    prefix = max((end["prefix"] for end in ends if end), key=len)
    if any(end["prefix"] not in ("", prefix) for end in ends if end) or first > last:
        raise UserError(f"--revisions {wanted}: from {match['first']} to {match['last']} is no range of checkpoints.")
    prefix = prefix or _prefix(available)
    steps = sorted(step for step in _steps(prefix, available) if first <= step <= last)
    if not steps:
        raise UserError(f"--revisions {wanted}: no checkpoint of the model lies in it. {_shown(prefix, available)}")
    return [f"{prefix}{step}" for step in _spaced(wanted, match["by"], steps, first, last)]


def _spaced(wanted: str, by: str | None, steps: list[int], first: int, last: int) -> list[int]:
    if by is None:
        return steps
    if by == LOG:
        powers = [2**k for k in range(max(0, math.ceil(math.log2(max(1, first)))), last.bit_length())]
        nearest = {min(steps, key=lambda step: abs(math.log((step or 0.5) / power))) for power in powers}
        return sorted({steps[0], steps[-1]} | nearest)
    if not by.isdigit() or int(by) == 0:
        raise UserError(f"--revisions {wanted}: {by} is no stride. Give a number of steps, or log.")
    return list(range(first, last + 1, int(by)))


def _prefix(available: Sequence[str]) -> str:
    """What stands before the number in most of the revisions."""
    found = [match["prefix"] for name in available if (match := _NUMBERED.fullmatch(name))]
    return max(set(found), key=found.count) if found else ""


def _steps(prefix: str, available: Sequence[str]) -> list[int]:
    named = [_NUMBERED.fullmatch(name) for name in available]
    return [int(match["number"]) for match in named if match and match["prefix"] == prefix]


def _shown(prefix: str, available: Sequence[str]) -> str:
    steps = sorted(_steps(prefix, available))
    return f"It has {prefix}{steps[0]} to {prefix}{steps[-1]}." if steps else "It has no numbered checkpoints."


def checkpoints(options: Options, wanted: str) -> Iterator[Request | MissingCheckpoint]:
    """The requests of a range, each identified (and fetched, from a hub) only when it is its turn.

    Raises:
        UserError: as `select` and `identify`; what is missing of a checkpoint is no error.
    """
    layer = options.layer if options.layer >= 0 else None  # its number is the same in every checkpoint
    for revision in select(wanted, locate.available_revisions(options.model)):
        try:
            (request,) = identify(replace(options, revisions=(revision,)))
        except NoCheckpointError as error:
            yield _missing(options, revision, str(error), layer)
        else:
            layer = request.identity["layer"]
            yield request


def _missing(options: Options, revision: str, why: str, layer: int | None) -> MissingCheckpoint:
    """Under an id of its own, the same each time the same is asked for."""
    name = locate.shown_name(options.model)
    asked = {key: value for key, value in asdict(options).items() if key not in ("model", "revisions", "device")}
    digest = hashlib.sha256(json.dumps([name, revision, asked], sort_keys=True).encode()).hexdigest()
    short = short_name(name)
    corpus = open_corpus(options.corpus, options.text_field)
    known: dict[str, Any] = {"layer": layer, "corpus": corpus.name, "corpus_hash": corpus.identity}
    known |= {"seed": options.seed, "ablation": options.ablation, "dtype": options.dtype}
    if options.contexts == SAMPLE:
        known |= {"positions": options.tokens, "window_length": options.window}
    return MissingCheckpoint(f"{short}-{revision}-{digest[:8]}", name, revision, why, options.contexts, known)


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; while one is worked on, the next is found (fetched, hashed, read into memory) beside it."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
