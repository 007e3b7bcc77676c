"""The README's table of the ablation's cost, made from `results/ablation.json`.

python -m benchmarks.speed.table    writes it between its two marks; `ablation` does so at its end
"""

import json
from typing import Any

from benchmarks import ROOT, result

RESULT = result("ablation")
README = ROOT / "README.md"
BEGIN, END = "<!-- made by benchmarks/speed/table.py from benchmarks/results/ablation.json -->", "<!-- end -->"
COLUMNS = (
    "shape",
    "T × N",
    "seconds",
    "times `published`",
    "times `hooked`",
    "÷ forward pass",
    "floor, s",
    "share of it",
    "exact pairs",
    "worst error ÷ tolerance",
)


def table(result: dict[str, Any]) -> str:
    """Markdown for a benchmark's result: a row per shape, ratios by wall clock, the machine named below."""
    methods: dict[str, dict[str, dict[str, Any]]] = {}
    for row in result["rows"]:
        methods.setdefault(row["shape"], {})[row["method"]] = row
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for shape, by_method in methods.items():
        ours = by_method["ours"]
        seconds = ours["seconds"]
        slower = [
            f"{by_method[name]['seconds'] / seconds:,.0f}" if name in by_method else "–"
            for name in ("published", "hooked")
        ]
        cells = (
            shape,
            f"{ours['positions']:,} × {ours['neurons']:,}",
            f"{seconds:.3g}",
            *slower,
            f"{seconds / by_method['forward']['seconds']:.2g}",
            f"{ours['floor_seconds']:.3g}",
            f"{ours['share_of_floor']:.0%}",
            f"{ours['exact_share']:.2%}",
            f"{ours['worst_over_tolerance']:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    machine = result["machine"]
    threads, device = (result["rows"][0][name] for name in ("threads", "device"))
    lines += [
        "",
        f"{machine.get('gpu', machine['cpu'])}, {threads} of {machine['cores']} cores ({device}), float32 products at "
        f"{machine['float32_gflops']} GFLOP/s, bfloat16 {machine['bf16_over_float32']} times as fast, load "
        f"{machine['load']:.1f} at the start.",
    ]
    return "\n".join(lines)


def replaced(text: str, made: str) -> str:
    """The README's text with `made` between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def write() -> None:
    """Put the table of the committed result into the README."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    README.write_text(replaced(README.read_text(encoding="utf-8"), table(result)), encoding="utf-8")


if __name__ == "__main__":
    write()
