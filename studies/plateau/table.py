"""The results of `study` next to their targets, with misses marked.

    python -m studies.plateau.table

Targets: κ within 0.05 (the shelf: 0.08); p < 0.01 without a plateau in at most 1.5 % of curves at N = 1,536
and 2 % at 512, p < 0.05 in 1 to 7 %; power at N = 1,536; size, height and κ inside their intervals in 90 of 100.
"""

import json
from typing import Any

import numpy as np

from studies.plateau.study import RESULTS

Row = dict[str, Any]
POWER = {"50 raised by 0.7": 0.95, "50 raised by 0.3": 0.7, "shelf, cliff 43-57": 0.85}
KAPPA_AT_1536_ALONE = "shelf"
HELD = ("size", "step", "kappa", "head_slope")


def main() -> None:
    """Print the table."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for title, part, lines in (
        ("κ of the line: median where there is a power law", "laws", kappa_lines),
        ("No plateau: share of curves with p < 0.01 and p < 0.05", "smooth", smooth_lines),
        ("A plateau: decision and test", "plateaus", power_lines),
        ("A plateau: intervals that hold what more text would give", "plateaus", interval_lines),
        ("6,400 neurons on a power law", "large", large_lines),
    ):
        print(f"\n## {title}\n")
        print("\n".join(lines(results[part])) if part in results else "Not run yet.")


def mark(kept: bool) -> str:
    """Whether the target is met."""
    return "kept" if kept else "MISSED"


def kappa_lines(cells: dict[str, Row]) -> list[str]:
    """κ against the truth."""
    lines = ["| setting | true | κ | 5–95 % | no power law | all fits | asked |", "|---|---:|---:|---|---:|---:|---|"]
    for key, row in cells.items():
        shelf = KAPPA_AT_1536_ALONE in key
        within = 0.08 if shelf else 0.05
        asked = "–" if "low wide" in key or (shelf and "N 512" in key) else f"± {within} "
        if asked != "–":
            asked += mark(row["kappa"] is not None and abs(row["kappa"] - row["kappa_true"]) <= within + 1e-9)
        spread = "–" if row["kappa_5_95"] is None else "–".join(f"{value:.2f}" for value in row["kappa_5_95"])
        lines.append(
            f"| {key.replace(' | ', ', ')} | {row['kappa_true']} | {row['kappa']} | {spread} | "
            f"{100 * row['null_share']:.0f} % | {row['kappa_of_all_fits']} | {asked} |"
        )
    return lines


def smooth_lines(cells: dict[str, Row]) -> list[str]:
    """False plateaus, per setting and together."""
    lines = [
        "| setting | p < 0.01 | with 499 draws | p < 0.05 | asked: p < 0.01 | p < 0.05 in 1–7 % |",
        "|---|---:|---:|---:|---|---|",
    ]

    def line(name: str, row: Row, most: float) -> str:
        low, few, high = row["below_0_01"], row["few_draws_below_0_01"], row["below_0_05"]
        return (
            f"| {name} | {100 * low:.2f} % | {100 * few:.2f} % | {100 * high:.2f} % | ≤ {100 * most:g} % "
            f"{mark(low <= most)} | {mark(0.01 <= high <= 0.07)} |"
        )

    for key, row in cells.items():
        lines.append(line(key.replace(" | ", ", "), row, 0.015 if "1536" in key else 0.02))
    for n, most in (("N 1536", 0.015), ("N 512", 0.02)):
        for kind in ("fixed", "scattered", ""):
            chosen = [row for key, row in cells.items() if key.startswith(n) and key.endswith(kind)]
            together = {name: float(np.mean([row[name] for row in chosen])) for name in ("below_0_01", "below_0_05")}
            together["few_draws_below_0_01"] = float(np.mean([row["few_draws_below_0_01"] for row in chosen]))
            lines.append(line(f"**{n}, all {kind or 'together'}**", together, most))
    return lines


def power_lines(cells: dict[str, Row]) -> list[str]:
    """Verdicts and power."""
    lines = [
        "| setting | p < 0.01 | present | s ≥ 0.3 | b | s | κ | raised / shelf / steep | asked |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for key, row in cells.items():
        name = key.split(" | ")[1]
        asked = "–"
        if name in POWER and "1536" in key:
            asked = f"≥ {100 * POWER[name]:g} % {mark(row['below_0_01'] >= POWER[name])}"
            asked += f" (as present: {mark(row['present'] >= POWER[name])})"
        heads = " / ".join(f"{100 * row['heads'].get(head, 0):.0f}" for head in ("raised", "shelf", "steep"))
        lines.append(
            f"| {key.replace(' | ', ', ')} | {100 * row['below_0_01']:.1f} % | {100 * row['present']:.1f} % | "
            f"{100 * row['step_at_least_0_3']:.1f} % | {row['head_rank']:.0f} | {row['step']} | {row['kappa']} | "
            f"{heads} | {asked} |"
        )
    return lines


def interval_lines(cells: dict[str, Row]) -> list[str]:
    """Coverage."""
    lines = ["| setting | size b | height s | κ | head's slope | true size | width of κ |", "|---|" + "---:|" * 6]
    for key, row in cells.items():
        held = [row["held_of_those_given"][name] for name in HELD]
        shown = " | ".join(f"{100 * value:.0f} %{'' if value >= 0.9 else ' MISSED'}" for value in held)
        true = "–" if row["true_size_held"] is None else f"{100 * row['true_size_held']:.0f} %"
        lines.append(f"| {key.replace(' | ', ', ')} | {shown} | {true} | {row['width']['kappa']} |")
    return lines


def large_lines(cells: dict[str, Row]) -> list[str]:
    """Is a plateau called absent where there is none?"""
    lines = ["| setting | present | undecided | absent | power | κ |", "|---|---:|---:|---:|---:|---:|"]
    for key, row in cells.items():
        shares = " | ".join(f"{100 * row[verdict]:.0f} %" for verdict in ("present", "undecided", "absent"))
        lines.append(f"| {key.replace(' | ', ', ')} | {shares} | {row['power']} | {row['kappa']} |")
    return lines


if __name__ == "__main__":
    main()
