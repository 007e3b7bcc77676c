"""Everything that a page says, computed once and looked up by run, preset and token group."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from rare_tokens.analyses.report.data import cards, papers, provenance, summary, tables
from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.data.points import Points, pack_points
from rare_tokens.analyses.report.data.series import Series, group_runs, presets
from rare_tokens.analyses.report.data.verdicts import comparisons
from rare_tokens.analyses.report.figures import charts, figures
from rare_tokens.analyses.report.figures.charts import Extent
from rare_tokens.common.errors import UserError

Row = dict[str, Any]

DEEPEST_TAIL = -3.0  # of the axis of δ: the tail falls far below, and would flatten the head
BESIDE = (  # inputs that are written beside the page as they are
    "emergence", "slopes", "sensitivity", "contexts", "targets", "activations", "coactivation",
)  # fmt: skip
DECADES = 8  # most that the axis of influence spans


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
    compared: Mapping[tuple[str, str], list[Row]]
    top: Mapping[tuple[str, str], list[Row]]
    sample: Mapping[tuple[str, str], list[Row]]
    checks: list[Row]
    facts: list[provenance.Facts]
    sets: list[dict[str, figures.Rows]]  # of the small figures of each series
    cards: list[list[Row]]  # of each series
    papers: Mapping[str, list[Row]]  # tables of each run with effects
    figures: list[Mapping[str, Row]]  # specifications of each series, by the figure's name

    @property
    def top_count(self) -> int:
        """Neurons in the table of the most influential."""
        return tables.TOP

    @property
    def has_intervals(self) -> bool:
        """Whether there is any interval to draw."""
        return self.inputs.intervals.height > 0

    @property
    def runs(self) -> list[Row]:
        """Rows of all runs, as the series order them."""
        return [run.row for one in self.series for run in one.runs]

    @property
    def has_decisions(self) -> bool:
        """Whether it was tested that there are plateaus."""
        return self.inputs.decisions.height > 0

    def revisions(self, run_id: str) -> str:
        """Model, checkpoint and corpus of a run, in words."""
        row = next(row for row in self.runs if row["run_id"] == run_id)
        return f"{row['model']} {row['revision']} on {row['corpus']}"

    def verdicts(self, series: Series) -> Row:
        """How many rows of the papers' tables agree, differ and cannot be told."""
        return papers.counts(self.papers[series.shown.run_id])

    def in_the_text(self, run_id: str, preset: str) -> list[Row]:
        """What papers print outside their tables, beside what a run gives."""
        return papers.in_the_text(self.tables["measured_beside_printed"], run_id, preset)

    def sensitivity(self, run_id: str, preset: str) -> list[Row]:
        """One row per percentile of a run's rare group."""
        found = self.inputs.sensitivity.filter(run_id=run_id, preset=preset).sort("percentile")
        return found.filter(pl.col("token_group") == "rare").to_dicts()

    def k(self, series: Series) -> int:
        """How many neurons of a series count as the most influential."""
        return summary.top_count(self.extents[series.index].neurons)

    def fits(self, run_id: str) -> dict[str, dict[str, Row]]:
        """The fits of a run that have numbers, by preset and token group, as the figures draw them."""
        names = {"kappa": "kappa", "beta": "beta", "first": "first_rank", "last": "last_rank"}
        names |= {"low": "kappa_low", "high": "kappa_high"}
        found: dict[str, dict[str, Row]] = defaultdict(dict)
        for (run, preset, group), row in self.groups.items():
            if run == run_id and row["kappa"] is not None:
                found[preset][group] = {name: row[column] for name, column in names.items()}
        return dict(found)


def build_content(inputs: ReportInputs) -> Content:
    """Compute all that a page of `inputs` says. Raises UserError where there is no run to speak of."""
    inputs = inputs.conformed()
    if not inputs.runs.height:
        raise UserError("There is no run to report on. Make one first: python cli.py ingest --model ID_OR_FOLDER.")
    series = group_runs(inputs.runs, inputs.influence)
    shown_presets = presets(inputs.influence, inputs.fits)
    summaries = summary.group_summaries(inputs)
    pairs = summary.pair_summaries(inputs)
    compared = comparisons(inputs, summaries)
    extents = [_extent(one, inputs) for one in series]
    shown = _of_runs(inputs, [one.shown.run_id for one in series])
    made = {"summary": summaries, "agreement": pairs, "measured_beside_printed": compared}
    made |= {"neurons": tables.all_neurons(inputs), "tokens": tables.neuron_tokens(inputs.tokens)}
    made |= {"runs": inputs.runs, "quality": inputs.quality}
    made |= {name: getattr(inputs, name) for name in BESIDE if getattr(inputs, name).height}
    sets = [figures.small_sets(one, inputs, extents[one.index]) for one in series]
    top = _rows(tables.top_neurons(shown))
    return Content(
        inputs=inputs,
        series=series,
        presets=shown_presets,
        extents=extents,
        points=pack_points(inputs, series, shown_presets),
        tables=made,
        groups={_key(row, 3): row for row in summaries.iter_rows(named=True)},
        pairs={_key(row, 2): row for row in pairs.iter_rows(named=True)},
        compared=_rows(compared),
        top=top,
        sample=_rows(tables.curve_sample(shown)),
        checks=_checks(inputs.quality, series),
        facts=[provenance.series_facts(one) for one in series],
        sets=sets,
        figures=[_figures(one, extents[one.index], summaries, sets[one.index]) for one in series],
        cards=[cards.cards(one, inputs, top.get((one.shown.run_id, cards.PRESET), [])) for one in series],
        papers={run.run_id: papers.paper_tables(compared, run.run_id) for one in series for run in one.measured},
    )


def _figures(one: Series, extent: Extent, summaries: pl.DataFrame, sets: dict[str, figures.Rows]) -> dict[str, Row]:
    """The specification of every figure of a series that there is anything to draw in."""
    names = [run.label for run in one.measured]
    if not names:
        return {}
    made = {"influence": charts.influence_figure(extent), "scatter": charts.scatter_figure(extent)}
    if len(names) > 1:
        made["steps-influence"] = charts.steps_figure(extent, names, "influence")
        made["steps-deviation"] = charts.steps_figure(extent, names, "deviation")
        made["kappa"] = charts.kappa_figure(names, _kappa_span(one, summaries))
    made |= {name: figure() for name, figure in figures.small_figures(names, extent).items() if name in sets}
    return {name: charts.specification(figure) for name, figure in made.items()}


def _kappa_span(one: Series, summaries: pl.DataFrame) -> tuple[float, float]:
    """What the axis of κ must cover in a series: every κ and interval of its runs, whatever the preset."""
    rows = summaries.filter(pl.col("run_id").is_in([run.run_id for run in one.runs]))
    found = pl.concat([rows[name] for name in ("kappa", "kappa_low", "kappa_high")]).drop_nulls()
    return (_smallest(found), _largest(found, 1.0)) if len(found) else (0.0, 1.0)


def _smallest(values: pl.Series) -> float:
    return -_largest(-values, 0.0)


def _extent(series: Series, inputs: ReportInputs) -> Extent:
    """The axes of a series: influence over `DECADES` at most, and all of δ but a tail deeper than `DEEPEST_TAIL`."""
    runs = pl.col("run_id").is_in([run.run_id for run in series.runs])
    neurons = max(int(run.row["neurons"]) for run in series.runs)  # type: ignore[call-overload]
    influence = inputs.influence.filter(runs, pl.col("influence") > 0)["influence"]
    largest = _largest(influence, 1.0)
    smallest = max(-_largest(-influence, -largest / 10), largest * 10.0**-DECADES)
    deviations = inputs.deviations.filter(runs, pl.col("deviation").is_not_null())
    tail = -_largest(-deviations["deviation"], 0.3)
    head = -_largest(-deviations.filter(pl.col("rank") <= neurons / 2)["deviation"], 0.3)
    low, high = min(head, max(tail, DEEPEST_TAIL)), max(_largest(deviations["deviation"], 0.0), summary.LARGE_DEVIATION)
    bounds = (10.0 ** (math.log10(smallest) - 0.1), 10.0 ** (math.log10(largest) + 0.3))
    return Extent(neurons, bounds, (low - 0.15, high + 0.15))


def _largest(values: pl.Series, otherwise: float) -> float:
    """The largest value, or `otherwise` where there is none."""
    return float(values.max()) if len(values) else otherwise  # type: ignore[arg-type]


def _of_runs(inputs: ReportInputs, run_ids: list[str]) -> ReportInputs:
    """The part of `inputs` that a page writes out in full: the runs that a reader sees first."""
    names = ("influence", "deviations", "tokens")
    return replace(inputs, **{name: getattr(inputs, name).filter(pl.col("run_id").is_in(run_ids)) for name in names})


def _key(row: Row, parts: int) -> Any:
    return tuple(row[name] for name in ("run_id", "preset", "token_group")[:parts])


def _rows(frame: pl.DataFrame) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in frame.iter_rows(named=True):
        found[_key(row, 2)].append(row)
    return dict(found)


def _checks(quality: pl.DataFrame, series: list[Series]) -> list[Row]:
    """The checks of the runs of this report, failed ones first, then in the order of the runs."""
    place = {run.run_id: run.index for one in series for run in one.runs}
    rows = [row for row in quality.iter_rows(named=True) if row["run_id"] in place]
    return sorted(rows, key=lambda row: (row["success"] is not False, place[row["run_id"]]))
