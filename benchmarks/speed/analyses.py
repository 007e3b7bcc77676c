"""What the coordination, graph and spectrum analyses of one run cost, compared with the obvious serial loop.

    python -m benchmarks.speed.analyses [--quick] [--workers 4]

A drawn layer of 25,088 positions × 3,072 neurons (GELU of correlated factors), two tested groups of 50, all positions
(the rare ones alone are fewer). Targets: all analyses with 100 controls in at most 60 s on four cores and 4 GB;
correlations of 50 neurons in at most 0.5 s. Then 10,000 controls where a statistic costs under 1 ms, cost against
group size and number of controls, and the serial baseline for Louvain: build and search the graph for each control and
seed. Results go to benchmarks/results/analyses.json.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import igraph
import numpy as np
import polars as pl

from benchmarks import result
from benchmarks.memory.head import TreeMemory
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.clusters import neuron_cluster
from rare_tokens.analyses.coordination.correlation import activation_correlation
from rare_tokens.analyses.coordination.cosine import cosine_similarity
from rare_tokens.analyses.coordination.dimension import effective_dimension
from rare_tokens.analyses.coordination.graph import GraphOptions, graph_modularity, run_tests
from rare_tokens.analyses.coordination.mutual_information import mutual_information
from rare_tokens.analyses.coordination.neuron_groups import GROUP, with_controls
from rare_tokens.analyses.coordination.pair_tests import pair_tests
from rare_tokens.analyses.coordination.similarity import ACTIVATION, MAGNITUDE
from rare_tokens.analyses.coordination.weight_spectra import spectral_density, weight_spectrum
from rare_tokens.analyses.group_tests import group_test
from rare_tokens.analyses.registry import REGISTRY
from rare_tokens.analyses.result_table import FloatArray, table

RESULTS = result("analyses")
WIDTH = 768
Steps = dict[str, Callable[[], pl.DataFrame]]


def main() -> None:
    """Draw the layer, time every part, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4,096 × 512, 20 controls; nothing is written")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    given = parser.parse_args()
    positions, neurons, draws, many = (4_096, 512, 20, 500) if given.quick else (25_088, 3_072, 100, 10_000)
    layer, weights = drawn_layer(positions, neurons)
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "shape": {"positions": positions, "neurons": neurons, "width": WIDTH, "groups": 2, "k": 50, "controls": draws},
        "asked": "all analyses ≤ 60 s on four cores, ≤ 4 GB; correlations of 50 neurons ≤ 0.5 s",
    }
    groups = tested_groups(50)
    found["correlations_of_50_neurons_seconds"] = timed(lambda: fifty(layer))
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # for the workers, which import numpy anew
    with (
        ProcessPoolExecutor(given.workers, mp_context=multiprocessing.get_context("spawn")) as pool,
        TreeMemory() as memory,
    ):
        list(pool.map(abs, range(64)))
        fresh = Activations(layer.values, layer.windows)
        found["with_workers"] = every(fresh, weights, with_controls(groups, neurons, draws=draws), pool)
        found["with_workers"]["workers"] = given.workers
    found["peak_memory_gb"] = round(memory.peak_gb, 2)
    found["peak_memory_counts"] = "this process and its workers together, shared pages once"
    fresh = Activations(layer.values, layer.windows)
    found["alone"] = every(fresh, weights, with_controls(groups, neurons, draws=draws), None)
    found["many_controls"] = {"controls": many} | cheap(fresh, weights, with_controls(groups, neurons, draws=many))
    found["louvain"] = against_the_loop(fresh, groups, draws)
    found["by_group_size"] = [by_size(fresh, weights, k, draws // 10) for k in (10, 50, 100, 200)]
    found["by_controls"] = [by_size(fresh, weights, 50, count) for count in (10, 50, 100)]
    text = json.dumps(found, indent=1, ensure_ascii=False)
    print(text)
    if not given.quick:
        RESULTS.write_text(text + "\n", encoding="utf-8")


def drawn_layer(positions: int, neurons: int, factors: int = 64) -> tuple[Activations, dict[str, FloatArray]]:
    """GELU activations of correlated neurons, (T, N), and output weights, (N, d)."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((factors, neurons), dtype=np.float32) / np.float32(factors**0.5)
    values = rng.standard_normal((positions, factors), dtype=np.float32) @ mixing
    values += rng.standard_normal(values.shape, dtype=np.float32) - 1
    values *= 1 / (1 + np.exp(-1.702 * values))
    weights = rng.standard_normal((neurons, WIDTH)) * (rng.pareto(3, (neurons, 1)) + 1)
    return Activations(values, np.arange(positions) // 256), {"w_out": weights}


def tested_groups(k: int) -> pl.DataFrame:
    """`boost` and `suppress`: the first and the next k neurons."""
    rows = [{"group_name": "boost" if i < k else "suppress", "k": k, "draw": 0, "neuron": i} for i in range(2 * k)]
    return table(rows, GROUP)


def steps(layer: Activations, weights: dict[str, FloatArray], groups: pl.DataFrame, pool: Executor | None) -> Steps:
    """Every analysis of a run, by relation."""
    return {
        "activation_correlation": lambda: activation_correlation(layer, groups, spaces=(ACTIVATION, MAGNITUDE)),
        "cosine_similarity": lambda: cosine_similarity(groups, activations=layer, weights=weights),
        "effective_dimension": lambda: effective_dimension(layer, groups),
        "neuron_cluster": lambda: neuron_cluster(layer, groups),
        "mutual_information": lambda: mutual_information(layer, groups, pool=pool),
        "graph_modularity": lambda: graph_modularity(layer, groups, pool=pool),
        "weight_spectrum": lambda: weight_spectrum(weights, groups),
        "spectral_density": lambda: spectral_density(weights, groups),
    }


def every(
    layer: Activations, weights: dict[str, FloatArray], groups: pl.DataFrame, pool: Executor | None
) -> dict[str, Any]:
    """Seconds that every analysis and the tests take, and their sum."""
    seconds, results = {}, {}
    began = cpu_seconds()
    for name, step in steps(layer, weights, groups, pool).items():
        start = time.perf_counter()
        results[name] = step()
        seconds[name] = round(time.perf_counter() - start, 2)
        print(f"{name}: {seconds[name]} s, {len(results[name])} rows", file=sys.stderr)
    start = time.perf_counter()
    group_test(results, REGISTRY)
    pair_tests(groups, activations=layer, weights=weights)
    run_tests(results["graph_modularity"])
    seconds["group_test"] = round(time.perf_counter() - start, 2)
    total = round(sum(seconds.values()), 2)
    return {"seconds": seconds, "total_seconds": total, "cpu_seconds_of_this_process": round(cpu_seconds() - began, 2)}


def cheap(layer: Activations, weights: dict[str, FloatArray], groups: pl.DataFrame) -> dict[str, Any]:
    """Seconds of the analyses that cost under 1 ms per control."""
    names = (
        "activation_correlation", "cosine_similarity", "effective_dimension", "neuron_cluster", "weight_spectrum"
    )  # fmt: skip
    chosen = steps(layer, weights, groups, None)
    return {"seconds": {name: timed(chosen[name]) for name in names}}


def by_size(layer: Activations, weights: dict[str, FloatArray], k: int, draws: int) -> dict[str, Any]:
    """Seconds of every analysis for one size of group and number of controls, without workers."""
    groups = with_controls(tested_groups(k), layer.neurons, draws=draws)
    chosen = steps(layer, weights, groups, None)
    return {"k": k, "controls": draws, "seconds": {name: timed(step) for name, step in chosen.items()}}


def fifty(layer: Activations) -> FloatArray:
    """All correlations of 50 neurons, from the activations on."""
    neurons = np.arange(0, layer.neurons, layer.neurons // 50)[:50]
    return Activations(layer.values, layer.windows).moments(neurons).correlation


def against_the_loop(layer: Activations, groups: pl.DataFrame, draws: int) -> dict[str, Any]:
    """Louvain, 100 seeds on each control's graph: this project's and the loop that one would write first."""
    every_group = with_controls(groups, layer.neurons, draws=draws)
    options = GraphOptions(leiden_runs=1, spectral=(), resamples=0)
    chosen = layer.sample(1_000, 0)
    alone = timed(lambda: graph_modularity(chosen, every_group, options=options))
    best = 0.0
    start = time.perf_counter()
    for (_, _), part in every_group.filter(group_name="control").group_by(["k", "draw"], maintain_order=True):
        members = part["neuron"].to_list()
        for seed in range(100):
            random.seed(seed)
            correlation = np.corrcoef(chosen.values[:, members].T)
            np.fill_diagonal(correlation, 0)
            correlation[np.abs(correlation) <= 0.1] = 0
            graph = igraph.Graph.Weighted_Adjacency(np.abs(correlation).tolist(), mode="upper")
            best = max(best, graph.community_multilevel(weights="weight").modularity)
    loop = round(time.perf_counter() - start, 2)
    return {"graphs": draws, "seeds": 100, "ours_with_one_leiden_run_seconds": alone, "serial_loop_seconds": loop}


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return round(time.perf_counter() - start, 3)


def cpu_seconds() -> float:
    """Processor seconds of this process so far, all threads: a busy machine does not change them much."""
    return time.process_time()


if __name__ == "__main__":
    main()
