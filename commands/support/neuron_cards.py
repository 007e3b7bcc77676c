"""What is known of some neurons of a run, as the report's cards and the command `neuron` show it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rare_tokens import warehouse
from rare_tokens.commands.support.settings import Settings

if TYPE_CHECKING:
    import polars as pl


def card_frames(settings: Settings, neurons: Mapping[str, Sequence[int]]) -> "dict[str, pl.DataFrame]":
    """The frames of cards by the name of the report's input, of some neurons of each run."""
    import polars as pl

    frames = warehouse.card_frames(settings.warehouse, neurons, wait=settings.wait)
    near = [nearest(settings, run_id, chosen) for run_id, chosen in neurons.items()]
    return frames | ({"neighbours": pl.concat(near)} if near else {})


def nearest(settings: Settings, run_id: str, neurons: Sequence[int]) -> "pl.DataFrame":
    """The nearest neurons of some neurons of a run: `run_id` and the columns of `neighbours.NEIGHBOUR`."""
    import polars as pl

    from rare_tokens.analyses.coordination.neighbours import neighbours

    path, wait = settings.warehouse, settings.wait
    weights = warehouse.output_weights(path, run_id, wait=wait)
    activations, _ = warehouse.activations(path, run_id, by_position=False, wait=wait)
    found = neighbours(weights, activations, neurons)
    return found.select(pl.lit(run_id).alias("run_id"), pl.all())
