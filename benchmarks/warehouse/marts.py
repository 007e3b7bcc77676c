"""What the first answer of every relation costs, and the analyses of the curve, with one run and with twenty.

    python -m benchmarks.warehouse.marts [--neurons 6400] [--runs 20] [--threads 4] [--folder DIR]

Synthetic facts of 25,088 positions: a run of 1,024 neurons, one of `--neurons`, then `--runs` − 2 more of 1,024.
Targets: the first answer of each mart in at most 1 s (a fresh process: open, query, all rows or their sums), also with
`run_id = (select …)` as people write it; sensitivity at most 20 s; 1,000 bootstraps at most 30 s; at most 4 GB. The
first answer includes opening the file but not starting Python. The baseline is the influence of every neuron computed
from the facts, as code without stored marts has to. Results go to benchmarks/results/marts.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.warehouse.synthetic_runs import machine, make_run, use_threads
from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.analysis import Source
from rare_tokens.analyses.curve.power_law import power_law_line

RESULTS = result("marts")
POSITIONS, SMALL = 25_088, 1_024
ALL_ROWS = "select * from {name} where run_id = {run}"
ONE_RUN = "(select run_id from dim_run where run_id = {run})"
QUERIES = dict.fromkeys(
    [
        "dim_run",
        "dim_position",
        "dim_neuron",
        "position_group",
        "neuron_influence",
        "power_law_fit",
        "neuron_deviation",
    ],
    ALL_ROWS,
) | {
    "agg_effect": (
        "select neuron, sum(abs_delta_sum) / sum(positions) from {name}"
        " where run_id = {run} and percentile_bucket < 50 group by neuron"
    ),
    "influence_at, 15": f"select * from influence_at({ONE_RUN}, 15)",
    "influence_at, 17: partly from the facts": f"select * from influence_at({ONE_RUN}, 17)",
    "influence_at, 77: partly from the facts": f"select * from influence_at({ONE_RUN}, 77)",
    "influence_where, 17, elbow left out": f"select * from influence_where({ONE_RUN}, 17, elbow := false)",
    "influence_where, 17, input tokens": f"select * from influence_where({ONE_RUN}, 17, of_input := true)",
    "fct_effect, one neuron": "select * from fct_effect where run_id = {run} and neuron = 17",
    "baseline: influence from the facts": (
        "select preset, token_group, neuron, avg(abs(delta_loss)) from fct_effect"
        " join position_group using (run_id, position_id) where run_id = {run} group by all"
    ),
}
WAYS = {"run_id = '…'": "'{run}'", "run_id = (select …)": "(select max(run_id) from dim_run where neurons = {neurons})"}
ANALYSES = ("regimes", "influence_interval", "threshold_sensitivity")


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=6_400)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--folder", type=Path, help="where to work [default: the system's temporary folder]")
    parser.add_argument("--ask", nargs=3, metavar=("FILE", "RUN", "ANALYSIS"), help=argparse.SUPPRESS)
    parser.add_argument("--first", nargs=2, metavar=("FILE", "QUERY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    use_threads(given.threads)
    if given.ask:
        print(json.dumps(analyse(Path(given.ask[0]), *given.ask[1:])))
    elif given.first:
        print(json.dumps(first_answer(Path(given.first[0]), given.first[1])))
    else:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            found = measure(Path(folder), given.neurons, given.runs, given.threads)
        print(json.dumps(found, indent=2, ensure_ascii=False))
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def measure(folder: Path, neurons: int, runs: int, threads: int) -> dict[str, Any]:
    """Publish the runs and time the answers: for the small run, for the large one, and for both among the others."""
    path = folder / "bench.duckdb"
    found: dict[str, Any] = machine(threads) | {"positions": POSITIONS}
    publish(path, "small", SMALL)
    publish(path, "large", neurons)
    for run, width in (("small", SMALL), ("large", neurons)):
        found[f"{width} neurons"] = {
            "seconds to the first answer": first_answers(path, run, width, threads),
            "analyses": {name: child(threads, "--ask", path, run, name) for name in ANALYSES},
        }
    for number in range(2, runs):
        publish(path, f"other{number:02d}", SMALL)
    found[f"among {runs} runs"] = {
        "file, GB": round(path.stat().st_size / 1e9, 2),
        f"{neurons} neurons, seconds to the first answer": first_answers(path, "large", neurons, threads),
        f"{SMALL} neurons, seconds to the first answer": first_answers(path, "small", SMALL, threads),
    }
    return found


def publish(path: Path, run: str, neurons: int) -> None:
    """Draw a run and publish it."""
    parts = path.with_name(path.name + ".parts") / run
    make_run(parts, POSITIONS, neurons, run, seed=len(run))
    warehouse.publish(path, parts, line=power_law_line, quiet=True)
    print(f"published {run}", file=sys.stderr)


def first_answers(path: Path, run: str, neurons: int, threads: int) -> dict[str, dict[str, float]]:
    """Seconds of every query, in a process of its own, for each way to name the run."""
    return {
        name: {
            way: child(threads, "--first", path, query.format(name=name, run=said.format(run=run, neurons=neurons)))
            for way, said in WAYS.items()
        }
        for name, query in QUERIES.items()
    }


def child(threads: int, *arguments: object) -> Any:
    """What this script prints in a fresh process."""
    command = [sys.executable, __file__, "--threads", str(threads), *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def first_answer(path: Path, query: str) -> float:
    """Seconds to open the warehouse and fetch the answer."""
    start = time.perf_counter()
    with warehouse.open(path) as opened:
        opened.sql(query)
    return round(time.perf_counter() - start, 3)


def analyse(path: Path, run: str, name: str) -> dict[str, float]:
    """Seconds and memory of one analysis as `analyze` computes it, including reading."""

    @cache
    def ask(source: Source) -> Any:
        chosen = {"preset": source.preset, "token_group": source.token_group}
        return warehouse.read(path, run, source.relation, columns=source.columns, **chosen)  # type: ignore[arg-type]

    (analysis,) = (one for one in registry.REGISTRY if one.name == name)
    start = time.perf_counter()
    rows = sum(len(frame) for frame in analysis.compute(partial(ask), analysis.parameters, None).values())
    seconds = round(time.perf_counter() - start, 2)
    return {
        "seconds": seconds,
        "rows": rows,
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


if __name__ == "__main__":
    main()
