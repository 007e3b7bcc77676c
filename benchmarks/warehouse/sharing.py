"""How large the export of one run is beside its facts, how long it takes, and how much memory.

    python -m benchmarks.warehouse.sharing WAREHOUSE [WAREHOUSE …] [--threads 2] [--folder DIR]

Every published run is exported alone. Its facts are what was measured at positions: the files of `fct_effect`,
`fct_group_effect`, `fct_attention_effect` and, for attention, `agg_attention_*` in that export. What it would take with
`agg_effect`, which exports leave out, is beside it.
Peak memory is the process's until then. Results go to benchmarks/results/sharing.json.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import result
from benchmarks.warehouse.synthetic_runs import machine, seconds, use_threads
from rare_tokens import warehouse
from rare_tokens.warehouse.connection import reading
from rare_tokens.warehouse.share import columns

RESULTS = result("sharing")
FACTS = ("fct_", "agg_attention_")  # how the names of their relations begin


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warehouses", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--folder", type=Path, help="where to work [default: the system's temporary folder]")
    given = parser.parse_args()
    use_threads(given.threads)
    found = machine(given.threads) | {"runs": []}
    for path in given.warehouses:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            for run_id in warehouse.runs(path).filter(pl.col("status") == "published")["run_id"]:
                found["runs"].append(measure(path, run_id, Path(folder)))
                print(json.dumps(found["runs"][-1], indent=2))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def measure(path: Path, run_id: str, folder: Path) -> dict[str, Any]:
    """Export one run and weigh what was written."""
    out = folder / "out"
    took = seconds(lambda: warehouse.export(path, out, [run_id]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    with warehouse.open(path) as opened:
        (run,) = opened.dim_run(run_id=run_id).to_dicts()
    with reading(path) as con:
        columns.write(con, ["from agg_effect where run_id = $run"], {"run": run_id}, folder / "sums.parquet")
    by_relation = {one.name: _bytes(one) for one in out.iterdir()}
    whole, facts = sum(by_relation.values()), sum(size for name, size in by_relation.items() if name.startswith(FACTS))
    sums = (folder / "sums.parquet").stat().st_size
    shutil.rmtree(out)
    pairs = run["positions"] * run["neurons"]
    rest = sorted((name for name in by_relation if not name.startswith(FACTS)), key=lambda name: -by_relation[name])
    return {
        "run": run_id,
        "positions × neurons": f"{run['positions']:,} × {run['neurons']:,}",
        "effects": run["effects"],
        "export, bytes": whole,
        "facts, bytes": facts,
        "export ÷ facts": round(whole / facts, 3),
        "with agg_effect": round((whole + sums) / facts, 3),
        "bytes a pair": round(facts / pairs, 2),
        "largest besides": {name: by_relation[name] for name in rest[:5]},
        "seconds": took,
        "peak memory, GB": round(peak, 2),
    }


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*.parquet"))


if __name__ == "__main__":
    main()
