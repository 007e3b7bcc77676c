"""The figures as files: SVG and PNG of what a page shows first, drawn by vl-convert, in the colours of paper."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import polars as pl
import vl_convert

from rare_tokens.analyses.report.data.content import Content
from rare_tokens.analyses.report.data.points import curve_ranks
from rare_tokens.analyses.report.data.series import Series
from rare_tokens.analyses.report.data.summary import GROUPS
from rare_tokens.analyses.report.data.tables import ranked_pairs
from rare_tokens.analyses.report.figures import charts, figures

WIDTH = 640  # pixels of a figure that takes the width of its place in a page
SCALE = 2.0  # of a PNG
FONT = "Open Sans, sans-serif"  # vl-convert has it in itself, so that a figure looks alike on every machine
_PANELS = {
    "steps-influence": GROUPS,
    "steps-deviation": GROUPS,
    "spread": GROUPS,
    "alpha": tuple(figures.RULES.values()),
}
_COLUMNS = {"neuron": "neuron", "rank": "rank", "influence": "influence", "deviation": "deviation", "role": "role"}


def stills(content: Content) -> Iterator[tuple[str, str, bytes]]:
    """Name, SVG and PNG of every figure of every series, at the checkpoint and preset that a page shows first."""
    for one in content.series:
        if not one.measured or not content.presets:
            continue
        for name, (specification, data) in drawings(one, content, content.presets[0]).items():
            svg = vl_convert.vegalite_to_svg(_with_data(specification, data), vl_version=charts.VEGA_LITE)
            yield f"{_plain(one.shown.run_id)}-{name}", svg, vl_convert.svg_to_png(svg, scale=SCALE)


def drawings(
    one: Series, content: Content, preset: str
) -> dict[str, tuple[Mapping[str, Any], dict[str, pl.DataFrame]]]:
    """Every figure of a series with its data sets; a figure of several panels is one drawing a panel."""
    data: dict[str, Callable[[], dict[str, pl.DataFrame]]] = {
        "influence": partial(_curve, one, content, preset),
        "scatter": lambda: {"pairs": _pairs(one, content, preset)},
        "kappa": lambda: {"kappas": _kappas(one, content, preset)},
    }
    for quantity in ("influence", "deviation"):
        data[f"steps-{quantity}"] = partial(_curves, one, content, preset, quantity)
    sets = content.sets[one.index]
    for name in sets:
        data[name] = partial(_small, sets, name, preset, one.shown.index)
    return {
        key: drawing
        for name, specification in content.figures[one.index].items()
        for key, drawing in _panels(name, specification, data[name]())
    }


def _small(sets: Mapping[str, figures.Rows], name: str, preset: str, run: int) -> dict[str, pl.DataFrame]:
    return {"rows": figures.shown_rows(sets, name, preset, run)}


def _panels(
    name: str, specification: Mapping[str, Any], data: dict[str, pl.DataFrame]
) -> Iterator[tuple[str, tuple[Mapping[str, Any], dict[str, pl.DataFrame]]]]:
    for group in _PANELS.get(name, (None,)):
        if group is None:
            yield name, (specification, data)
        else:
            of_group = {key: rows.filter(pl.col("group") == group) for key, rows in data.items()}
            yield f"{name}-{_plain(group)}", (specification, of_group)


def _neurons(content: Content, preset: str) -> pl.DataFrame:
    frame = content.tables["neurons"].filter(pl.col("influence") > 0, pl.col("positions") > 0, preset=preset)
    return frame.rename({"token_group": "group"})


def _curve(one: Series, content: Content, preset: str) -> dict[str, pl.DataFrame]:
    run_id = one.shown.run_id
    points = _neurons(content, preset).filter(run_id=run_id)
    rare = points.filter(group="rare").select("neuron", rare_rank="rank")
    points = points.select("group", *_COLUMNS).join(rare, on="neuron", how="left")
    lines, windows = [], []
    for group, fit in content.fits(run_id).get(preset, {}).items():
        last = content.extents[one.index].neurons
        ends = {"before": (1, fit["first"]), "window": (fit["first"], fit["last"]), "after": (fit["last"], last)}
        lines += [
            {
                "group": group,
                "part": part,
                "rank": rank,
                "influence": math.exp(fit["beta"] - fit["kappa"] * math.log(rank)),
            }
            for part, pair in ends.items()
            if pair[0] < pair[1]
            for rank in pair
        ]
        windows.append({"group": group, "first": fit["first"], "last": fit["last"]})
    return {"points": points, "fits": pl.DataFrame(lines), "windows": pl.DataFrame(windows)}


def _pairs(one: Series, content: Content, preset: str) -> pl.DataFrame:
    first = content.k(one)
    pairs = ranked_pairs(content.inputs).filter(run_id=one.shown.run_id, preset=preset)
    pairs = pairs.filter(pl.col("influence_rare") > 0, pl.col("influence_common") > 0)
    rare, common = pl.col("rank_rare") <= first, pl.col("rank_common") <= first
    one_side = pl.when(rare).then(pl.lit("rare")).when(common).then(pl.lit("common")).otherwise(pl.lit("neither"))
    leads = pl.when(rare & common).then(pl.lit("both")).otherwise(one_side)
    return pairs.select("neuron", rare="influence_rare", common="influence_common", leads=leads)


def _curves(one: Series, content: Content, preset: str, quantity: str) -> dict[str, pl.DataFrame]:
    names = {run.run_id: run.revision for run in one.measured}
    found = _neurons(content, preset).filter(
        pl.col("run_id").is_in(list(names)), pl.col("rank").is_in(curve_ranks(content.extents[one.index].neurons))
    )
    found = found.filter(pl.col(quantity).is_not_null())
    return {"curves": found.select("group", "rank", quantity, step=pl.col("run_id").replace_strict(names))}


def _kappas(one: Series, content: Content, preset: str) -> pl.DataFrame:
    rows = [
        {"step": run.revision, "group": group} | {name: fit[name] for name in ("kappa", "low", "high")}
        for run in one.measured
        for group, fit in content.fits(run.run_id).get(preset, {}).items()
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _with_data(spec: Mapping[str, Any], data: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """A specification with its data sets, a width, legends, and colours instead of the page's variables."""
    text = re.sub(r"var\((--\w+)\)", lambda found: charts.LIGHT[found[1]], json.dumps(spec))
    text = text.replace('"width": "container"', f'"width": {WIDTH}').replace(json.dumps(charts.FONT), json.dumps(FONT))
    text = re.sub(r', "legend": null|"legend": null, ', "", text)  # in a page its own words are the legend
    whole: dict[str, Any] = json.loads(text)
    whole["config"]["background"] = "white"
    return whole | {"datasets": {name: rows.to_dicts() for name, rows in data.items()}}


def _plain(text: str) -> str:
    """A name that is a file's everywhere."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)
