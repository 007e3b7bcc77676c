"""The analyses that `analyze` runs, in order, and which of them a run still lacks.

An analysis reads through an `Ask`, so nothing here knows where relations are stored or which run is analysed. To add
one, write a module that exports its `ANALYSIS`, and add its line to the list below.
"""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rare_tokens.analyses import group_tests
from rare_tokens.analyses.across_runs import series
from rare_tokens.analyses.agreement import attribution, overlap, references
from rare_tokens.analyses.analysis import Analysis, Schema, SetAnalysis
from rare_tokens.analyses.attention import head_edits, routing
from rare_tokens.analyses.coordination import (
    clusters,
    correlation,
    cosine,
    dimension,
    graph,
    mutual_information,
    neuron_groups,
    weight_spectra,
)
from rare_tokens.analyses.curve import intervals, plateau_difference, regimes, slopes, threshold_sensitivity
from rare_tokens.analyses.curve.effect_cells import RARE
from rare_tokens.analyses.specificity import neuron_specificity

MANY_FACTS = 1_000_000
MOST_PROCESSES = 4
POSITIONS = ("rare", "common", "all")  # over which coordination is measured; the column token_group

_OF_A_RUN: tuple[Analysis, ...] = (  # each after those it reads
    regimes.ANALYSIS,
    slopes.ANALYSIS,
    intervals.ANALYSIS,
    plateau_difference.ANALYSIS,
    threshold_sensitivity.ANALYSIS,
    attribution.ANALYSIS,
    neuron_specificity.ANALYSIS,
    overlap.ANALYSIS,
    neuron_groups.ANALYSIS,
    correlation.ANALYSIS,
    cosine.ANALYSIS,
    dimension.ANALYSIS,
    clusters.ANALYSIS,
    mutual_information.ANALYSIS,
    graph.ANALYSIS,
    *weight_spectra.ANALYSES,
    routing.ANALYSIS,
    head_edits.ANALYSIS,
)
REGISTRY: tuple[Analysis, ...] = (*_OF_A_RUN, group_tests.over(_OF_A_RUN))
OF_SETS: tuple[SetAnalysis, ...] = (series.ANALYSIS, references.ANALYSIS, overlap.ACROSS)


def relations() -> dict[str, Schema]:
    """Every relation that `analyze` fills, with its columns besides the run's."""
    every: tuple[Analysis | SetAnalysis, ...] = (*REGISTRY, *OF_SETS)
    return {name: schema for analysis in every for name, schema in analysis.relations.items()}


def needed(analysis: SetAnalysis) -> list[str]:
    """The analyses of a run that fill what an analysis of a set of runs reads."""
    return [one.name for one in REGISTRY if set(one.relations) & set(analysis.reads)]


def readers(relation: str) -> list[str]:
    """The analyses of a run that read a relation."""
    return [one.name for one in REGISTRY if relation in one.reads]


def due(
    stored: Mapping[str, Mapping[str, Any]], *, positions: Sequence[str] = (RARE,), again: bool = False
) -> list[Analysis]:
    """The analyses that a run still lacks, in the order in which they can be computed.

    Args:
        stored: the parameters of each analysis that the run has.
        positions: those of `POSITIONS` over which coordination is wanted, besides the stored ones.
        again: return all of them.

    Returns:
        Those that are not stored, are stored with other parameters, or read what such an analysis fills.
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
    """The analysis over these positions and the stored ones: asking for more never loses any."""
    if "token_groups" not in analysis.parameters:
        return analysis
    wanted = {*analysis.parameters["token_groups"], *positions, *stored.get("token_groups", ())}
    chosen = [name for name in POSITIONS if name in wanted]
    return replace(analysis, parameters={**analysis.parameters, "token_groups": chosen})


@contextmanager
def processes(analyses: Sequence[Analysis], facts: int) -> Iterator[Executor | None]:
    """Processes for analyses that share their work, if a run has enough facts to repay starting them."""
    if facts < MANY_FACTS or not any(analysis.shares_work for analysis in analyses):
        yield None
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for the processes; this one has read it already
    workers = min(MOST_PROCESSES, _cores())
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


def _cores() -> int:
    """The cores this process may use: fewer than the machine's if a scheduler or a container limits it."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS or Windows
    return len(allowed(0)) if allowed else os.cpu_count() or 1
