"""What one run gains from more Ray workers of one thread each, on one machine.

    python -m benchmarks.speed.workers --model FOLDER [--revision R] --corpus FILE [--tokens 25088] [--workers 1,2,4]

An ordinary `ingest` in a process of its own, first without workers and then with each number of them; parts go to a
folder. The seconds of its stages are those that the run itself stores; `units` are its forward pass and its ablation,
which workers share, including sending and fetching parts. Joining Ray, loading the model and publishing are not shared
and are given separately. Target: 2 workers at least 1.7 times as fast as one. The largest difference between an effect
and the one computed without workers is included. Results go to benchmarks/results/workers.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.warehouse.synthetic_runs import machine
from rare_tokens import warehouse

RESULTS = ROOT / "benchmarks" / "results" / "workers.json"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def ingest(asked: list[str], path: Path, workers: int) -> dict[str, Any]:
    """Run an ingest (0 workers: without Ray) and read the seconds of its stages."""
    by = ["--executor", "ray", "--ray-address", "local", "--workers", str(workers)] if workers else []
    command = [sys.executable, str(ROOT / "cli.py"), "ingest", *asked, *by, "--warehouse", str(path), "--quiet"]
    start = time.perf_counter()
    subprocess.run(command, check=True, env=os.environ | ONE_THREAD, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    with warehouse.open(path) as opened:
        stages = json.loads(opened.sql("select stage_seconds from dim_run").item())
        pairs = opened.sql("select count(*) from fct_effect").item()
    units = stages["forward"] + stages["effects"]
    return {
        "workers": workers,
        "units": round(units, 2),
        "pairs per second": round(pairs / units),
        "stages": stages,
        "command": round(seconds, 1),
    }


def largest_difference(one: Path, other: Path) -> float:
    """Largest difference between an effect in two warehouses with one run each, nats."""
    with warehouse.open(one) as first, warehouse.open(other) as second:
        query = "select delta_loss from fct_effect order by neuron, position_id"
        return float((first.sql(query)["delta_loss"] - second.sql(query)["delta_loss"]).abs().max())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--revision")
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--tokens", default=25_088, type=int)
    parser.add_argument("--workers", default="1,2,4")
    given = parser.parse_args()
    asked = ["--model", given.model, "--corpus", given.corpus, "--tokens", str(given.tokens), "--device", "cpu"]
    asked += ["--revision", given.revision] if given.revision else []
    result: dict[str, Any] = machine(threads=1)
    result |= {"model": Path(given.model).name, "revision": given.revision, "positions": given.tokens, "runs": []}
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "0.duckdb"
        for workers in [0, *(int(number) for number in given.workers.split(","))]:
            path = Path(folder) / f"{workers}.duckdb"
            row = ingest(asked, path, workers)
            row["largest difference"] = largest_difference(alone, path)
            result["runs"].append(row)
            print(json.dumps(row), flush=True)
    of = {row["workers"]: row["units"] for row in result["runs"]}
    result["times one worker"] = {str(number): round(of[1] / of[number], 2) for number in of if number and 1 in of}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["times one worker"]))


if __name__ == "__main__":
    main()
