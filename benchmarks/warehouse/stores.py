"""What a pair costs, and how long reading one of several runs takes, in the native store and in Parquet.

    python -m benchmarks.warehouse.stores [--positions 25088] [--neurons 512] [--runs 5] [--threads 2] [--folder DIR]

Synthetic runs of one layer's shape, published into a native warehouse and from it into a Parquet-backed one through
`export` and `attach`. Bytes per pair are the facts' own: for the native file, how much larger it is than the
other. Queries are about one run and timed the third time, with files in the system's cache. Results go to
benchmarks/results/stores.json.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks import result
from benchmarks.warehouse.synthetic_runs import machine, make_run, seconds, use_threads
from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.warehouse.store import parquet_facts

RESULTS = result("stores")
RUN = "run-2"
QUERIES = {
    "influence of the run (stored)": f"from neuron_influence where run_id = '{RUN}'",
    "influence_at(run, 17), from the facts": f"from influence_at('{RUN}', 17)",
    "mean |delta| of every neuron": (
        f"select neuron, avg(abs(delta_loss)) from fct_effect where run_id = '{RUN}' group by 1"
    ),
    "one neuron back": f"from fct_effect where run_id = '{RUN}' and neuron = 300",
    "50 neurons back": f"from fct_effect where run_id = '{RUN}' and neuron between 100 and 149",
    "count(*) of all runs": "select count(*) from fct_effect",
}


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=25_088)
    parser.add_argument("--neurons", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--folder", type=Path, help="where to work [default: the system's temporary folder]")
    given = parser.parse_args()
    use_threads(given.threads)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = measure(Path(folder), given.positions, given.neurons, given.runs, given.threads)
    print(json.dumps(found, indent=2, ensure_ascii=False))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def measure(folder: Path, positions: int, neurons: int, runs: int, threads: int) -> dict[str, Any]:
    """Publish, attach, weigh and query."""
    native, parquet = folder / "native.duckdb", folder / "parquet.duckdb"
    pairs = positions * neurons
    found: dict[str, Any] = machine(threads) | {"runs": runs, "pairs of a run": pairs}
    for number in range(1, runs + 1):
        parts = folder / "native.duckdb.parts" / "run"
        make_run(parts, positions, neurons, f"run-{number}", seed=number)
        found["publish, seconds"] = {
            "native": seconds(lambda: warehouse.publish(native, parts, line=power_law_line, quiet=True))  # noqa: B023
        }
    found["export, seconds"] = seconds(lambda: warehouse.export(native, folder / "out"))
    found["attach to Parquet, seconds"] = seconds(
        lambda: warehouse.attach(parquet, folder / "out", line=power_law_line, store=parquet_facts.PARQUET, quiet=True)
    )
    warehouse.delete(parquet, RUN)
    make_run(folder / "parquet.duckdb.parts" / "run", positions, neurons, RUN, seed=2)
    found["publish, seconds"]["parquet"] = seconds(
        lambda: warehouse.publish(
            parquet,
            folder / "parquet.duckdb.parts" / "run",
            line=power_law_line,
            store=parquet_facts.PARQUET,
            quiet=True,
        )
    )
    for path in (native, parquet):
        warehouse.vacuum(path)
    with warehouse.open(parquet) as backed, warehouse.open(native) as opened:
        size = backed.fact_file()["bytes"].sum()
        in_native = (native.stat().st_size - parquet.stat().st_size) / pairs / runs
        found["facts, bytes a pair"] = {"native": round(in_native, 2), "parquet": round(size / pairs / runs, 2)}
        found["files of a run"] = backed.fact_file(run_id=RUN).height
        found["queries, seconds"] = {
            name: {
                "native": _third(lambda: opened.sql(query)),  # noqa: B023
                "parquet": _third(lambda: backed.sql(query)),  # noqa: B023
            }
            for name, query in QUERIES.items()
        }
        for query in QUERIES.values():
            same = [one.sql(query).sort(pl.all()) for one in (opened, backed)]
            assert same[0].equals(same[1]) or "avg" in query, query  # an average may sum in another order
    found["open, seconds"] = {path.stem: _third(lambda: warehouse.open(path).close()) for path in (native, parquet)}  # noqa: B023
    return found


def _third(call: Callable[[], object]) -> float:
    return [seconds(call) for _ in range(3)][2]


if __name__ == "__main__":
    main()
