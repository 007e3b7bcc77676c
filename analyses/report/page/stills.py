"""The figures as files: SVG and PNG of what a page shows first, drawn by vl-convert, in colours for paper."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import vl_convert

from rare_tokens.analyses.report.data.points import curve_ranks
from rare_tokens.analyses.report.data.series import Series
from rare_tokens.analyses.report.data.tables import ranked_pairs
from rare_tokens.analyses.report.figures import charts, figures
from rare_tokens.analyses.report.figures.figure import Figure, shown_rows
from rare_tokens.analyses.report.page.content import Content

WIDTH = 640  # pixels of a figure that takes its place's full width in a page
SCALE = 2.0  # for PNG
FONT = "Open Sans, sans-serif"  # vl-convert ships it, so a figure looks alike on every machine
Data = dict[str, pl.DataFrame]  # by the data set's name
_COLUMNS = {"neuron": "neuron", "rank": "rank", "influence": "influence", "deviation": "deviation", "role": "role"}


def stills(content: Content) -> Iterator[tuple[str, str, bytes, pl.DataFrame]]:
    """Name, SVG, PNG and rows of every figure of every series, at the checkpoint and preset that a page shows first.

    Of the main figure the rows are its points, without the fitted lines.
    """
    for one in content.series:
        if not one.measured or not content.presets:
            continue
        for name, (specification, data) in drawings(one, content, content.presets[0]).items():
            svg = vl_convert.vegalite_to_svg(_with_data(specification, data), vl_version=charts.VEGA_LITE)
            png, rows = vl_convert.svg_to_png(svg, scale=SCALE), next(iter(data.values()))
            yield f"{_plain(one.shown.run_id)}-{name}", svg, png, rows


def drawings(one: Series, content: Content, preset: str) -> dict[str, tuple[Mapping[str, Any], Data]]:
    """Every figure of a series with its data sets; a figure with several panels is one drawing per panel."""
    specifications = content.figures[one.index]
    return {
        name: (specifications[figure.name], data)
        for figure in figures()
        if figure.name in specifications
        for name, data in _panels(figure, _data(figure, one, content, preset))
    }


def _data(figure: Figure, one: Series, content: Content, preset: str) -> Data:
    """The data sets of a figure at the checkpoint that a page shows first."""
    if figure.rows is not None:
        return {"rows": shown_rows(content.sets[one.index][figure.name], preset, one.shown.index)}
    if figure.name == "influence":
        return _curve(one, content, preset)
    if figure.name == "scatter":
        return {"pairs": _pairs(one, content, preset)}
    return {"curves": _curves(one, content, preset, figure.name.removeprefix("steps-"))}


def _panels(figure: Figure, data: Data) -> Iterator[tuple[str, Data]]:
    if not figure.panels:
        yield figure.name, data
    for group in figure.panels:
        of_group = {key: rows.filter(pl.col("group") == group) if len(rows) else rows for key, rows in data.items()}
        yield f"{figure.name}-{_plain(group)}", of_group


def _neurons(content: Content, preset: str) -> pl.DataFrame:
    frame = content.tables["neurons"].filter(pl.col("influence") > 0, pl.col("positions") > 0, preset=preset)
    return frame.rename({"token_group": "group"})


def _curve(one: Series, content: Content, preset: str) -> Data:
    run_id = one.shown.run_id
    points = _neurons(content, preset).filter(run_id=run_id)
    rare = points.filter(group="rare").select("neuron", rare_rank="rank")
    points = points.select("group", *_COLUMNS).join(rare, on="neuron", how="left")
    return {"points": points, **content.lines(one, run_id, preset)}


def _pairs(one: Series, content: Content, preset: str) -> pl.DataFrame:
    first = content.k(one)
    pairs = ranked_pairs(content.inputs).filter(run_id=one.shown.run_id, preset=preset)
    pairs = pairs.filter(pl.col("influence_rare") > 0, pl.col("influence_common") > 0)
    rare, common = pl.col("rank_rare") <= first, pl.col("rank_common") <= first
    one_side = pl.when(rare).then(pl.lit("rare")).when(common).then(pl.lit("common")).otherwise(pl.lit("neither"))
    leads = pl.when(rare & common).then(pl.lit("both")).otherwise(one_side)
    return pairs.select("neuron", rare="influence_rare", common="influence_common", leads=leads)


def _curves(one: Series, content: Content, preset: str, quantity: str) -> pl.DataFrame:
    names = {run.run_id: run.label for run in one.measured}
    found = _neurons(content, preset).filter(
        pl.col("run_id").is_in(list(names)), pl.col("rank").is_in(curve_ranks(content.extents[one.index].neurons))
    )
    found = found.filter(pl.col(quantity).is_not_null())
    return found.select("group", "rank", quantity, step=pl.col("run_id").replace_strict(names))


def _with_data(spec: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """A specification with its data sets, a width, legends, and colours instead of the page's variables."""
    text = re.sub(r"var\((--\w+)\)", lambda found: charts.LIGHT[found[1]], json.dumps(spec))
    text = text.replace('"width": "container"', f'"width": {WIDTH}').replace(json.dumps(charts.FONT), json.dumps(FONT))
    text = re.sub(r', "legend": null|"legend": null, ', "", text)  # in a page, the page's own words are the legend
    whole: dict[str, Any] = json.loads(text)
    whole["config"]["background"] = "white"
    return whole | {"datasets": {name: rows.to_dicts() for name, rows in data.items()}}


def _plain(text: str) -> str:
    """A name that is valid for a file everywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)
