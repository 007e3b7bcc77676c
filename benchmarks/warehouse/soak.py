"""Whether a warehouse grows over time: hundreds of small runs published, all but the last few deleted again.

    python -m benchmarks.warehouse.soak [--runs 200] [--kept 5] [--positions 512] [--neurons 128] [--folder DIR]

After each publication the oldest run is deleted, so that `--kept` runs stay. Seconds to publish and to delete, and the
file's bytes, are compared between the first and the last quarter: their medians should be alike. Results go to
benchmarks/results/soak.json; exit 1 if the file or the times grew by more than half.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import result
from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from studies.synthetic.runs import make_parts

RESULTS = result("soak")
MOST_GROWTH = 1.5


def main() -> int:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--kept", type=int, default=5)
    parser.add_argument("--positions", type=int, default=512)
    parser.add_argument("--neurons", type=int, default=128)
    parser.add_argument("--folder", type=Path, help="where to work [default: the system's temporary folder]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = soak(Path(folder) / "soak.duckdb", given.runs, given.kept, given.positions, given.neurons)
    print(json.dumps(found, indent=2))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    return int(any(growth > MOST_GROWTH for growth in found["growth, last quarter over first"].values()))


def soak(path: Path, runs: int, kept: int, positions: int, neurons: int) -> dict[str, Any]:
    """Publish and delete in turn; return medians of the first and the last quarter, and their ratios."""
    measured: dict[str, list[float]] = {"publish, seconds": [], "delete, seconds": [], "file, MB": []}
    for number in range(runs):
        folder = parts_root(path) / f"run-{number}"
        make_parts(folder, positions=positions, neurons=neurons, seed=number % 7, run_id=f"run-{number}")
        measured["publish, seconds"].append(
            _seconds(lambda: warehouse.publish(path, folder, line=power_law_line, quiet=True))  # noqa: B023
        )
        if number >= kept:
            gone = f"run-{number - kept}"
            measured["delete, seconds"].append(_seconds(lambda: warehouse.delete(path, gone)))  # noqa: B023
            measured["file, MB"].append(path.stat().st_size / 1e6)
    with warehouse.open(path) as opened:
        assert len(opened.dim_run()) == kept
        assert opened.sql("select count(*) as n from fct_effect")["n"].item() == kept * positions * neurons
    quarter = {name: len(values) // 4 for name, values in measured.items()}
    first = {name: statistics.median(values[: quarter[name]]) for name, values in measured.items()}
    last = {name: statistics.median(values[-quarter[name] :]) for name, values in measured.items()}
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "runs": runs,
        "kept": kept,
        "pairs of a run": positions * neurons,
        "first quarter, medians": {name: round(value, 3) for name, value in first.items()},
        "last quarter, medians": {name: round(value, 3) for name, value in last.items()},
        "growth, last quarter over first": {name: round(last[name] / first[name], 3) for name in measured},
        "largest file, MB": round(max(measured["file, MB"]), 3),
        "leftover parts": len(list(parts_root(path).iterdir())),
    }


def _seconds(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
