"""The analyses that `analyze` walks: what each fills, what it reads, and with which parameters.

An analysis reads through an `Ask`, so that this module knows neither where relations are stored nor which run is
analysed, and gives back whole relations of one run. Which preset an analysis is of follows SPEC 5–8: ES's for
coordination and spectra, NC's for graphs; where ES has no group in a run, NC's stands in.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.analysis import ACTIVATIONS, Analysis, Ask, Results, Source
from rare_tokens.analyses.attention import inputs
from rare_tokens.analyses.attention.inputs import ATTENTION
from rare_tokens.analyses.coordination import (
    clusters,
    correlation,
    cosine,
    dimension,
    graph,
    mutual_information,
    neuron_groups,
    pair_tests,
    weight_spectra,
)
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.curve.effect_cells import CELL, MATCHED, PRESETS, RARE, TOKEN_GROUPS, window_sums
from rare_tokens.analyses.curve.intervals import INFLUENCE_INTERVAL, influence_intervals
from rare_tokens.analyses.curve.regimes import influence_slopes, regimes
from rare_tokens.analyses.curve.threshold_sensitivity import threshold_sensitivity
from rare_tokens.analyses.group_tests import TESTED, group_test
from rare_tokens.analyses.result_table import FloatArray, table
from rare_tokens.analyses.statistics import CONTROL, GROUP_TEST

KEY = ("run_id", "layer", "preset", "token_group")  # columns of a stored relation that its analysis does not give
CELLS = ("neuron", "window_id", *CELL, "matched_group", "positions")
MANY_FACTS = 1_000_000
MOST_PROCESSES = 4
POSITIONS = ("rare", "common", "all")  # that coordination is measured over; the column token_group (SPEC 5)


def due(
    stored: Mapping[str, Mapping[str, Any]], *, positions: Sequence[str] = (RARE,), again: bool = False
) -> list[Analysis]:
    """The analyses that a run still lacks, in the order in which they can be computed.

    Args:
        stored: the parameters of each analysis that it has.
        positions: of `POSITIONS`, those that coordination is wanted over, beside those that are stored.
        again: all of them.

    Returns:
        Those that are not stored, or with other parameters, or that read what such a one fills.
    """
    chosen: list[Analysis] = []
    renewed: set[str] = set()
    for given in REGISTRY:
        analysis = _over(given, positions, stored.get(given.name, {}))
        same = stored.get(analysis.name) == analysis.parameters
        if again or not same or renewed & set(analysis.reads):
            chosen.append(analysis)
            renewed |= set(analysis.relations)
    return chosen


def _over(analysis: Analysis, positions: Sequence[str], stored: Mapping[str, Any]) -> Analysis:
    """The analysis over these positions, and over those that are stored: asking for more never loses any."""
    if "token_groups" not in analysis.parameters:
        return analysis
    wanted = {*analysis.parameters["token_groups"], *positions, *stored.get("token_groups", ())}
    chosen = [name for name in POSITIONS if name in wanted]
    return replace(analysis, parameters={**analysis.parameters, "token_groups": chosen})


@contextmanager
def processes(analyses: Sequence[Analysis], facts: int) -> Iterator[Executor | None]:
    """Processes for those of the analyses that share their work, where a run has facts enough to repay their start."""
    if facts < MANY_FACTS or not any(analysis.shares_work for analysis in analyses):
        yield None
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of the processes; this one has read it already
    workers = min(MOST_PROCESSES, _cores())
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def _cores() -> int:
    """The cores this process may use: fewer than the machine has where a scheduler or a container bound it."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS or Windows
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _regimes(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    influence = ask(Source("neuron_influence"))
    cells = _cells(ask)
    sums = {(preset, group): window_sums(cells, preset, group) for preset in _drawn(cells) for group in TOKEN_GROUPS}
    return regimes(influence, sums, **parameters)


def _slopes(ask: Ask, _parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    return {"influence_slope": influence_slopes(ask(Source("neuron_influence")))}


def _intervals(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    cells = _cells(ask)
    parts = [
        influence_intervals(preset, group, window_sums(cells, preset, group), **parameters)
        for preset in _drawn(cells)
        for group in TOKEN_GROUPS
    ]
    return {"influence_interval": pl.concat([table([], INFLUENCE_INTERVAL), *parts])}


def _sensitivity(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    return {"threshold_sensitivity": threshold_sensitivity(_cells(ask), **parameters)}


def _neuron_group(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    neurons = len(ask(Source("dim_neuron", columns=("neuron",))))

    def formed(preset: str) -> pl.DataFrame:
        ranking = ask(Source("neuron_influence", preset, RARE))
        deviation = ask(Source("neuron_deviation", preset, RARE))
        chosen = [
            neuron_groups.sign_groups(ranking, parameters["k"]),
            neuron_groups.plateau_groups(ranking, deviation),
            neuron_groups.top_groups(ranking, parameters["top_share"]),
        ]
        return neuron_groups.with_controls(
            pl.concat(chosen), neurons, draws=parameters["draws"], seed=parameters["seed"]
        )

    presets = [*parameters["presets"], *([MATCHED] if _is_matched(ask) else [])]
    return {"neuron_group": pl.concat(_keyed(formed(preset), preset) for preset in presets)}


Compute = Callable[[Ask, Mapping[str, Any], Executor | None], Results]
OfGroups = Callable[["At", Mapping[str, Any], Executor | None], pl.DataFrame]


@dataclass(frozen=True)
class At:
    """Where an analysis of groups is: one preset, whose groups it is about, and the positions that it looks at."""

    ask: Ask
    preset: str
    positions: str
    group_names: Sequence[str]

    @property
    def activations(self) -> Activations:
        """T × N at these positions."""
        everywhere = self.positions == "all"
        source = Source(ACTIVATIONS) if everywhere else Source(ACTIVATIONS, self.preset, self.positions)
        values, windows = self.ask(source)
        return Activations(values, windows)

    @property
    def weights(self) -> dict[str, FloatArray]:
        """The weight vectors that the run has, N × d each: of no positions, so they come with the rare ones alone."""
        if self.positions != RARE:
            return {}
        frame = self.ask(Source("neuron_weight", columns=("neuron", "w_out", "w_in"))).sort("neuron")
        present = [name for name in ("w_out", "w_in") if len(frame) and frame[name].null_count() == 0]
        return {name: np.array(frame[name].to_list(), dtype=np.float32) for name in present}

    @property
    def groups(self) -> pl.DataFrame:
        """The groups of these names, in this order, and the random ones of their sizes."""
        stored = _own(self.ask(Source("neuron_group", self.preset, RARE)))
        formed = set(stored.filter(pl.col("neuron").is_not_null())["group_name"])
        stand_ins = [STAND_IN[name] for name in self.group_names if name in STAND_IN and name not in formed]
        names = dict.fromkeys([*self.group_names, *stand_ins])
        tested = pl.concat(stored.filter(pl.col("group_name") == name) for name in names)
        sizes = tested.filter(pl.col("neuron").is_not_null())["k"].unique().to_list()
        controls = stored.filter(pl.col("group_name") == CONTROL, pl.col("k").is_in(sizes))
        return pl.concat([tested, controls.sort("k", maintain_order=True)])


def _of_groups(relation: str, compute: OfGroups) -> Compute:
    """The analysis that fills `relation` from the groups of each preset; `group_names` are those it is about."""
    own_to_this = ("presets", "group_names", "token_groups")

    def every_preset(ask: Ask, parameters: Mapping[str, Any], pool: Executor | None) -> Results:
        own = {name: value for name, value in parameters.items() if name not in own_to_this}
        parts = [
            _keyed(compute(At(ask, preset, positions, parameters["group_names"]), own, pool), preset, positions)
            for preset in _standing(ask, parameters["presets"])
            for positions in parameters.get("token_groups", [RARE])
        ]
        return {relation: pl.concat(parts)}

    return every_preset


def _correlation(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return correlation.activation_correlation(at.activations, at.groups, **own)


def _cosine(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return cosine.cosine_similarity(at.groups, activations=at.activations, weights=at.weights, **own)


def _dimension(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return dimension.effective_dimension(at.activations, at.groups, **own)


def _clusters(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return clusters.neuron_cluster(at.activations, at.groups, **own)


def _information(at: At, own: Mapping[str, Any], pool: Executor | None) -> pl.DataFrame:
    return mutual_information.mutual_information(at.activations, at.groups, pool=pool, **own)


def _modularity(at: At, own: Mapping[str, Any], pool: Executor | None) -> pl.DataFrame:
    options = graph.GraphOptions(**{name: value for name, value in own.items() if name != "positions"})
    return graph.graph_modularity(at.activations, at.groups, positions=own["positions"], options=options, pool=pool)


def _spectrum(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return weight_spectra.weight_spectrum(at.weights, at.groups, **own)


def _density(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return weight_spectra.spectral_density(at.weights, at.groups, **own)


def _routing(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    own = {name: value for name, value in parameters.items() if name != "presets"}
    parts = [_keyed(inputs.routing(ask, preset, **own), preset) for preset in _standing(ask, parameters["presets"])]
    return {"attention_routing": pl.concat(parts)}


def _head_ablation(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    own = {name: value for name, value in parameters.items() if name not in ("presets", "group_names")}
    parts = []
    for preset in _standing(ask, parameters["presets"]):
        tested = At(ask, preset, RARE, parameters["group_names"]).groups.filter(pl.col("group_name") != CONTROL)
        parts.append(inputs.ablations(ask, preset, tested, **own))
    return {name: pl.concat(part[name] for part in parts) for name in ("head_ablation", "activation_patching")}


def _group_test(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    parts = [table([], GROUP_TEST).with_columns(preset=pl.lit(""), token_group=pl.lit(""))]
    for preset in [MATCHED] if _is_matched(ask) else parameters["presets"]:
        for positions in parameters["token_groups"]:
            parts += [_keyed(frame, preset, positions) for frame in _tests(ask, preset, positions, parameters["level"])]
    return {"group_test": pl.concat(parts)}


def _tests(ask: Ask, preset: str, positions: str, level: float) -> list[pl.DataFrame]:
    """The tests of what is stored of one preset and positions."""
    names = dict.fromkeys(one.relation for one in TESTED)
    found = {name: _own(ask(Source(name, preset, positions))) for name in names}
    found = {name: frame for name, frame in found.items() if len(frame)}
    tests = [group_test(found, level)]
    if "activation_correlation" in found:
        at = At(ask, preset, positions, SIGN_GROUPS)
        tests.append(pair_tests.pair_tests(at.groups, activations=at.activations, weights=at.weights))
    if "graph_modularity" in found:
        tests.append(graph.run_tests(found["graph_modularity"]))
    return tests


def _cells(ask: Ask) -> pl.DataFrame:
    cells: pl.DataFrame = ask(Source("agg_effect", columns=(*CELLS, "abs_delta_sum")))
    return cells


def _drawn(cells: pl.DataFrame) -> list[str]:
    """The presets that there are groups of in a run."""
    return [*PRESETS, *([MATCHED] if cells["matched_group"].count() else [])]


def _is_matched(ask: Ask) -> bool:
    return not ask(Source("neuron_influence", MATCHED, RARE)).is_empty()


def _standing(ask: Ask, presets: Sequence[str]) -> Sequence[str]:
    """The presets asked for; NC's instead of ES's in a run without a rare position of ES's.

    In a run of matched contexts the matched tokens instead of all: the others' groups are of positions chosen for them.
    """
    if _is_matched(ask):
        return [MATCHED]
    stand_in = {"es": "nc"}
    missing = [preset for preset in presets if ask(Source("neuron_influence", preset, RARE)).is_empty()]
    return list(dict.fromkeys(stand_in.get(preset, preset) if preset in missing else preset for preset in presets))


def _keyed(frame: pl.DataFrame, preset: str, token_group: str = RARE) -> pl.DataFrame:
    return frame.with_columns(preset=pl.lit(preset), token_group=pl.lit(token_group))


def _own(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop(KEY)


SIGN_GROUPS = ("boost", "suppress")
STAND_IN = {"plateau": "top", "excitatory": "top_boost", "inhibitory": "top_suppress"}  # without a plateau: DS's 1 %
_SEEDED = {"draws": 1_000, "seed": 0}
_WEIGHTS = {"presets": ["es"], "group_names": [*SIGN_GROUPS, "plateau"]}
_ES = _WEIGHTS | {"token_groups": [RARE]}
_PLATEAU = ["plateau", "excitatory", "inhibitory"]
_NC = {"presets": ["nc"], "group_names": [*SIGN_GROUPS, "excitatory", "inhibitory"], "token_groups": [RARE]}
_GROUPED = ("neuron_group", "neuron_influence")

REGISTRY: tuple[Analysis, ...] = (
    Analysis("regimes", ("regime_fit", "regime_decision"), ("neuron_influence", "agg_effect"), _regimes, _SEEDED),
    Analysis("influence_slope", ("influence_slope",), ("neuron_influence",), _slopes),
    Analysis("influence_interval", ("influence_interval",), ("agg_effect",), _intervals, _SEEDED),
    Analysis("threshold_sensitivity", ("threshold_sensitivity",), ("agg_effect",), _sensitivity, {"seed": 0}),
    Analysis(
        "neuron_group",
        ("neuron_group",),
        ("dim_neuron", "neuron_influence", "neuron_deviation"),
        _neuron_group,
        {"presets": ["es", "nc"], "k": 50, "top_share": 0.01, "draws": 100, "seed": 0},
    ),
    Analysis(
        "activation_correlation",
        ("activation_correlation",),
        (*_GROUPED, ACTIVATIONS),
        _of_groups("activation_correlation", _correlation),
        _ES | {"resamples": 1_000, "seed": 0},
    ),
    Analysis(
        "cosine_similarity",
        ("cosine_similarity",),
        (*_GROUPED, ACTIVATIONS, "neuron_weight"),
        _of_groups("cosine_similarity", _cosine),
        _ES | {"resamples": 1_000, "seed": 0},
    ),
    Analysis(
        "effective_dimension",
        ("effective_dimension",),
        (*_GROUPED, ACTIVATIONS),
        _of_groups("effective_dimension", _dimension),
        _ES | {"threshold": 0.95, "standardised": True, "resamples": 1_000, "seed": 0},
    ),
    Analysis(
        "neuron_cluster",
        ("neuron_cluster",),
        (*_GROUPED, ACTIVATIONS),
        _of_groups("neuron_cluster", _clusters),
        _ES | {"thresholds": [0.5, 5.0]},
    ),
    Analysis(
        "mutual_information",
        ("mutual_information",),
        (*_GROUPED, ACTIVATIONS),
        _of_groups("mutual_information", _information),
        _ES | {"estimators": ["binned", "ksg"], "bins": 16, "neighbours": 3, "contexts": 1_000, "seed": 0},
        shares_work=True,
    ),
    Analysis(
        "graph_modularity",
        ("graph_modularity",),
        (*_GROUPED, ACTIVATIONS),
        _of_groups("graph_modularity", _modularity),
        _NC | {"positions": 1_000, "threshold": 0.1, "louvain_runs": 100, "leiden_runs": 20, "seed": 0},
        shares_work=True,
    ),
    Analysis(
        "weight_spectrum",
        ("weight_spectrum",),
        (*_GROUPED, "neuron_weight"),
        _of_groups("weight_spectrum", _spectrum),
        _WEIGHTS | {"standardised": False, "rules": list(weight_spectra.RULES), "seed": 0},
    ),
    Analysis(
        "spectral_density",
        ("spectral_density",),
        (*_GROUPED, "neuron_weight"),
        _of_groups("spectral_density", _density),
        _WEIGHTS | {"standardised": False, "bins": weight_spectra.BINS},
    ),
    Analysis(
        "attention_routing",
        ("attention_routing",),
        (*ATTENTION, "neuron_influence"),
        _routing,
        {"presets": ["nc"], "resamples": 1_000, "seed": 0},
    ),
    Analysis(
        "head_ablation",
        ("head_ablation", "activation_patching"),
        (*_GROUPED, *ATTENTION, "position_group", "dim_position", "dim_neuron"),
        _head_ablation,
        {"presets": ["nc"], "group_names": _PLATEAU, "draws": 10_000, "level": 0.05, "resamples": 1_000, "seed": 0},
    ),
    Analysis(
        "group_test",
        ("group_test",),
        (*dict.fromkeys(one.relation for one in TESTED), *_GROUPED, ACTIVATIONS, "neuron_weight"),
        _group_test,
        {"presets": ["es", "nc"], "token_groups": [RARE], "level": 0.05},
    ),
)
