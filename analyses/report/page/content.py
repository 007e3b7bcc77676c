"""Everything that a page says, computed once and looked up by run, preset and token group."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rare_tokens.analyses.report.data import (
    answer,
    cards,
    citation,
    compared,
    fits,
    layers,
    papers,
    provenance,
    references,
    rows,
    specificity,
    summary,
    tables,
)
from rare_tokens.analyses.report.data.extent import Extent, extent_of
from rare_tokens.analyses.report.data.inputs import INPUTS, ReportInputs
from rare_tokens.analyses.report.data.points import Points, pack_points
from rare_tokens.analyses.report.data.run_warnings import run_warnings
from rare_tokens.analyses.report.data.series import Run, Series, group_runs, presets
from rare_tokens.analyses.report.data.verdicts import comparisons
from rare_tokens.analyses.report.figures import figures
from rare_tokens.analyses.report.figures import inputs as inputs_of_figures
from rare_tokens.analyses.report.figures.charts import specification
from rare_tokens.analyses.report.figures.figure import Figure, Rows, Subject
from rare_tokens.common.errors import UserError
from rare_tokens.common.program import command, program

Row = dict[str, Any]
GROUPS_OF_NEURONS = (  # in the order in which they are named
    "boost", "suppress", "plateau", "excitatory", "inhibitory", "top", "top_boost", "top_suppress",
)  # fmt: skip


@dataclass(frozen=True)
class Content:
    """What a page is rendered from; every mapping is keyed by run_id, preset (and token group) as its name says."""

    inputs: ReportInputs
    series: list[Series]
    presets: list[str]
    extents: list[Extent]
    points: Points
    tables: Mapping[str, pl.DataFrame]
    groups: Mapping[tuple[str, str, str], Row]
    pairs: Mapping[tuple[str, str], Row]
    differences: Mapping[tuple[str, str], Row]  # rare minus common
    top: Mapping[tuple[str, str], list[Row]]
    specificity: Mapping[tuple[str, str], Row]  # how many neurons are specific to rare and to common tokens
    rows: Mapping[str, Mapping[tuple[str, str], list[list[rows.Cell]]]]  # by the table's name (`data.rows.COLUMNS`)
    compared: list[Run]  # the runs of several series that are shown side by side
    pairs_of_runs: Mapping[str, list[Row]]  # what is known of each two of them, by preset
    warnings: list[Row]
    checks: list[Row]
    facts: list[provenance.Facts]
    sets: list[dict[str, Rows]]  # per series, what its figures draw, by the figure's name
    cards: list[list[cards.Card]]  # per series
    papers: Mapping[str, list[Row]]  # tables, per run with effects
    figures: list[Mapping[str, Row]]  # specifications per series, by the figure's name

    @property
    def top_count(self) -> int:
        """Neurons in the table of the most influential."""
        return tables.TOP

    @property
    def specific_count(self) -> int:
        """Most neurons in the table of those specific to rare tokens."""
        return specificity.SPECIFIC

    @property
    def names_of_runs(self) -> dict[str, str]:
        """What tells each of the compared runs from the others, by run_id."""
        named = compared.labels([run.row for run in self.compared])
        return {run.run_id: name for run, name in zip(self.compared, named, strict=True)}

    @property
    def has_intervals(self) -> bool:
        """Whether any interval can be drawn."""
        return self.inputs.intervals.height > 0

    @property
    def has_signs(self) -> bool:
        """Whether it is known which signs the text settles."""
        return self.inputs.influence["settled_role"].count() > 0

    @property
    def runs(self) -> list[Row]:
        """Rows of all runs, in the order of the series."""
        return [run.row for one in self.series for run in one.runs]

    def revisions(self, run_id: str) -> str:
        """Model, checkpoint and corpus of a run, in words."""
        row = next(row for row in self.runs if row["run_id"] == run_id)
        return f"{row['model']} {row['revision']} on {row['corpus']}"

    def answer(self, run_id: str, preset: str) -> str:
        """The answer for one run under a preset, in a sentence (`data.answer`)."""
        run = next(row for row in self.runs if row["run_id"] == run_id)
        rare, common = (self.groups[run_id, preset, group] for group in summary.GROUPS)
        return answer.answer(run, rare, common, self.differences.get((run_id, preset)))

    def score(self, run_id: str) -> Row:
        """How many rows of the papers' tables agree with a run, of those about its own model."""
        return papers.counts(self.papers[run_id])

    def notes(self, series: Series) -> list[str]:
        """What to know before reading on about a series: presets that disagree, few positions, its warnings."""
        found = [self.groups[series.shown.run_id, preset, group] for preset in self.presets for group in summary.GROUPS]
        rare = [self.groups[series.shown.run_id, preset, "rare"] for preset in self.presets]
        decisions = {row["preset"]: row["decision"] for row in rare}
        few = [said for row in found if (said := answer.thin(row))]
        notes = [answer.disagreement(decisions), f"Few positions: {', '.join(few)}." if few else None]
        own = [warning for warning in self.warnings if self._is_about(warning, series)]
        return [note for note in notes if note] + [warning["message"] for warning in own]

    def _is_about(self, warning: Row, series: Series) -> bool:
        """Whether a series shows a warning: one about every series stands with the first."""
        if not warning["of"]:
            return series.index == 0
        return f"{series.shown.row['model']} on {series.shown.row['corpus']}" in warning["of"]

    def title(self, series: Series) -> str:
        """What tells a series from the others."""
        return compared.labels([one.shown.row for one in self.series])[series.index]

    def addresses(self, series: Series) -> dict[str, str]:
        """The addresses of a series' cards, by the neuron's number."""
        return {str(card.neuron): card.address for card in self.cards[series.index]}

    @property
    def bibtex(self) -> str:
        """How to cite the runs, the program and the papers."""
        return citation.bibtex(self.runs)

    @property
    def program(self) -> str:
        """How the commands of this page begin."""
        return self.inputs.command.partition(" report")[0] or program()

    def in_the_text(self, run_id: str, preset: str) -> list[Row]:
        """What papers print outside their tables, next to what a run gives."""
        return papers.in_the_text(self.tables["measured_beside_printed"], run_id, preset)

    def group_signs(self, run_id: str) -> dict[str, list[Row]]:
        """By preset, the papers' groups of a run that have neurons and intervals (`neuron_group_summary`)."""
        kept = ~pl.col("group_name").str.ends_with("_settled") & pl.col("mixed").is_not_null()
        found = self.inputs.neuron_groups.filter(kept, pl.col("members") > 0, run_id=run_id)
        found = found.sort(pl.col("group_name").cast(pl.Enum(GROUPS_OF_NEURONS), strict=False), nulls_last=True)
        return {preset: rows for preset in self.presets if (rows := found.filter(preset=preset).to_dicts())}

    def of_figure(self, name: str, run_id: str, preset: str) -> list[Row]:
        """Rows of a frame that only a figure reads, for one run and preset."""
        return self.inputs.of_figures[name].filter(run_id=run_id, preset=preset).to_dicts()

    def references(self, run_id: str, preset: str) -> dict[str, list[Row]]:
        """The references of a run, each by itself and two by two (`data.references.reference_tables`)."""
        return references.reference_tables(self.inputs.of_figures["references"], run_id, preset)

    def layers(self, run_id: str, preset: str) -> list[Row]:
        """The layers that a run shows (`data.layers.shown_layers`)."""
        found = layers.shown_layers(self.inputs.of_figures["layers"], self.inputs.runs)
        return found.filter(shown=run_id, preset=preset).to_dicts()

    def k(self, series: Series) -> int:
        """How many of a series' neurons count as the most influential."""
        return summary.top_count(self.extents[series.index].neurons)

    def lines(self, series: Series, run_id: str, preset: str) -> dict[str, pl.DataFrame]:
        """A run's fits that have numbers, as figures draw them: lines, and the ranks they were fitted to."""
        found = {group: self.groups.get((run_id, preset, group)) for group in ("common", "rare")}  # the last on top
        known = {group: row for group, row in found.items() if row and row["kappa"] is not None}
        return {"fits": fits.lines(known, self.extents[series.index].neurons), "windows": fits.windows(known)}


def build_content(inputs: ReportInputs) -> Content:
    """Compute all that a page of `inputs` says. Raises UserError if there is no run."""
    inputs = inputs.conformed(inputs_of_figures())
    if not inputs.runs.height:
        raise UserError(f"There is no run to report on. Make one first: {command('ingest --model ID_OR_FOLDER')}.")
    series = group_runs(inputs.runs, inputs.influence)
    shown_presets = presets(inputs.influence, inputs.fits)
    summaries = summary.group_summaries(inputs)
    pairs = summary.pair_summaries(inputs)
    beside_papers = comparisons(inputs, summaries)
    extents = [extent_of(one, inputs) for one in series]
    made = {"summary": summaries, "agreement": pairs, "measured_beside_printed": beside_papers}
    made |= {"neurons": tables.all_neurons(inputs), "tokens": tables.neuron_tokens(inputs.tokens)}
    made |= {"runs": inputs.runs, "quality": inputs.quality}
    made |= {name: frame for name, frame in _beside(inputs).items() if frame.height}
    subjects = [Subject(one, inputs, extents[one.index], summaries) for one in series]
    sets = [_rows_of_figures(subject) for subject in subjects]
    described = tables.described(inputs, inputs.moments.select("run_id", "neuron").unique())
    top = _rows(tables.top_neurons(inputs))
    specific = _rows(specificity.specific_neurons(inputs))
    sample = _rows(tables.curve_sample(inputs))
    return Content(
        inputs=inputs,
        series=series,
        presets=shown_presets,
        extents=extents,
        points=pack_points(inputs, series, shown_presets),
        tables=made,
        groups={_key(row, 3): row for row in summaries.iter_rows(named=True)},
        pairs={_key(row, 2): row for row in pairs.iter_rows(named=True)},
        differences={_key(row, 2): row for row in inputs.differences.iter_rows(named=True)},
        top=top,
        rows={
            "top": {key: [rows.top_row(row) for row in found] for key, found in top.items()},
            "specific": {key: [rows.specific_row(row) for row in found] for key, found in specific.items()},
            "sample": {key: [rows.sample_row(row) for row in found] for key, found in sample.items()},
        },
        warnings=run_warnings(inputs.warnings, series),
        checks=_checks(inputs.quality, series),
        facts=[provenance.series_facts(one) for one in series],
        sets=sets,
        figures=[_specifications(*pair) for pair in zip(subjects, sets, strict=True)],
        specificity=specificity.specificity_counts(inputs.specificity),
        compared=compared.compared_runs(series),
        pairs_of_runs={one: compared.pair_rows(inputs, compared.compared_runs(series), one) for one in shown_presets},
        cards=[cards.cards(one, inputs, described) for one in series],
        papers={run.run_id: papers.paper_tables(beside_papers, run.run_id) for one in series for run in one.measured},
    )


def _rows_of_figures(subject: Subject) -> dict[str, Rows]:
    """The rows of every figure of a series, for figures that have rows."""
    drawn: dict[str, Rows] = {}
    for figure in _possible(subject):
        rows = figure.rows(subject) if figure.rows else {}
        if kept := {preset: frame for preset, frame in rows.items() if len(frame)}:
            drawn[figure.name] = kept
    return drawn


def _specifications(subject: Subject, drawn: Mapping[str, Rows]) -> dict[str, Row]:
    """The specification of every figure of a series that has something to draw."""
    chosen = [figure for figure in _possible(subject) if figure.rows is None or figure.name in drawn]
    return {figure.name: specification(figure.chart(subject, drawn.get(figure.name, {}))) for figure in chosen}


def _possible(subject: Subject) -> list[Figure]:
    """The figures for a series with so many checkpoints."""
    steps = len(subject.series.measured)
    return [figure for figure in figures() if steps > int(figure.over_training)]


def _beside(inputs: ReportInputs) -> dict[str, pl.DataFrame]:
    """The inputs that are written next to the page as they are."""
    frames = {one.name: getattr(inputs, one.name) for one in INPUTS if one.beside}
    return frames | {one.name: inputs.of_figures[one.name] for one in inputs_of_figures() if one.beside}


def _key(row: Row, parts: int) -> Any:
    return tuple(row[name] for name in ("run_id", "preset", "token_group")[:parts])


def _rows(frame: pl.DataFrame) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in frame.iter_rows(named=True):
        found[_key(row, 2)].append(row)
    return dict(found)


def _checks(quality: pl.DataFrame, series: list[Series]) -> list[Row]:
    """The checks on this report's runs, failed ones first, then in the order of the runs."""
    place = {run.run_id: run.index for one in series for run in one.runs}
    rows = [row for row in quality.iter_rows(named=True) if row["run_id"] in place]
    return sorted(rows, key=lambda row: (row["success"] is not False, place[row["run_id"]]))
