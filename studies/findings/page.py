"""Render docs/findings.md from the claims, the answers in studies/results/findings.json, and a template.

    python -m studies.findings.page

Nothing that was measured is written by hand: the tables hold every answer, and the template's sentences take their
numbers from the answers too. A test fails if the page and the answers drift apart.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from studies.findings.claims import CLAIMS, Claim
from studies.findings.measure import RESULTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "findings.md"
TEMPLATE = Path(__file__).with_name("findings.md.jinja")
PRESETS = ("es", "nc", "ds")
REAL, SERIES = "SmolLM2", "novella"
MEAN, OTHERS = "mean", ("zero", "resample", "optimal")
NOTHING = "–"

Answer = Mapping[str, Any]


class Answers:
    """The answers, looked up by model, reference and preset."""

    def __init__(self, stored: Mapping[str, Any]):
        """Take what `studies.findings.measure` wrote."""
        self.runs: Mapping[str, Mapping[str, Any]] = stored["runs"]
        self.claims: Mapping[str, list[dict[str, Any]]] = stored["claims"]

    def of(self, name: str, model: str, **given: Any) -> list[Answer]:
        """The answers to a claim of a model's runs that have these values in `dim_run`, in order of run and preset."""
        chosen = {
            run_id
            for run_id, run in self.runs.items()
            if str(run["model"]).startswith(model) and all(run[key] == value for key, value in given.items())
        }
        found = [row | self.runs[row["run_id"]] for row in self.claims[name] if row["run_id"] in chosen]
        return sorted(found, key=lambda row: PRESETS.index(row["preset"]) if row["preset"] in PRESETS else len(PRESETS))

    def one(self, name: str, model: str, preset: str, **given: Any) -> Answer:
        """The only such answer.

        Raises:
            LookupError: there is none, or more than one.
        """
        found = [row for row in self.of(name, model, **given) if row["preset"] == preset]
        if len(found) != 1:
            raise LookupError(f"{len(found)} answers to {name} of {model}, preset {preset}, {given}")
        return found[0]

    def last(self) -> dict[str, Any]:
        """What the series' last step and last layer have in `dim_run`, of the run with the most positions."""
        runs = [run for run in self.runs.values() if str(run["model"]).startswith(SERIES)]
        top = max(runs, key=lambda run: (run["training_step"], run["layer"], run["positions"]))
        return {name: top[name] for name in ("training_step", "layer", "positions")}


def table(answers: Answers, claims: Iterable[Claim]) -> str:
    """A line per claim, as Markdown."""
    heads = ("claim", "printed", "SmolLM2-135M, mean", "verdict", "other references", "novella, last step and layer",
             "novella, all", "query")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for claim in claims:
        where = f" ({claim.where})" if claim.where else ""
        real = answers.of(claim.name, REAL, ablation=MEAN)
        cells = (
            f"{claim.said}{where}",
            claim.printed or NOTHING,
            measured(real),
            verdicts(real),
            references(answers, claim.name),
            measured(answers.of(claim.name, SERIES, **answers.last())),
            counted(answers.of(claim.name, SERIES)),
            f"[{claim.query.stem}](queries/findings/{claim.query.name})",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def measured(found: list[Answer]) -> str:
    """What was measured, by preset."""
    return "<br>".join(f"{row['preset']}: {row['measured']}" for row in found if row["measured"]) or NOTHING


def verdicts(found: list[Answer]) -> str:
    """The verdicts by preset; one word where all are the same."""
    said = {row["preset"]: row["verdict"] for row in found}
    if not said or set(said.values()) == {"measured"}:
        return NOTHING
    if len(set(said.values())) == 1:
        return f"**{next(iter(said.values()))}**"
    return "<br>".join(f"{preset}: **{verdict}**" for preset, verdict in said.items())


def references(answers: Answers, name: str) -> str:
    """The verdicts under the other references, preset es, or nc where es is not asked."""
    said = []
    for reference in OTHERS:
        found = [row for row in answers.of(name, REAL) if str(row["ablation"]).partition(":")[0] == reference]
        if found:
            row = found[0]
            said.append(f"{reference}: {row['measured'] if row['verdict'] == 'measured' else row['verdict']}")
    return "<br>".join(said) or NOTHING


def counted(found: list[Answer]) -> str:
    """How often each verdict was reached, over runs and presets."""
    counts = Counter(row["verdict"] for row in found)
    if not counts or set(counts) == {"measured"}:
        return NOTHING
    return ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common()) + f" (of {len(found)})"


def rendered() -> str:
    """The page."""
    answers = Answers(json.loads(RESULTS.read_text(encoding="utf-8")))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701  Markdown
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    printed = [claim for claim in CLAIMS if claim.where]
    series = [run for run in answers.runs.values() if str(run["model"]).startswith(SERIES)]
    return template.render(
        answers=answers,
        printed=table(answers, printed),
        beyond=table(answers, [claim for claim in CLAIMS if not claim.where]),
        counts=Counter(row["verdict"] for claim in printed for row in answers.of(claim.name, REAL, ablation=MEAN)),
        real=next(run for run in answers.runs.values() if str(run["model"]).startswith(REAL)),
        series=max(series, key=lambda run: run["positions"]),
        by_layer="; ".join(
            f"(`es`: {row['measured']})" for row in answers.of("layers", SERIES) if row["preset"] == "es"
        ),
        present_in_series=sum(str(row["measured"]).startswith("present") for row in answers.of("regimes", SERIES)),
        lower=min(series, key=lambda run: run["positions"]),
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(rendered(), encoding="utf-8")


if __name__ == "__main__":
    main()
