"""The tables of the ablation's cost and accuracy in README and docs, made from `results/ablation.json`.

python -m benchmarks.speed.table    writes them between their marks; `ablation` does so at its end
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import ROOT, result

RESULT = result("ablation")
README = ROOT / "README.md"
ACCURACY = ROOT / "docs" / "ablation" / "accuracy.md"
COST = ROOT / "docs" / "ablation" / "cost.md"
END = "<!-- end -->"
REAL = ("smollm2", "novella")
STAGES = ("folding", "moments", "series", "vocabulary", "float64", "other")
COLUMNS = (
    "shape",
    "T × N",
    "seconds",
    "times `published`",
    "times `hooked`",
    "÷ forward pass",
    "pairs over the vocabulary",
    "pairs in float64",
    "worst error ÷ tolerance",
    "peak memory, GB",
)
Result = dict[str, Any]


def begin(name: str) -> str:
    """The mark before the table of a name."""
    return f"<!-- made by benchmarks/speed/table.py from benchmarks/results/ablation.json: {name} -->"


def costs(result: Result) -> str:
    """A row per shape, real models first, ratios by wall clock; the machine below."""
    rows: list[tuple[str, ...]] = []
    for shape, by_method in _by_shape(result).items():
        ours = by_method["ours"]
        seconds = ours["seconds"]
        slower = [
            f"{by_method[name]['seconds'] / seconds:,.0f}" if name in by_method else "–"
            for name in ("published", "hooked")
        ]
        rows.append(
            (
                f"**{shape}**" if shape in REAL else shape,
                f"{ours['positions']:,} × {ours['neurons']:,}",
                f"{seconds:.3g}",
                *slower,
                f"{seconds / by_method['forward']['seconds']:.2g}",
                _share(ours.get("vocabulary_share")),
                _share(ours.get("float64_share")),
                f"{ours['worst_over_tolerance']:.2f}",
                f"{ours['peak_bytes'] / 1e9:.2g}",
            )
        )
    return f"{_table(COLUMNS, rows)}\n\n{_machine(result)}"


def stages(result: Result) -> str:
    """Where the time of each shape goes, as shares of the seconds of `costs`."""
    rows: list[tuple[str, ...]] = []
    for shape, by_method in _by_shape(result).items():
        spent = by_method["ours"].get("stage_seconds")
        shares = ["–"] * len(STAGES) if spent is None else [f"{spent[s] / sum(spent.values()):.0%}" for s in STAGES]
        rows.append((shape, *shares))
    return _table(("shape", *STAGES), rows)


def errors(result: Result) -> str:
    """Error over tolerance, by shape."""
    rows: list[tuple[str, ...]] = []
    for shape, by_method in _by_shape(result).items():
        ours, published = by_method["ours"], by_method["published"]
        levels = [f"{value:.2g}" for value in ours["error_quantiles"]]
        worst = f"{ours['worst_over_tolerance']:.2f}"
        rows.append((shape, f"{ours['checked_pairs']:,}", *levels, worst, f"{published['worst_over_tolerance']:.1f}"))
    names = ("", "pairs", "median", "90 %", "99 %", "99.9 %", "worst", "published code's worst")
    return _table(names, rows)


def hostile(result: Result) -> str:
    """The hostile heads, each beside the ordinary layer of its size."""
    rows: list[tuple[str, ...]] = [
        (
            row["head"],
            " × ".join(f"{row[name]:,}" for name in ("vocabulary", "width", "neurons", "positions")),
            f"{row['seconds']:.3g}",
            f"{row['seconds'] / row['ordinary_seconds']:.2g}",
            _share(row["vocabulary_share"]),
            _share(row["float64_share"]),
            f"{row['checked_pairs']:,}",
            f"{row['worst_over_tolerance']:.2f}",
        )
        for row in result.get("hostile", [])
    ]
    if not rows:
        return "Not measured yet: `python -m benchmarks.speed.ablation`."
    names = ("head", "V × d × N × T", "seconds", "times the ordinary layer's", "pairs over the vocabulary")
    return _table((*names, "pairs in float64", "checked pairs", "worst error ÷ tolerance"), rows)


def match(result: Result) -> str:
    """Which quantiles of a synthetic layer are further from the real one's than the factor allows."""
    if "pattern" not in result:
        return "Not measured yet: `python -m benchmarks.speed.ablation`."
    rows: list[tuple[str, ...]] = [
        (name, "<br>".join(one["apart"]) or "none")
        for name, one in result["match"].items()
        if name != result["pattern"]
    ]
    return _table(("shape", f"quantiles apart from {result['pattern']}'s by more than 1.5 times"), rows)


TABLES: dict[str, tuple[Path, Callable[[Result], str]]] = {
    "costs": (README, costs),
    "stages": (COST, stages),
    "match": (COST, match),
    "errors": (ACCURACY, errors),
    "hostile": (ACCURACY, hostile),
}


def replaced(text: str, name: str, made: str) -> str:
    """A page's text with `made` between the marks of a table."""
    before, _, rest = text.partition(begin(name))
    _, _, after = rest.partition(END)
    return f"{before}{begin(name)}\n\n{made}\n\n{END}{after}"


def write() -> None:
    """Put the tables of the committed result into the pages."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    for name, (page, make) in TABLES.items():
        text = page.read_text(encoding="utf-8")
        page.write_text(replaced(text, name, make(result)), encoding="utf-8")


def _by_shape(result: Result) -> dict[str, dict[str, Result]]:
    """Rows by shape and method, the real models' shapes first."""
    methods: dict[str, dict[str, Result]] = {name: {} for name in REAL}
    for row in result["rows"]:
        methods.setdefault(row["shape"], {})[row["method"]] = row
    return {shape: rows for shape, rows in methods.items() if rows}


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head, *body = ("| " + " | ".join(line) + " |" for line in (columns, *rows))
    return "\n".join([head, "|" + "---|" * len(columns), *body])


def _share(value: float | None) -> str:
    return "–" if value is None else f"{float(f'{100 * value:.2g}'):g}%"


def _machine(result: Result) -> str:
    machine = result["machine"]
    threads, device = (result["rows"][0][name] for name in ("threads", "device"))
    return (
        f"{machine.get('gpu', machine['cpu'])}, {threads} of {machine['cores']} cores ({device}), float32 products at "
        f"{machine['float32_gflops']} GFLOP/s, bfloat16 {machine['bf16_over_float32']} times as fast, load "
        f"{machine['load']:.1f} at the start."
    )


if __name__ == "__main__":
    write()
