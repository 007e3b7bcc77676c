"""How the cost of the ablation, of publishing and of queries grows: with positions, neurons, vocabulary and runs.

    python -m benchmarks.warehouse.growth [--only axes runs parquet ingest] [--runs 50] [--leave 10] [--threads 4]
        [--folder DIR]

`axes`: T from 1k to 100k, N from 512 to 14k, V from 8k to 256k, each with the others at their smallest; a random head
is ablated (`benchmarks.memory.head`), and synthetic facts of that shape are published. `runs`: 77 million pairs (25,088
× 3,072) are published again and again into one warehouse, until there are `--runs` or the disk has only `--leave` GB
left; on the way, and beyond a billion rows, every mart is queried for one run. `parquet`: the same with the facts in
Parquet files next to the warehouse. Only the numbers are synthetic: parts are written by the units' own writer, audited
and published like an ingest's. `ingest`: the share of an ingest of GPT-2 small's shape that is neither model nor
ablation. Every measurement is a process of its own; memory is its own pages, not those of files. Results go to
benchmarks/results/growth.json, and from there to docs/growth.md (`benchmarks.warehouse.growth_report`).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ROOT, result
from benchmarks.memory import peaks
from benchmarks.memory.head import TreeMemory
from benchmarks.warehouse import growth_report, marts
from benchmarks.warehouse.synthetic_runs import Stages, another, machine, make_run, seconds, use_threads
from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from rare_tokens.warehouse import connection
from rare_tokens.warehouse.store import parquet_facts

RESULTS = result("growth")
WIDTH, POSITIONS, NEURONS, VOCABULARY = 512, 4_096, 512, 8_192
AXES = {
    "neurons": (512, 1_024, 3_072, 7_168, 14_336),
    "vocabulary": (8_192, 32_768, 131_072, 262_144),
    "positions": (1_024, 4_096, 16_384, 100_352),
}
RUN = {"positions": 25_088, "neurons": 3_072}  # GPT-2 small's last layer at the papers' sample
LOOKS = (1, 4, 14, 50)  # runs in the warehouse when it is queried; 14 hold a billion pairs
EVERY_RUN = "every run's mean absolute delta"
QUERIES = {
    **{name: query.format(name=name, run="'run-001'") for name, query in marts.QUERIES.items()},
    "mean absolute delta of every neuron, from the facts": (
        "select neuron, avg(abs(delta_loss)) from fct_effect where run_id = 'run-001' group by neuron"
    ),
    EVERY_RUN: "select run_id, avg(abs(delta_loss)) from fct_effect group by run_id",
}
LIMIT = "1GB"  # memory limit for repeating the last of them: what it takes beyond that is the engine's cache


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = {"axes": axes, "runs": runs, "parquet": partial(runs, store=parquet_facts.PARQUET), "ingest": ingest}
    parser.add_argument("--only", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--leave", type=float, default=10.0, help="GB of the disk to leave free")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--folder", type=Path, help="where to work [default: the system's temporary folder]")
    parser.add_argument("--publish", nargs=2, metavar=("FILE", "PARTS"), help=argparse.SUPPRESS)
    parser.add_argument("--store", choices=parquet_facts.STORES, default=parquet_facts.NATIVE, help=argparse.SUPPRESS)
    parser.add_argument("--first", nargs=2, metavar=("FILE", "QUERY"), help=argparse.SUPPRESS)
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    given = parser.parse_args()
    use_threads(given.threads)
    if given.publish:
        print(json.dumps(published(*map(Path, given.publish), given.store)))
        return
    if given.first:
        print(json.dumps(first_answer(Path(given.first[0]), given.first[1], given.limit)))
        return
    for name in given.only:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            found = machine(given.threads) | {"rows": sections[name](Path(folder), given)}
        print(name, json.dumps(found, indent=1, ensure_ascii=False))
        there = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(there | {name: found}, indent=1, ensure_ascii=False) + "\n")
    growth_report.write(json.loads(RESULTS.read_text()))


def axes(folder: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Ablation and publishing along each axis, with the other two at their smallest."""
    found = []
    for axis, values in AXES.items():
        for value in values:
            shape = {"positions": POSITIONS, "neurons": NEURONS, "vocabulary": VOCABULARY} | {axis: value}
            row: dict[str, Any] = {"axis": axis} | shape
            options = [f"--{name}={size}" for name, size in shape.items()]
            out = folder / "ablation.json"
            ablated = _child(
                "benchmarks.memory.head", *options, f"--width={WIDTH}", f"--threads={given.threads}", f"--out={out}"
            )
            row |= {"ablation, s": ablated["seconds"], "ablation, GB": ablated["peak_above_start_gb"]}
            path = folder / f"{axis}-{value}.duckdb"
            parts = parts_root(path) / "run"
            make_run(parts, shape["positions"], shape["neurons"], "run", vocabulary=shape["vocabulary"])
            row |= _publish(path, parts, given.threads)
            row["bytes a pair"] = round(path.stat().st_size / shape["positions"] / shape["neurons"], 2)
            path.unlink()
            print(json.dumps(row), file=sys.stderr)
            found.append(row)
    return found


def runs(folder: Path, given: argparse.Namespace, store: str = parquet_facts.NATIVE) -> list[dict[str, Any]]:
    """Publish one run after the other into one warehouse; a row each, with the answers where it was queried."""
    path, source = folder / "runs.duckdb", folder / "source"
    make_run(source, **RUN, run_id="source")
    found: list[dict[str, Any]] = []
    for number in range(1, given.runs + 1):
        parts = parts_root(path) / "run"
        another(parts, source, f"run-{number:03d}")
        row: dict[str, Any] = {"runs": number} | _publish(path, parts, given.threads, store)
        files = [path, *parquet_facts.folder(path).rglob("*.parquet")]
        size = sum(file.stat().st_size for file in files)
        row["file, GB"] = round(size / 1e9, 3)
        is_last = number == given.runs or shutil.disk_usage(folder).free - size / number < given.leave * 1e9
        if number in LOOKS or is_last:
            row["answers"] = {name: _ask(path, query, given.threads) for name, query in QUERIES.items()}
            row["answers"][f"{EVERY_RUN}, limited to {LIMIT}"] = _ask(path, QUERIES[EVERY_RUN], given.threads, LIMIT)
        print(json.dumps(row), file=sys.stderr)
        found.append(row)
        if is_last:
            break
    return found


def ingest(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """The stages of an ingest of random weights in GPT-2 small's shape, over the text that comes with Python."""
    shape = peaks.Shape(RUN["positions"], RUN["neurons"], 768, 50_257, layers=12, gated=False)
    peaks.make_model(folder / "model", shape)
    path = folder / "w.duckdb"
    command = [*peaks.COMMAND, "--model", str(folder / "model"), "--warehouse", str(path), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    wall = seconds(lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL))
    with warehouse.open(path) as opened:
        run = opened.dim_run().row(0, named=True)
    stages = run["stage_seconds"]
    stages = json.loads(stages) if isinstance(stages, str) else dict(stages)
    beside = wall - stages["forward"] - stages["effects"]
    return {
        "seconds": wall,
        "stages": stages,
        "neither model nor ablation, s": round(beside, 1),
        "its share": round(beside / wall, 3),
        "exact pairs, share": round(run["exact_pairs"] / RUN["positions"] / RUN["neurons"], 4),
    }


def published(path: Path, parts: Path, store: str) -> dict[str, Any]:
    """Publish a run and watch the memory."""
    stages = Stages()
    with TreeMemory(mapped_files=False) as memory:
        wall = seconds(lambda: warehouse.publish(path, parts, line=power_law_line, store=store, quiet=True))
    return {
        "publish, s": wall,
        "publish, GB": round(memory.peak_gb, 3),
        "stages": {name: took for name, (took, _) in stages.seconds.items()},
    }


def first_answer(path: Path, query: str, limit: str | None = None) -> dict[str, Any]:
    """Seconds to open the warehouse and fetch an answer, the memory this takes, and the row groups of facts it reads.

    With a `limit`, the engine is given no more memory than that.
    """
    with TreeMemory(mapped_files=False) as memory:
        start = time.perf_counter()
        if limit is None:
            with warehouse.open(path) as opened:
                opened.sql(query)
        else:
            with connection.open_read_only(path, limits={"memory_limit": limit}) as con:
                con.execute(query).fetchall()
        took = round(time.perf_counter() - start, 3)
    with connection.reading(path) as con:
        ((_, plan),) = con.execute(f"explain (analyze, format json) {query}").fetchall()
    return {"s": took, "GB": round(memory.peak_gb, 2), "row groups read": list(scans(json.loads(plan)))}


def scans(plan: Any) -> Iterator[tuple[int, int]]:
    """Row groups of facts that a plan read, and their total, for each scan."""
    if isinstance(plan, dict):
        if str(plan.get("extra_info", {}).get("Table", "")).endswith("store.fct_effect"):
            yield plan["row_groups_scanned"], plan["total_row_groups_to_scan"]
        plan = list(plan.values())
    if isinstance(plan, list):
        for part in plan:
            yield from scans(part)


def _publish(path: Path, parts: Path, threads: int, store: str = parquet_facts.NATIVE) -> dict[str, Any]:
    return dict(_child("benchmarks.warehouse.growth", "--publish", path, parts, "--threads", threads, "--store", store))


def _ask(path: Path, query: str, threads: int, limit: str | None = None) -> dict[str, Any]:
    limited = () if limit is None else ("--limit", limit)
    return dict(_child("benchmarks.warehouse.growth", "--first", path, query, "--threads", threads, *limited))


def _child(module: str, *arguments: object) -> Any:
    """What a module prints last, in a fresh process."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return json.loads(ended.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
