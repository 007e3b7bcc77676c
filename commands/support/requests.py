"""Which runs a command asks for: some models, each at one revision, at several, or over a range of checkpoints."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rare_tokens.common.errors import UserError

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

    def each(self) -> "Iterator[Request | Gap]":
        """Request after request; a model of several of which nothing can be asked is one gap.

        Raises:
            UserError: nothing can be asked of the only model.
        """
        from rare_tokens.ingest.run.checkpoints import FAILED, gap

        for options, found in self.found:
            try:
                yield from found
            except UserError as error:
                if self.is_of_one_model:
                    raise
                revision = self.series or next(iter(options.revisions), "main")
                yield gap(options, revision, FAILED, str(error))


def requested(options: "Sequence[Options]", series: str | None, *, fetch: bool = True) -> Requests:
    """The runs asked for of each model: at each --revision, or over a range of checkpoints.

    A single run is identified at once; of several, each is found while the one before it is computed.

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
        return Requests([(first, iter(identify(first, fetch=fetch)))], None, goes_on=False)
    found = [
        (one, one_ahead(named(one, fetch=fetch) if series is None else checkpoints(one, series, fetch=fetch)))
        for one in options
    ]
    return Requests(found, series, goes_on=True)
