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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from analyses import geometry, graph, groups, information, spectra
from analyses.activations import Activations
from analyses.cells import PRESETS, RARE, TOKEN_GROUPS, window_sums
from analyses.intervals import INFLUENCE_INTERVAL, influence_intervals
from analyses.regimes import regimes
from analyses.sensitivity import threshold_sensitivity
from analyses.significance import TESTED, group_test
from analyses.statistics import CONTROL, GROUP_TEST
from analyses.tables import FloatArray, table

KEY = ("run_id", "layer", "preset", "token_group")  # columns of a stored relation that its analysis does not give
CELLS = ("neuron", "window_id", "percentile_bucket", "occurrence_bucket", "is_word", "is_elbow", "positions")
MANY_FACTS = 1_000_000
MOST_PROCESSES = 4
ACTIVATIONS = "activations"  # not a relation: T × N values and the window of each position


@dataclass(frozen=True)
class Source:
    """What an analysis asks for, of the run that is analysed.

    Attributes:
        relation: a public relation, or `ACTIVATIONS`.
        preset: only the rows, or positions, of this preset; None: of all.
        token_group: likewise.
        columns: only these; none: all.
    """

    relation: str
    preset: str | None = None
    token_group: str | None = None
    columns: tuple[str, ...] = ()


Ask = Callable[[Source], Any]  # a frame, its rows in an order that repeats; for ACTIVATIONS the arrays (T, N) and (T,)
Results = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Analysis:
    """One step of `analyze`.

    Attributes:
        name: what it is stored and listed under.
        relations: those it fills.
        reads: the relations it asks for; where one of them is filled by another analysis, that comes first.
        compute: from an `Ask`, the parameters and processes to share work among, the relations of one run.
        parameters: given to `compute`, and stored: other ones make it compute anew.
        shares_work: whether it gains from processes.
    """

    name: str
    relations: tuple[str, ...]
    reads: tuple[str, ...]
    compute: Callable[[Ask, Mapping[str, Any], Executor | None], Results]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    shares_work: bool = False


def due(stored: Mapping[str, Mapping[str, Any]], *, again: bool = False) -> list[Analysis]:
    """The analyses that a run still lacks, in the order in which they can be computed.

    Args:
        stored: the parameters of each analysis that it has.
        again: all of them.

    Returns:
        Those that are not stored, or with other parameters, or that read what such a one fills.
    """
    chosen: list[Analysis] = []
    renewed: set[str] = set()
    for analysis in REGISTRY:
        same = stored.get(analysis.name) == analysis.parameters
        if again or not same or renewed & set(analysis.reads):
            chosen.append(analysis)
            renewed |= set(analysis.relations)
    return chosen


@contextmanager
def processes(analyses: Sequence[Analysis], facts: int) -> Iterator[Executor | None]:
    """Processes for those of the analyses that share their work, where a run has facts enough to repay their start."""
    if facts < MANY_FACTS or not any(analysis.shares_work for analysis in analyses):
        yield None
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of the processes; this one has read it already
    workers = min(MOST_PROCESSES, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def _regimes(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    influence = ask(Source("neuron_influence"))
    cells = _cells(ask)
    sums = {(preset, group): window_sums(cells, preset, group) for preset in PRESETS for group in TOKEN_GROUPS}
    return regimes(influence, sums, **parameters)


def _intervals(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    cells = _cells(ask)
    parts = [
        influence_intervals(preset, group, window_sums(cells, preset, group), **parameters)
        for preset in PRESETS
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
            groups.sign_groups(ranking, parameters["k"]),
            groups.plateau_groups(ranking, deviation),
            groups.top_groups(ranking, parameters["top_share"]),
        ]
        return groups.with_controls(pl.concat(chosen), neurons, draws=parameters["draws"], seed=parameters["seed"])

    return {"neuron_group": pl.concat(_keyed(formed(preset), preset) for preset in parameters["presets"])}


def _of_groups(
    relation: str, compute: Callable[[Ask, str, pl.DataFrame, Mapping[str, Any], Executor | None], pl.DataFrame]
) -> Callable[[Ask, Mapping[str, Any], Executor | None], Results]:
    """The analysis that fills `relation` from the groups of each preset; `group_names` are those it is about."""

    def every_preset(ask: Ask, parameters: Mapping[str, Any], pool: Executor | None) -> Results:
        own = {name: value for name, value in parameters.items() if name not in ("presets", "group_names")}
        parts = [
            _keyed(compute(ask, preset, _groups(ask, preset, parameters["group_names"]), own, pool), preset)
            for preset in _standing(ask, parameters["presets"])
        ]
        return {relation: pl.concat(parts)}

    return every_preset


def _correlation(
    ask: Ask, preset: str, chosen: pl.DataFrame, own: Mapping[str, Any], _pool: Executor | None
) -> pl.DataFrame:
    return geometry.activation_correlation(_activations(ask, preset), chosen, **own)


def _cosine(
    ask: Ask, preset: str, chosen: pl.DataFrame, own: Mapping[str, Any], _pool: Executor | None
) -> pl.DataFrame:
    return geometry.cosine_similarity(chosen, activations=_activations(ask, preset), weights=_weights(ask), **own)


def _dimension(
    ask: Ask, preset: str, chosen: pl.DataFrame, own: Mapping[str, Any], _pool: Executor | None
) -> pl.DataFrame:
    return geometry.effective_dimension(_activations(ask, preset), chosen, **own)


def _clusters(
    ask: Ask, preset: str, chosen: pl.DataFrame, own: Mapping[str, Any], _pool: Executor | None
) -> pl.DataFrame:
    return geometry.neuron_cluster(_activations(ask, preset), chosen, **own)


def _information(
    ask: Ask, preset: str, chosen: pl.DataFrame, own: Mapping[str, Any], pool: Executor | None
) -> pl.DataFrame:
    return information.mutual_information(_activations(ask, preset), chosen, pool=pool, **own)


def _modularity(
    ask: Ask, preset: str, chosen: pl.DataFrame, own: Mapping[str, Any], pool: Executor | None
) -> pl.DataFrame:
    options = graph.GraphOptions(**{name: value for name, value in own.items() if name != "positions"})
    activations = _activations(ask, preset)
    return graph.graph_modularity(activations, chosen, positions=own["positions"], options=options, pool=pool)


def _spectrum(
    ask: Ask, _preset: str, chosen: pl.DataFrame, own: Mapping[str, Any], _pool: Executor | None
) -> pl.DataFrame:
    return spectra.weight_spectrum(_weights(ask), chosen, **own)


def _group_test(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
    parts = [table([], GROUP_TEST).with_columns(preset=pl.lit(""), token_group=pl.lit(""))]
    for preset in parameters["presets"]:
        found = {name: _own(ask(Source(name, preset, RARE))) for name in dict.fromkeys(one.relation for one in TESTED)}
        found = {name: frame for name, frame in found.items() if len(frame)}
        tests = [group_test(found, parameters["level"])]
        if "activation_correlation" in found:
            chosen = _groups(ask, preset, SIGN_GROUPS)
            tests.append(geometry.pair_tests(chosen, activations=_activations(ask, preset), weights=_weights(ask)))
        if "graph_modularity" in found:
            tests.append(graph.run_tests(found["graph_modularity"]))
        parts += [_keyed(frame, preset) for frame in tests]
    return {"group_test": pl.concat(parts)}


def _cells(ask: Ask) -> pl.DataFrame:
    cells: pl.DataFrame = ask(Source("agg_effect", columns=(*CELLS, "abs_delta_sum")))
    return cells


def _activations(ask: Ask, preset: str) -> Activations:
    values, windows = ask(Source(ACTIVATIONS, preset, RARE))
    return Activations(values, windows)


def _weights(ask: Ask) -> dict[str, FloatArray]:
    """The weight vectors that the run has, N × d each."""
    frame = ask(Source("neuron_weight", columns=("neuron", "w_out", "w_in"))).sort("neuron")
    present = [name for name in ("w_out", "w_in") if len(frame) and frame[name].null_count() == 0]
    return {name: np.array(frame[name].to_list(), dtype=np.float32) for name in present}


def _groups(ask: Ask, preset: str, names: Sequence[str]) -> pl.DataFrame:
    """The groups of these names, in this order, and the random ones of their sizes."""
    stored = _own(ask(Source("neuron_group", preset, RARE)))
    tested = pl.concat(stored.filter(pl.col("group_name") == name) for name in names)
    sizes = tested.filter(pl.col("neuron").is_not_null())["k"].unique().to_list()
    controls = stored.filter(pl.col("group_name") == CONTROL, pl.col("k").is_in(sizes)).sort("k", maintain_order=True)
    return pl.concat([tested, controls])


def _standing(ask: Ask, presets: Sequence[str]) -> Sequence[str]:
    """The presets asked for; NC's instead of ES's in a run without a rare position of ES's."""
    stand_in = {"es": "nc"}
    missing = [preset for preset in presets if ask(Source("neuron_influence", preset, RARE)).is_empty()]
    return list(dict.fromkeys(stand_in.get(preset, preset) if preset in missing else preset for preset in presets))


def _keyed(frame: pl.DataFrame, preset: str) -> pl.DataFrame:
    return frame.with_columns(preset=pl.lit(preset), token_group=pl.lit(RARE))


def _own(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop(KEY)


SIGN_GROUPS = ("boost", "suppress")
_SEEDED = {"draws": 1_000, "seed": 0}
_ES = {"presets": ["es"], "group_names": list(SIGN_GROUPS)}
_NC = {"presets": ["nc"], "group_names": list(SIGN_GROUPS)}
_GROUPED = ("neuron_group", "neuron_influence")

REGISTRY: tuple[Analysis, ...] = (
    Analysis("regimes", ("regime_fit", "regime_decision"), ("neuron_influence", "agg_effect"), _regimes, _SEEDED),
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
        _ES | {"standardised": False, "rules": list(spectra.RULES), "seed": 0},
    ),
    Analysis(
        "group_test",
        ("group_test",),
        (*dict.fromkeys(one.relation for one in TESTED), *_GROUPED, ACTIVATIONS, "neuron_weight"),
        _group_test,
        {"presets": ["es", "nc"], "level": 0.05},
    ),
)
