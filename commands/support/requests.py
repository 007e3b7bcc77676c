"""Which runs a command asks for: some models, each at one revision, at several, or over a range of checkpoints."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rare_tokens.common.errors import UserError
from rare_tokens.common.layers import Layers

if TYPE_CHECKING:
    from rare_tokens.ingest.run.checkpoints import Gap
    from rare_tokens.ingest.run.request import Options, Request


@dataclass(frozen=True)
class Requests:
    """The runs that a command asks for.

    Attributes:
        found: by model, the options, and its requests in their order.
        series: the range of checkpoints; None: none is asked for.
        goes_on: whether a run that fails is recorded and the next one begun, for it is one of several.
    """

    found: "Sequence[tuple[Options, Iterator[Request | Gap]]]"
    series: str | None
    goes_on: bool

    @property
    def is_of_one_model(self) -> bool:
        """Whether all are of the same model."""
        return len(self.found) == 1

    def together(self) -> "Iterator[list[Request] | Gap]":
        """Gaps, and lists of the requests that are measured together: they differ in their reference alone.

        The layers of a model follow each other, each with its references.

        Raises:
            UserError: as `each`.
        """
        from rare_tokens.ingest.run.checkpoints import Gap

        def measured(one: "Request | Gap") -> tuple[str, str]:
            if isinstance(one, Gap):
                return "gap", one.run_id
            return str(one.folder.path), one.measured

        for _, several in itertools.groupby(self.each(), key=measured):
            requests = []
            for one in several:
                if isinstance(one, Gap):
                    yield one
                else:
                    requests.append(one)
            if requests:
                yield requests

    def each(self) -> "Iterator[Request | Gap]":
        """Request after request; a model of several of which nothing can be asked is one gap.

        Raises:
            UserError: nothing can be asked of the only model.
        """
        from rare_tokens.ingest.run.checkpoints import FAILED, gaps

        for options, found in self.found:
            try:
                yield from found
            except UserError as error:
                if self.is_of_one_model:
                    raise
                revision = self.series or next(iter(options.revisions), "main")
                yield from gaps(options, revision, FAILED, str(error))


def require_references(ablation: str, groups: "Sequence[str]", *, attention: bool) -> None:
    """Refuse what several references, or other than constant ones, cannot be asked together with.

    Raises:
        UserError: naming the option.
    """
    from rare_tokens.ingest.ablation.stages.references import choices

    chosen = choices(ablation)
    if attention and len(chosen) > 1:
        raise UserError(
            f"--attention with --ablation {ablation}: attention does not depend on the reference. Ask for it with one."
        )
    if groups and (other := [one.name for one in chosen if not one.is_constant]):
        raise UserError(f"--group with --ablation {other[0]}: groups are ablated by their means or by zero.")


def require_one_layer(layer: int | Layers, groups: "Sequence[str]") -> None:
    """Refuse what several layers cannot be asked together with.

    Raises:
        UserError: naming the option.
    """
    if groups and isinstance(layer, Layers):
        raise UserError(
            f"--group with --layer {layer}: the neurons of a group are of one layer. Ask for it with a single one."
        )


def requested(options: "Sequence[Options]", series: str | None, *, fetch: bool = True) -> Requests:
    """The runs asked for of each model: at each --revision, or over a range of checkpoints.

    A single run is identified at once, and so are those of several layers of one model at one revision. Of several
    models or revisions, each is found while the one before it is computed.

    Args:
        options: of each model, the same but for the model.
        series: the range; None: none.
        fetch: whether weights that are only on the hub are fetched; without, such a run can only be estimated.

    Raises:
        UserError: the options contradict each other, or the single run cannot be.
    """
    from rare_tokens.ingest.run.checkpoints import checkpoints, named, one_ahead
    from rare_tokens.ingest.run.pipeline import choose_device
    from rare_tokens.ingest.run.request import identify

    first = options[0]
    if series is not None and first.revisions:
        raise UserError("--revision and --revisions: give one of the two.")
    if len({one.model for one in options}) < len(options):
        raise UserError("--model: the same one is given twice. Leave one out.")
    choose_device(first.device)
    if series is None and len(options) == 1 and len(first.revisions) < 2:
        found = [(first, iter(identify(first, fetch=fetch)))]
        return Requests(found, None, goes_on=isinstance(first.layer, Layers))
    ahead = [
        (one, one_ahead(named(one, fetch=fetch) if series is None else checkpoints(one, series, fetch=fetch)))
        for one in options
    ]
    return Requests(ahead, series, goes_on=True)
