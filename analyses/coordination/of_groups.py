"""Analyses of groups of neurons: each preset's groups at the positions over which coordination is measured.

Coordination and spectra use ES's preset, graphs NC's (docs/definitions.md, "Coordination"). If ES has no rare position
in a run, NC stands in.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import (
    ACTIVATIONS,
    GROUP_KEY,
    Analysis,
    Ask,
    Compute,
    PrintedTests,
    Results,
    Schema,
    Source,
    Tested,
    keyed,
    unkeyed,
)
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.curve.effect_cells import MATCHED, RARE
from rare_tokens.analyses.result_table import FloatArray
from rare_tokens.analyses.statistics import CONTROL

SIGN_GROUPS = ("boost", "suppress")
STAND_IN = {"plateau": "top", "excitatory": "top_boost", "inhibitory": "top_suppress"}  # without a plateau: DS's 1 %
GROUPED = ("neuron_group", "neuron_influence")  # what `At.groups` and `standing` read

Pool = Literal["disjoint", "layer"]  # where random groups are drawn: outside the tested groups, or from the whole layer
DISJOINT: Pool = "disjoint"
WHOLE_LAYER: Pool = "layer"

# Parameters of an analysis of weights, of one of activations at positions, and of one of graphs.
WEIGHTS = {"presets": ["es"], "group_names": [*SIGN_GROUPS, "plateau"], "pool": DISJOINT}
ES = WEIGHTS | {"token_groups": [RARE]}
NC = ES | {"presets": ["nc"], "group_names": [*SIGN_GROUPS, "excitatory", "inhibitory"], "pool": WHOLE_LAYER}
_OF_THE_ADAPTER = ("presets", "group_names", "pool", "token_groups")  # parameters not passed to `compute`

OfGroups = Callable[["At", Mapping[str, Any], Executor | None], pl.DataFrame]


@dataclass(frozen=True)
class At:
    """Where an analysis of groups is: one preset, whose groups it is about, and its positions."""

    ask: Ask
    preset: str
    positions: str  # `rare`, `common` or `all`
    group_names: Sequence[str]
    pool: Pool = DISJOINT  # of the random groups

    @property
    def activations(self) -> Activations:
        """T × N at these positions."""
        everywhere = self.positions == "all"
        source = Source(ACTIVATIONS) if everywhere else Source(ACTIVATIONS, self.preset, self.positions)
        values, windows = self.ask(source)
        return Activations(values, windows)

    @property
    def weights(self) -> dict[str, FloatArray]:
        """The output and input weight vectors: `vectors` of `w_out` and `w_in`."""
        return self.vectors("w_out", "w_in")

    def vectors(self, *names: str) -> dict[str, FloatArray]:
        """The named weight vectors that the run has, N × d each (only a gated MLP has `w_up`).

        They have no positions, so only `rare` returns them.
        """
        if self.positions != RARE:
            return {}
        frame = self.ask(Source("neuron_weight", columns=("neuron", *names))).sort("neuron")
        present = [name for name in names if len(frame) and frame[name].null_count() == 0]
        return {name: np.array(frame[name].to_list(), dtype=np.float32) for name in present}

    @property
    def groups(self) -> pl.DataFrame:
        """The groups with these names, in this order, and random ones of their sizes from one pool."""
        stored = of_pool(unkeyed(self.ask(Source("neuron_group", self.preset, RARE))), self.pool)
        formed = set(stored.filter(pl.col("neuron").is_not_null())["group_name"])
        stand_ins = [STAND_IN[name] for name in self.group_names if name in STAND_IN and name not in formed]
        names = dict.fromkeys([*self.group_names, *stand_ins])
        tested = pl.concat(stored.filter(pl.col("group_name") == name) for name in names)
        sizes = tested.filter(pl.col("neuron").is_not_null())["k"].unique().to_list()
        controls = stored.filter(pl.col("group_name") == CONTROL, pl.col("k").is_in(sizes))
        return pl.concat([tested, controls.sort("k", maintain_order=True)])


def of_pool(stored: pl.DataFrame, pool: Pool) -> pl.DataFrame:
    """The tested groups, and the random ones of one pool, never of both.

    Args:
        stored: rows of `neuron_group` of one run, preset and token group.
        pool: asked for. If the tested groups hold too much of the layer, only `layer` exists and stands in.

    Returns:
        The rows; in all of them, tested groups included, the column `pool` is the pool compared with.
    """
    there = set(stored["pool"].drop_nulls())
    found = next((name for name in (pool, WHOLE_LAYER) if name in there), pool)
    kept = (pl.col("group_name") != CONTROL) | (pl.col("pool") == found)
    return stored.filter(kept).with_columns(pool=pl.lit(found))


def of_groups(
    relation: str,
    schema: Schema,
    compute: OfGroups,
    *,
    reads: Sequence[str],
    parameters: Mapping[str, Any],
    shares_work: bool = False,
    tested: Sequence[Tested] = (),
    printed_tests: PrintedTests | None = None,
) -> Analysis:
    """The analysis that fills `relation` from the groups of each preset.

    Args:
        relation: its name, and the relation's.
        schema: the columns that `compute` returns.
        compute: the rows for one preset and positions (`At`), from the parameters and processes.
        reads: what `compute` asks for besides the groups.
        parameters: `WEIGHTS`, `ES` or `NC` (which presets, groups, random groups and positions it is about), and those
            passed to `compute`.
        shares_work: as in `Analysis`.
        tested: as in `Analysis`.
        printed_tests: as in `Analysis`.
    """
    return Analysis(
        relation,
        {relation: {**schema, **GROUP_KEY}},
        (*GROUPED, *reads),
        _everywhere(relation, compute),
        parameters,
        shares_work,
        tuple(tested),
        printed_tests,
    )


def _everywhere(relation: str, compute: OfGroups) -> Compute:
    """`compute` for every preset and positions in the parameters."""

    def results(ask: Ask, parameters: Mapping[str, Any], pool: Executor | None) -> Results:
        own = {name: value for name, value in parameters.items() if name not in _OF_THE_ADAPTER}
        names, drawn_in = parameters["group_names"], parameters["pool"]
        parts = [
            keyed(compute(At(ask, preset, positions, names, drawn_in), own, pool), preset, positions)
            for preset in standing(ask, parameters["presets"])
            for positions in parameters.get("token_groups", [RARE])
        ]
        return {relation: pl.concat(parts)}

    return results


def is_matched(ask: Ask) -> bool:
    """Whether a run is one of matched contexts."""
    return not ask(Source("neuron_influence", MATCHED, RARE)).is_empty()


def standing(ask: Ask, presets: Sequence[str]) -> Sequence[str]:
    """The presets asked for; NC's instead of ES's in a run where ES has no rare position.

    In a run of matched contexts only the matched tokens: its positions were chosen for them, so other presets' groups
    mean nothing there.
    """
    if is_matched(ask):
        return [MATCHED]
    stand_in = {"es": "nc"}
    missing = [preset for preset in presets if ask(Source("neuron_influence", preset, RARE)).is_empty()]
    return list(dict.fromkeys(stand_in.get(preset, preset) if preset in missing else preset for preset in presets))
