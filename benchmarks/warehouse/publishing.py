"""What publishing a run of a paper's size costs, and what queries of it cost with other runs in the warehouse.

    python -m benchmarks.warehouse.publishing [--positions 25088] [--neurons 3072] [--runs 1] [--threads 4]
        [--folder DIR]

Synthetic facts, targets drawn by Zipf's law as in a text. Targets: publishing 25,088 × 3,072 pairs in at most
15 s on four cores, with facts at 15 million rows per second, sorting included. The baseline is the engine's own insert
of the same rows from Parquet, unsorted and unchecked. Queries are timed the second time. Wall-clock time is useful only
on an idle machine, so processor time is given too. Results go to benchmarks/results/publishing.json.
"""

import argparse
import json
import os
import resource
import tempfile
from pathlib import Path
from typing import Any

import duckdb

from benchmarks import result
from benchmarks.warehouse.synthetic_runs import Stages, machine, make_run, seconds, use_threads
from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line

RESULTS = result("publishing")
MEAN = "select neuron, avg(abs(delta_loss)) from fct_effect where run_id = {} group by 1"
QUERIES = {
    "influence of a run": "from neuron_influence where run_id = '{run}'",
    "influence_at(run, 15), from the facts": "from influence_at('{run}', 15)",
    "mean |delta| of every neuron, run_id = '…'": MEAN.format("'{run}'"),
    "mean |delta| of every neuron, run_id = (select …)": MEAN.format("(select max(run_id) from dim_run)"),
    "mean |delta| of every neuron, run_key = 1": (
        "select neuron, avg(abs(delta_loss)) from store.fct_effect where run_key = 1 group by 1"
    ),
    "sums below percentile 50 from agg_effect": (
        "select neuron, sum(abs_delta_sum), sum(positions) from agg_effect"
        " where run_id = '{run}' and percentile_bucket < 50 group by 1"
    ),
    "50 neurons back": "from fct_effect where run_id = '{run}' and neuron < 50",
    "count(*)": "select count(*) from fct_effect",
}


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=25_088)
    parser.add_argument("--neurons", type=int, default=3_072)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--folder", type=Path, help="where to work [default: the system's temporary folder]")
    given = parser.parse_args()
    use_threads(given.threads)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measure(Path(folder), given.positions, given.neurons, given.runs, given.threads)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def measure(folder: Path, positions: int, neurons: int, runs: int, threads: int) -> dict[str, Any]:
    """Publish `runs` runs, the first of them twice, then query the first."""
    path, stages = folder / "bench.duckdb", Stages()
    parts = folder / "bench.duckdb.parts" / "run"
    pairs = positions * neurons
    found: dict[str, Any] = machine(threads) | {"runs": runs, "pairs of a run": pairs}
    for number in range(runs, 0, -1):  # the one to be queried comes last
        make_run(parts, positions, neurons, f"run-{number}", seed=number)
        found["publish, seconds"] = seconds(lambda: warehouse.publish(path, parts, line=power_law_line, quiet=True))
        found["stages, wall-clock and processor seconds"] = dict(stages.seconds)
    found["peak memory, MB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    found["facts, M rows a second"] = round(pairs / stages.seconds["facts"][0] / 1e6, 1)
    found["file, bytes a pair"] = round(path.stat().st_size / pairs / runs, 2)
    make_run(parts, positions, neurons, "run-1", code_version="again")
    found["baseline: unsorted insert, seconds"] = seconds(lambda: _baseline(folder, threads))
    found["publish again, seconds"] = seconds(lambda: warehouse.publish(path, parts, line=power_law_line, quiet=True))
    with warehouse.open(path) as opened:
        (cells,) = opened.sql("select count(*) as n from store.agg_effect")["n"]
        found["agg_effect, rows of a run"] = cells // runs
        found["agg_effect, share of the pairs"] = round(cells / runs / pairs, 4)
        found["queries, seconds"] = {
            name: min(seconds(lambda: opened.sql(query.format(run="run-1"))) for _ in range(2))  # noqa: B023
            for name, query in QUERIES.items()
        }
    return found


def _baseline(folder: Path, threads: int) -> None:
    path, parts = folder / "baseline.duckdb", folder / "bench.duckdb.parts" / "run" / "fct_effect"
    with duckdb.connect(path, config={"threads": threads}) as con:
        con.execute(f"create table fact as from read_parquet('{parts}/*.parquet')")
    path.unlink()


if __name__ == "__main__":
    main()
