"""docs/controls.md's tables, made from `studies/results/controls.json`.

python -m studies.controls.page        writes them
"""

from typing import Any

from benchmarks.warehouse.growth_report import between, table
from studies.controls.study import PRESETS, RESULTS, stored

PAGE = RESULTS.parent.parent.parent / "docs" / "controls.md"
MADE = "<!-- made by studies/controls/page.py: {} -->"
Row = dict[str, Any]


def page(results: dict[str, Any]) -> str:
    """The page with its tables."""
    rows = results["curves"].values()
    blocks = {
        "steps": steps([row for row in rows if row["planted"]["size"]]),
        "texts": two_texts(results["texts"]["unedited"]),
        "smooth": smooth([row for row in rows if not row["planted"]["size"]]),
        "module": module(list(results.get("together", {}).values())),
        "untrained": no_training(list(results["untrained"].values())),
        "shuffled runs": shuffled_runs([row for row in results["shuffled"].values() if "seed" in row]),
        "shuffles": shuffles(results["shuffled"]["stored effects"]),
        "machine": [f"{results['machine']}."],
    }
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in blocks.items():
        text = between(text, MADE.format(name), lines)
    return text


def steps(rows: list[Row]) -> list[str]:
    """What was planted at the head, and what was found."""
    head = [
        "preset", "kind", "seed", "planted b, s, κ", "read on the text of planting", "moved", "decision", "p",
        "found b", "found s", "found κ", "head", "planted among first b",
    ]  # fmt: skip
    rows = sorted(rows, key=lambda row: (row["preset"] != "nc", row["kind"] != "fixed", -row["planted"]["step"]))
    return table(head, [_step(row) for row in rows])


def _step(row: Row) -> list[str]:
    planted, read = row["planted"], row["planted_line"]
    return [
        row["preset"], row["kind"], str(row["seed"]),
        f"{planted['size']}, {planted['step']:.2f}, {planted['kappa']:.2f}",
        f"{read['size']}, {value(read['step'])}, {value(read['kappa'])}", value(row["moved"]),
        row["decision"], value(row["p_value"]), interval(row, "break", "rank", digits=0),
        interval(row, "step"), interval(row, "kappa"), row["head"] or "–",
        f"{row['planted_among_first']} of {planted['size']}",
    ]  # fmt: skip


def two_texts(row: Row) -> list[str]:
    """The unedited neurons on both texts, and what that does to a planted step of 0.7."""
    lines = [
        [f"κ of novella unedited, text {name}", interval(decided, "kappa")]
        for name, decided in zip(("for planting", "in hand"), row["decided"], strict=True)
    ]
    lines += [
        [f"relative error of a neuron's influence, {size} neighbouring window(s) as one", value(error)]
        for size, error in row["error"].items()
    ]
    lines += [
        ["neurons moved between the texts by", value(row["moved"])],
        ["slope of that on log influence", value(row["slope"])],
    ]
    for simulated in row["simulated"]:
        how = f"simulated with a slope of {simulated['slope']:.3f}"
        lines += [[f"planted {symbol}, {how}", f"{simulated[name]:.2f} ± {simulated[f'{name}_sd']:.2f}"]
                  for name, symbol in (("step", "s = 0.7"), ("kappa", "κ = 0.4"))]  # fmt: skip
    return table(["what", "value"], lines)


def smooth(rows: list[Row]) -> list[str]:
    """Curves without a step."""
    return table(
        ["planted", "preset", "kind", "seed", "decision", "p", "found s", "found κ", "power"],
        [
            [
                row["truth"], row["preset"], row["kind"], str(row["seed"]), row["decision"], value(row["p_value"]),
                interval(row, "step"), interval(row, "kappa"), value(row["power"]),
            ]
            for row in rows
        ],
    )  # fmt: skip


def module(rows: list[Row]) -> list[str]:
    """A planted module, and the model without one."""
    head = [
        "planted", "share", "seed", "correlation of all members", "in boost, suppress", "group",
        "correlation", "random groups", "p", "Ward cluster",
        "Louvain community",        "Leiden community", "Q±", "p of Q±",
    ]  # fmt: skip
    return table(
        head,
        [
            [
                f"{row['planted']['size']} neurons" if row["planted"] else "none",
                f"{row['planted']['share']}" if row["planted"] else "–",
                "–" if row["seed"] is None else str(row["seed"]),
                value(row["members_correlation"]) if row["planted"] else "–",
                ", ".join(str(row["members"].get(name, 0)) for name in ("boost", "suppress")), f"`{row['group']}`",
                f"{row['correlation']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
                f"{row['random_correlation']:.3f} ± {row['random_sd']:.3f}", value(row["p_value"]),
                *(part(row[name], planted=bool(row["planted"])) for name in ("ward", "louvain", "leiden")),
                value(row["signed_modularity"]), value(row["modularity_p"]),
            ]
            for row in sorted(rows, key=lambda row: (not row["planted"], row["planted"].get("share"), row["seed"]))
        ],
    )  # fmt: skip


def no_training(rows: list[Row]) -> list[str]:
    """Models that were never trained."""
    return table(
        ["weights", *(f"`{preset}` rare, p" for preset in PRESETS)],
        [
            [
                f"drawn anew, seed {row['seed']}" if row["seed"] else "novella's step 0",
                *(f"{row[preset]['decision']}, {value(row[preset]['p_value'])}" for preset in PRESETS),
            ]
            for row in rows
        ],
    )


def shuffled_runs(rows: list[Row]) -> list[str]:
    """Whole runs with permuted counts."""
    head = ["shuffle", "preset", "rare", "common", "difference of s", "difference of b", "difference of κ"]
    return table(
        head,
        [
            [
                str(row["seed"]), preset, row[preset]["rare"], row[preset]["common"],
                *(
                    interval(row[preset], name, digits=0 if name == "size" else 2)
                    if name == "kappa" or row[preset]["determined"]
                    else "not determined"
                    for name in ("step", "size", "kappa")
                ),
            ]
            for row in rows
            for preset in PRESETS
        ],
    )  # fmt: skip


def shuffles(kinds: Row) -> list[str]:
    """Many shuffles over stored effects."""
    head = [
        "by", "types, rare and common", "positions", "quantity", "with an interval", "above 0", "below 0", "mean",
        "spread", "half-width",
    ]  # fmt: skip
    return table(
        head,
        [
            [
                kind, f"{row['rare_types']:,}, {row['common_types']:,}",
                f"{row['rare_positions']:,}, {row['common_positions']:,}", symbol, str(row[name]["tested"]),
                share(row[name]["above"], row[name]["tested"]),
                share(row[name]["rejected"] - row[name]["above"], row[name]["tested"]),
                *(value(row[name][what]) for what in ("mean", "spread", "half_width")),
            ]
            for kind, row in kinds.items()
            if kind != "seconds"
            for name, symbol in (("step", "s"), ("size", "b"), ("kappa", "κ"))
        ],
    )  # fmt: skip


def share(count: int, of: int) -> str:
    """A count, and what share it is."""
    return f"{count} ({100 * count / max(1, of):.1f} %)"


def interval(row: Row, name: str, of: str = "", digits: int = 2) -> str:
    """A value with its interval; – without one."""
    middle = row[f"{name}_{of}" if of else name]
    if middle is None:
        return "–"
    if row[f"{name}_low"] is None:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} [{row[f'{name}_low']:.{digits}f}, {row[f'{name}_high']:.{digits}f}]"


def part(found: Row, *, planted: bool) -> str:
    """A part of a partition: its size, and how many planted neurons of those that are there are in it."""
    size = f"{found['size']} of {found['of']}"
    return f"{size}, with {found['planted_in_it']} of {found['planted']} planted" if planted else size


def value(number: float | None) -> str:
    """Three places; – without a value."""
    return "–" if number is None else f"{number:.3f}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(stored()), encoding="utf-8")


if __name__ == "__main__":
    main()
