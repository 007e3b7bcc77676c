"""References and first-order estimates on the page: in which order, where, and what is said where something is NULL."""

from dataclasses import replace

import polars as pl
import pytest

from rare_tokens.analyses.report import ReportInputs
from rare_tokens.analyses.report.data.references import first_references, in_order, reference_tables
from rare_tokens.analyses.report.page.content import Content, build_content
from rare_tokens.analyses.report.page.page import render_page
from studies.synthetic.report_inputs import make_inputs
from studies.synthetic.report_study import references, studied
from tests.support.report_page import Page, small_page

KINDS = ("mean", "zero", "resample:4", "optimal")


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    """Four runs of one model that differ in the ablation, in another order than the house's."""
    made = [make_inputs(steps=(7,), neurons=64, presets=("es",), intervals=True, seed=seed) for seed in range(4)]
    runs = [one.runs.with_columns(seed=0, ablation=pl.lit(kind)) for one, kind in zip(made, KINDS, strict=True)]
    ids = [one["run_id"].item() for one in runs]
    frames = {
        name: pl.concat([getattr(one, name) for one in made]) for name in ("influence", "fits", "deviations", "tokens")
    }
    pairs = references(ids[0], dict(zip(ids[1:], KINDS[1:], strict=True)))
    of_figures = {"references": pairs.sample(fraction=1, shuffle=True, seed=1)}
    return replace(studied(made[0]), runs=pl.concat(runs[::-1]), **frames, of_figures=of_figures)


@pytest.fixture(scope="module")
def content(inputs: ReportInputs) -> Content:
    return build_content(inputs)


@pytest.fixture(scope="module")
def page(content: Content) -> Page:
    return Page(render_page(content))


def test_pairs_stand_in_the_order_of_the_references_rare_before_common(inputs: ReportInputs) -> None:
    pairs = inputs.of_figures["references"]
    expected = [(one, other, group) for place, one in enumerate(KINDS) for other in KINDS[place + 1 :]
                for group in ("rare", "common")]  # fmt: skip
    assert in_order(pairs).select("ablation", "other_ablation", "token_group").rows() == expected
    assert first_references(pairs)["ablation"].unique().to_list() == ["mean"]


def test_each_reference_has_its_own_numbers_once(inputs: ReportInputs) -> None:
    pairs = inputs.of_figures["references"]
    mean, zero = (pairs.filter(ablation=kind)["run_id"][0] for kind in ("mean", "zero"))
    found = reference_tables(pairs, mean, "es")
    assert [(row["ablation"], row["token_group"]) for row in found["each"]] == [
        (kind, group) for kind in KINDS for group in ("rare", "common")
    ]
    assert [row["kappa"] for row in found["each"]] == [0.8, 0.8, *[None] * 6]
    assert [row["break_rank"] for row in found["each"]] == [12, 12, *[9] * 6]
    assert len(found["pairs"]) == 12
    assert reference_tables(pairs, zero, "es") == {}, "they are told once, with the first"
    assert reference_tables(pairs, mean, "nc") == {}


def test_only_the_first_run_shows_the_curves_of_all(content: Content, inputs: ReportInputs) -> None:
    shown = [one for one, sets in zip(content.series, content.sets, strict=True) if "references" in sets]
    assert [one.shown.row["ablation"] for one in shown] == ["mean"]
    rows = content.sets[shown[0].index]["references"]["es"]
    assert rows["reference"].unique(maintain_order=True).to_list() == list(KINDS)
    zero = inputs.runs.filter(ablation="zero")["run_id"].item()
    influence = inputs.influence.filter(run_id=zero, preset="es", token_group="rare").sort("rank")
    drawn = rows.filter(reference="zero", group="rare")
    assert drawn["influence"].to_list() == influence["influence"].gather(drawn["rank"] - 1).to_list()
    assert drawn.filter("head")["rank"].to_list() == [9]
    assert set(rows["run"]) == {shown[0].shown.index}


def test_the_page_tells_them_two_by_two_and_what_is_not_determined(page: Page) -> None:
    assert "Does it depend on what an activation is replaced by?" in page.text
    assert "mean rare 0.800 [0.700, 0.900] present 0.0020 12 [11, 13] 0.70" in page.text
    assert "zero rare – undecided 0.0020 not determined not determined" in page.text
    assert "mean resample:4 common 0.900 [0.850, 0.920] 8 41 [39, 43] – 12" in page.text


def test_with_the_other_runs_left_out_of_the_report_there_is_no_figure(inputs: ReportInputs) -> None:
    alone = inputs.influence.filter(pl.col("run_id") == inputs.runs["run_id"][-1])
    assert all("references" not in sets for sets in build_content(replace(inputs, influence=alone)).sets)
    assert "what an activation is replaced by" not in small_page().text


def test_estimates_are_told_by_decile_and_only_where_there_are_any() -> None:
    inputs = studied(make_inputs(steps=(0, 10), neurons=64, presets=("es",)))
    content = build_content(inputs)
    rows = content.sets[0]["attribution"]["es"]
    assert rows.select("run", "decile", "error").rows() == [(1, place, place / 100) for place in range(1, 11)]
    shown = Page(render_page(content)).text
    assert "44 [42, 46] of the first 50 neurons are among the first 50 by the estimate (of the first 10: 9)" in shown
    assert "the rank correlation of all is 0.970, and 3.1 % of the pairs" in shown.replace("\u00a0", " ")
    unasked = inputs.of_figures["attribution"].filter(pl.col("reason").is_not_null())
    without = replace(inputs, of_figures=dict(inputs.of_figures) | {"attribution": unasked})
    assert "attribution" not in build_content(without).sets[0]
    assert "What would a gradient have said" not in Page(render_page(build_content(without))).text
