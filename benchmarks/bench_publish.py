"""What publishing costs at the size of a paper's run, and what a query of the published run costs.

    python benchmarks/bench_publish.py [--positions 25088] [--neurons 3072] [--threads 4]

Synthetic facts, targets drawn by Zipf's law as in a text. Prints the time of each stage, rows a second, bytes a pair,
rows of agg_effect, and query times (the second of two). The baseline beside the load is the engine's own fastest
insert of as many unsorted rows from Parquet.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import warehouse
from tests.synthetic import make_parts
from warehouse import connection

QUERIES = {
    "influence of a run": "from neuron_influence where run_id = '{run}'",
    "influence_at 15 (from the facts)": "from influence_at('{run}', 15)",
    "mean |delta| of every neuron": "select neuron, avg(abs(delta_loss)) from fct_effect where run_id = '{run}' group by 1",
    "the same, run_id = (select …)": (
        "select neuron, avg(abs(delta_loss)) from fct_effect"
        " where run_id = (select max(run_id) from dim_run) group by 1"
    ),
    "rare and common from agg_effect": (
        "select neuron, percentile_bucket < 50, sum(abs_delta_sum), sum(positions)"
        " from agg_effect where run_id = '{run}' group by 1, 2"
    ),
    "50 neurons back": "from fct_effect where run_id = '{run}' and neuron < 50",
    "count(*)": "select count(*) from fct_effect",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=25_088)
    parser.add_argument("--neurons", type=int, default=3_072)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help="where to work [default: a temporary folder]")
    given = parser.parse_args()
    for config in (connection.READ_CONFIG, connection.WRITE_CONFIG):
        config["threads"] = given.threads
    log = logging.getLogger("rare_tokens")
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.StreamHandler(sys.stdout))
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        run(Path(folder), given.positions, given.neurons, given.threads)


def run(folder: Path, positions: int, neurons: int, threads: int) -> None:
    """Make the parts, publish them twice, query."""
    pairs = positions * neurons
    print(f"{positions:,} positions × {neurons:,} neurons = {pairs / 1e6:.1f} M pairs, {threads} threads")
    path = folder / "bench.duckdb"
    for again in (False, True):
        parts = folder / "bench.duckdb.parts" / "run"
        manifest = make_parts(
            parts,
            positions=positions,
            neurons=neurons,
            vocabulary=50_257,
            window=256,
            position_block=1024,
            zipf_share=1.0,
            code_version=f"again={again}",
        )
        if not again:
            print(f"baseline: unsorted insert {_seconds(lambda: _baseline(folder, parts, threads)):.2f} s")  # noqa: B023
        name = "publish again" if again else "publish"
        seconds = _seconds(lambda: warehouse.publish(path, parts, quiet=True))  # noqa: B023
        print(
            f"{name}: {seconds:.2f} s, {pairs / seconds / 1e6:.1f} M pairs/s; file {path.stat().st_size / 1e6:.0f} MB"
        )
        print(f"{path.stat().st_size / pairs:.2f} bytes a pair")
    with warehouse.open(path) as opened:
        (cells,) = opened.sql("select count(*) as n from store.agg_effect")["n"]
        print(f"agg_effect: {cells:,} rows, {cells / pairs:.1%} of the pairs")
        for name, query in QUERIES.items():
            text = query.format(run=manifest.run_id)
            opened.sql(text)
            print(f"{name}: {_seconds(lambda: opened.sql(text)):.3f} s")  # noqa: B023


def _baseline(folder: Path, parts: Path, threads: int) -> None:
    path = folder / "baseline.duckdb"
    with duckdb.connect(path, config={"threads": threads}) as con:
        con.execute(f"create table fact as from read_parquet('{parts}/fct_effect/*.parquet')")
    path.unlink()


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
