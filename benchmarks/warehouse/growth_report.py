"""docs/growth.md's tables and plot, made from `results/growth.json`.

python -m benchmarks.warehouse.growth_report        writes them; `benchmarks.warehouse.growth` does so at its end
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import ROOT, result

RESULT = result("growth")
ABLATION, PUBLISHING, WORKERS = (result(name) for name in ("ablation", "publishing", "workers"))
PAGE = ROOT / "docs" / "growth.md"
PLOT = PAGE.with_suffix(".svg")
MADE, END = "<!-- made by benchmarks/warehouse/growth_report.py: {} -->", "<!-- end -->"
QUANTITIES = ("ablation, s", "publish, s", "ablation, GB", "publish, GB")
SYMBOLS = {"positions": "T", "neurons": "N", "vocabulary": "V"}
RUNS = {"runs in one warehouse": "runs", "runs, facts in Parquet": "parquet"}  # and the key of their rows
WORKER = "Ray workers"
EVERY_RUN = "every run"  # begins a question about all of them
# Biderman et al. (2023), table 1: width, MLP neurons, rows of the unembedding, parameters in millions
PYTHIA = {
    "70M": (512, 2_048, 50_304, 70), "160M": (768, 3_072, 50_304, 162), "410M": (1_024, 4_096, 50_304, 405),
    "1B": (2_048, 8_192, 50_304, 1_012), "1.4B": (2_048, 8_192, 50_304, 1_415),
    "2.8B": (2_560, 10_240, 50_304, 2_775), "6.9B": (4_096, 16_384, 50_432, 6_857),
    "12B": (5_120, 20_480, 50_688, 11_846),
}  # fmt: skip
CHECKPOINTS, POSITIONS = 154, 25_088
GPU_RATE = 25e12  # operations per second: an assumption, for one H100 without TF32


def write(result: dict[str, Any]) -> None:
    """Write every block of the page that has results, and the plot."""
    PAGE.write_text(page(result), encoding="utf-8")
    if {"axes", "runs", "parquet"} <= result.keys():
        plot(result)


def page(result: dict[str, Any]) -> str:
    """The page with the blocks that have results."""
    blocks = {}
    if "axes" in result:
        blocks["axes"] = [*_axes(result["axes"]["rows"]), "", _machine(result["axes"])]
    if {"axes", "runs", "parquet"} <= result.keys():
        blocks["exponents"] = _exponents(result)
    for name in RUNS.values():
        if name in result:
            blocks[name] = [*_runs(result[name]["rows"]), "", _machine(result[name])]
            blocks[f"{name} answers"] = _answers(result[name]["rows"])
    blocks["workers"] = _workers(json.loads(WORKERS.read_text()))
    if "ingest" in result:
        blocks["ingest"] = [*_ingest(result["ingest"]["rows"]), "", _machine(result["ingest"])]
    if "runs" in result:
        blocks["pythia"] = _pythia(result)
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in blocks.items():
        text = between(text, MADE.format(name), lines)
    return text


def between(text: str, begin: str, lines: list[str]) -> str:
    """The text with these lines between a mark and the next `END`."""
    start = text.index(begin) + len(begin)
    return text[:start] + "\n\n" + "\n".join(lines) + "\n\n" + text[text.index(END, start) :]


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """Least-squares slope of ln y on ln x."""
    x, y = ([math.log(point[k]) for point in points] for k in (0, 1))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    total = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return total / sum((a - mean_x) ** 2 for a in x)


def points(result: dict[str, Any], axis: str, quantity: str) -> list[tuple[float, float]]:
    """(size, cost) along an axis; for runs, their number."""
    if axis in RUNS:
        rows, size = result[RUNS[axis]]["rows"], "runs"
    else:
        rows, size = [row for row in result["axes"]["rows"] if row["axis"] == axis], axis
    return [(row[size], row[quantity]) for row in rows if row.get(quantity)]


def _machine(found: dict[str, Any]) -> str:
    """The machine and its load while measuring."""
    text = f"{found['machine']}, {found['threads']} threads, load {found['load before']} at the start."
    return f"{text} {found['note']}" if "note" in found else text


def _axes(rows: list[dict[str, Any]]) -> list[str]:
    found = [
        [f"{row[name]:,}" for name in SYMBOLS]
        + [f"{row[name]:.2f}" for name in QUANTITIES]
        + [f"{row['bytes a pair']:.1f}"]
        for row in rows
    ]
    return table([*SYMBOLS.values(), *QUANTITIES, "file, bytes a pair"], found)


def _exponents(result: dict[str, Any]) -> list[str]:
    found = []
    for axis in (*SYMBOLS, *RUNS):
        for quantity in (*QUANTITIES, *(["file, GB"] if axis in RUNS else [])):
            along = points(result, axis, quantity)
            if len(along) > 2:
                first, last = along[0], along[-1]
                found.append(
                    [
                        SYMBOLS.get(axis, axis), quantity, f"{first[0]:,} to {last[0]:,}",
                        f"{first[1]:.2f} to {last[1]:.2f}", f"{exponent(along):.2f}",
                        f"{exponent(along[-2 - len(along) // 8:]):.2f}",
                    ]
                )  # fmt: skip
    head = ["grows with", "what", "from", "cost", "exponent", "of the last ones"]
    return [*table(head, found), "", f"![Seconds against size, logarithmic both ways]({PLOT.name})"]


def _runs(rows: list[dict[str, Any]]) -> list[str]:
    shown = [row for row in rows if "answers" in row]
    found = [
        [
            f"{row['runs']}", f"{row['runs'] * POSITIONS * 3072 / 1e9:.2f}", f"{row['file, GB']:.1f}",
            f"{row['publish, s']:.1f}", f"{row['stages']['facts']:.1f}", f"{row['publish, GB']:.2f}",
            f"{_largest(row, every_run=False):.2f}", f"{_largest(row, every_run=True):.2f}",
        ]
        for row in shown
    ]  # fmt: skip
    head = [
        "runs",
        "billion rows",
        "file, GB",
        "publishing, s",
        "of it facts, s",
        "publishing, GB",
        "largest answer about one run, GB",
        "about every run, GB",
    ]
    return table(head, found)


def _largest(row: dict[str, Any], *, every_run: bool) -> float:
    """Memory of the largest answer about one run, or about all of them."""
    return max(answer["GB"] for name, answer in row["answers"].items() if name.startswith(EVERY_RUN) == every_run)


def _answers(rows: list[dict[str, Any]]) -> list[str]:
    """Seconds of each answer, and the row groups of facts it read, if facts are in the native store."""
    shown = [row for row in rows if "answers" in row]
    billion = next((row for row in shown if row["runs"] * POSITIONS * 3072 > 1e9), shown[-1])
    kept = [shown[0], billion, *([shown[-1]] if shown[-1] is not billion else [])]
    scans = [scan for row in kept for answer in row["answers"].values() for scan in answer["row groups read"]]
    is_native = any(total for _, total in scans)
    found = []
    for name in shown[0]["answers"]:
        cells = [name]
        for row in kept:
            answer = row["answers"][name]
            read = ", ".join(f"{part:,} of {total:,}" for part, total in answer["row groups read"]) or "–"
            cells += [f"{answer['s']:.2f}", *([read] if is_native else [])]
        found.append(cells)
    head = ["answer"]
    for row in kept:
        head += [f"{row['runs']} run{'s' * (row['runs'] > 1)}, s", *(["row groups of facts read"] if is_native else [])]
    return table(head, found)


def _workers(found: dict[str, Any]) -> list[str]:
    """Ray workers of one thread each against one."""
    rows = [row for row in found["runs"] if row["workers"]]
    one = rows[0]["units"]
    cells = [
        [f"{row['workers']}", f"{row['units']:.1f}", f"{one / row['units']:.2f}",
         f"{one / row['units'] / row['workers']:.0%}", f"{row['pairs per second'] / 1e6:.2f}"]
        for row in rows
    ]  # fmt: skip
    head = ["workers", "forward pass and ablation, s", "times one", "efficiency", "M pairs/s"]
    return [*table(head, cells), "", _machine(found)]


def _ingest(row: dict[str, Any]) -> list[str]:
    stages = row["stages"]
    rest = row["neither model nor ablation, s"] - sum(
        stages.get(name, 0) for name in ("tokens", "neurons", "self-check")
    )
    found = [
        ["forward pass (model)", stages["forward"]],
        ["ablation, its parts written", stages["effects"]],
        *([name, stages[name]] for name in ("tokens", "neurons", "self-check") if name in stages),
        ["start, loading, sampling, audit, publishing and marts", rest],
        ["all", row["seconds"]],
    ]
    return table(["stage", "s", "share"], [[name, f"{s:.1f}", f"{s / row['seconds']:.1%}"] for name, s in found])


def _pythia(result: dict[str, Any]) -> list[str]:
    """Each model's series on paper: operations counted, bytes and rates as measured."""
    last = result["runs"]["rows"][-1]
    a_pair = last["file, GB"] * 1e9 / last["runs"] / POSITIONS / 3_072
    quiet = json.loads(PUBLISHING.read_text())
    facts = quiet["pairs of a run"] / quiet["publish, seconds"]
    rows = json.loads(ABLATION.read_text())["rows"]
    (ours,) = (row for row in rows if (row["shape"], row["method"]) == ("gpt2-small", "ours"))
    rate = operations(768, 3_072, 50_257) * ours["positions"] / POSITIONS / ours["seconds"]
    found, total, cores = [], [0.0] * 6, ours["threads"]
    for name, (d, N, V, millions) in PYTHIA.items():
        pairs = float(POSITIONS * N * CHECKPOINTS)
        forward = 2e6 * millions * POSITIONS * CHECKPOINTS
        work = operations(d, N, V) * CHECKPOINTS + forward
        row = [pairs / 1e9, work / rate / 3600, work / GPU_RATE / 3600, pairs / facts / 3600, pairs * a_pair / 1e12,
               2e6 * millions * CHECKPOINTS / 1e12]  # fmt: skip
        total = [a + b for a, b in zip(total, row, strict=True)]
        found.append([name, *(f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in row)])
    found.append(["all", *(f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in total)])
    head = ["Pythia", "billion pairs", f"hours on {cores} cores", "GPU hours (assumed)", "publishing, hours",
            "warehouse, TB", "checkpoints, TB"]  # fmt: skip
    return [
        *table(head, found),
        "",
        f"Rates: ablation {rate / 1e9:,.0f} GFLOP/s on {cores} quiet cores (`benchmarks/results/ablation.json`), "
        f"{GPU_RATE / 1e12:.0f} TFLOP/s assumed of a GPU, publishing {facts / 1e6:.1f} M pairs/s "
        f"(`publishing.json`), {a_pair:.1f} bytes a pair with all marts.",
    ]


def operations(d: int, N: int, V: int) -> float:
    """Operations of ablating N neurons at `POSITIONS` positions (docs/ablation/cost.md), no pair exactly.

    Three products with d and about two with N per position and token, and W Uᵀ once per block of positions.
    """
    blocks = -(-POSITIONS // 2048)
    return 2.0 * POSITIONS * V * (3.3 * d + 2 * N) + 2.0 * blocks * V * d * N


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def plot(result: dict[str, Any]) -> None:
    """Seconds against size, logarithmic both ways, one panel per axis."""
    import altair as alt
    import polars as pl

    rows = [
        {"axis": SYMBOLS.get(axis, axis), "size": size, "seconds": cost, "what": quantity.removesuffix(", s")}
        for axis in (*SYMBOLS, *RUNS)
        for quantity in ("ablation, s", "publish, s")
        for size, cost in points(result, axis, quantity)
    ]
    rows += [
        {"axis": WORKER, "size": row["workers"], "seconds": row["units"], "what": "ablation"}
        for row in json.loads(WORKERS.read_text())["runs"]
        if row["workers"]
    ]
    scale = alt.Scale(type="log")
    drawn = (
        alt.Chart(pl.DataFrame(rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("size:Q", scale=scale, title=None, axis=alt.Axis(tickCount=4, format="~s")),
            y=alt.Y("seconds:Q", scale=scale, title="seconds", axis=alt.Axis(tickCount=4)),
            color=alt.Color("what:N", title=None, scale=alt.Scale(range=["#c2410c", "#0f766e"])),
        )
        .properties(width=150, height=150)
        .facet(column=alt.Column("axis:N", title=None, sort=[*SYMBOLS.values(), *RUNS, WORKER]))
        .resolve_scale(x="independent")
    )
    drawn.save(PLOT)


if __name__ == "__main__":
    write(json.loads(RESULT.read_text()))
