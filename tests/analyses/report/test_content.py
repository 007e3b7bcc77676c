"""The report's page: what it says of the numbers, and what it says where there are none."""

import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rare_tokens.analyses.report import ReportInputs, write_report
from rare_tokens.analyses.report.data.rows import top_row
from rare_tokens.analyses.report.data.series import group_runs, presets
from rare_tokens.analyses.report.data.summary import group_summaries, pair_summaries
from rare_tokens.analyses.report.data.text import inline_json, milli, number, signed
from rare_tokens.analyses.report.page.content import Content, build_content
from rare_tokens.analyses.report.page.page import page_data, render_page
from rare_tokens.common.errors import UserError
from studies.synthetic.report_inputs import make_inputs
from tests.support.report_page import Page, page_of, small, small_page

TEXTS = ("influence", "deviation")


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return make_inputs()


@pytest.fixture(scope="module")
def content(inputs: ReportInputs) -> Content:
    return build_content(inputs)


@pytest.fixture(scope="module")
def html(content: Content) -> str:
    return render_page(content)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


# ---- what it says ----


def test_the_finding_tells_the_numbers_of_the_last_checkpoint(inputs: ReportInputs, page: Page) -> None:
    last = inputs.influence.filter(pl.col("run_id").str.contains("step3979"), preset="es", token_group="rare")
    top = last.sort("influence").row(-1, named=True)
    assert f"{number(top['influence'])} nats" in page.text
    assert f"neuron {top['neuron']}" in page.text
    fit = inputs.fits.filter(pl.col("run_id").str.contains("step3979"), preset="es", token_group="rare")
    assert f"on rare tokens influence falls from {number(top['influence'])} at rank 1" in page.text
    assert f"κ = {number(fit['kappa'][0])}" in page.text
    assert "no interval is stored" in page.text
    assert "was not tested (`analyze` does it)" in page.text


def test_intervals_are_shown_where_there_are_any() -> None:
    shown = small_page(intervals=True)
    fits = small().fits.filter(pl.col("run_id").str.contains("step10"), token_group="rare")
    kappa = fits["kappa"][0]
    assert f"[{number(kappa - 0.05)}, {number(kappa + 0.06)}]" in shown.text
    assert "14 neurons" not in small_page().text
    assert "[12, 17]" in shown.text
    assert "[38\u00a0%, 43\u00a0%]" in shown.text
    assert "brackets are 95 % intervals" in shown.text
    assert "no interval is stored" not in shown.text


def test_the_answer_and_the_table_say_what_was_decided() -> None:
    shown = small_page(intervals=True).text
    said = "Yes: 14 [12, 15] of the 64 neurons in layer 3 of novella form a shelf for rare words, 2.3 [2.0, 2.6] times"
    assert said + " above the power law of those that follow (p = 0.0020); for common words it is undecided" in shown
    assert "present (shelf)" in shown
    assert "not tested" not in shown
    assert "not tested" in small_page().text


def test_what_is_not_determined_is_no_estimate() -> None:
    shown = small_page(intervals=True).text
    assert "neurons of the head 14 [12, 15] not determined" in shown
    assert "[5, 38]" not in shown
    assert "Rare minus common: how the heads differ is not determined , κ is" in shown
    assert "Of the 14 neurons of the rare head, 11 are among the first 14 for common tokens" in shown
    assert "Rare minus common" not in small_page().text


def test_printed_values_of_another_model_say_so(content: Content, page: Page) -> None:
    compared = content.tables["measured_beside_printed"]
    kappa = compared.filter(quantity="kappa", preset="es").tail(1).row(0, named=True)
    assert (kappa["printed"], kappa["plus_minus"], kappa["same_model"]) == (1.84, 0.12, False)
    assert "1.84 ± 0.12" in page.text
    assert "a different model" in page.text


def test_a_printed_value_of_the_same_model_is_not_called_another() -> None:
    inputs = small(model="EleutherAI/pythia-410m")
    printed = inputs.published.with_columns(model=pl.lit("Pythia-410M"))
    compared = build_content(replace(inputs, published=printed)).tables["measured_beside_printed"]
    assert compared.height > 0
    assert compared["same_model"].all()


def test_summaries_count_what_the_frames_hold() -> None:
    inputs = small().conformed()
    row = group_summaries(inputs).filter(pl.col("run_id").str.contains("step10"), token_group="rare").row(0, named=True)
    same = (pl.col("run_id") == row["run_id"], pl.col("token_group") == "rare")
    influence = inputs.influence.filter(same).sort("rank")
    deviation = inputs.deviations.filter(same)["deviation"]
    assert row["top_neuron"] == influence["neuron"][0]
    assert row["top_influence"] == influence["influence"].max()
    first = inputs.deviations.filter(same, pl.col("rank") == 1)["deviation"]
    assert row["top_deviation"] == first[0]
    assert row["neurons_above_0_5"] == (deviation > 0.5).sum()
    assert row["share_within_0_1"] == pytest.approx((deviation.abs() < 0.1).mean())
    assert row["boost_in_top"] + row["suppress_in_top"] == 6  # a tenth of 64 neurons
    assert row["top_percent_share"] == pytest.approx(influence["influence"][0] / influence["influence"].sum())


def test_shared_neurons_are_those_in_both_tops() -> None:
    inputs = small().conformed()
    pair = pair_summaries(inputs).filter(pl.col("run_id").str.contains("step10")).row(0, named=True)
    run = inputs.influence.filter(pl.col("run_id").str.contains("step10"))
    tops = [set(run.filter((pl.col("rank") <= 6) & (pl.col("token_group") == g))["neuron"]) for g in ("rare", "common")]
    assert pair["shared"] == len(tops[0] & tops[1])
    assert pair["by_chance"] == pytest.approx(36 / 64)


def test_the_table_of_neurons_shows_the_first_twenty_by_rank(inputs: ReportInputs, content: Content) -> None:
    run_id = content.series[0].shown.run_id
    rows = content.top[run_id, "es"]
    ranked = inputs.influence.filter(run_id=run_id, preset="es", token_group="rare").sort("rank")
    assert [row["neuron"] for row in rows] == ranked["neuron"][:20].to_list()
    assert all(len(row["raises"]) == 5 for row in rows)


def test_checkpoints_stand_in_training_order_whatever_the_order_of_the_rows(inputs: ReportInputs) -> None:
    shuffled = inputs.runs.sample(fraction=1.0, shuffle=True, seed=3)
    series = group_runs(replace(inputs, runs=shuffled).conformed().runs, inputs.influence)
    assert [run.revision for run in series[0].runs] == [
        "step0",
        "step64",
        "step256",
        "step1024",
        "step2048",
        "step3979",
    ]
    assert series[0].shown.revision == "step3979"


def test_main_counts_as_later_than_any_numbered_checkpoint() -> None:
    inputs = small()
    runs = inputs.runs.with_columns(revision=pl.Series(["main", "step10"]), training_step=pl.Series([None, 10]))
    series = group_runs(replace(inputs, runs=runs).conformed().runs, inputs.influence)
    assert [run.revision for run in series[0].runs] == ["step10", "main"]


def test_several_models_get_a_section_each_and_a_table_over_all() -> None:
    one, other = small(), small(model="stories260K", seed=1)
    frames = ("runs", "influence", "fits", "deviations", "tokens", "quality")
    both = replace(one, **{name: pl.concat([getattr(one, name), getattr(other, name)]) for name in frames})
    shown = page_of(both)
    assert "The series at a glance" in shown.text
    assert [value for _, name, value in shown.attributes if name == "data-series"] == ["0", "1"]


def test_presets_begin_with_es(inputs: ReportInputs) -> None:
    assert presets(inputs.influence, inputs.fits) == ["es", "nc", "ds"]


def test_provenance_tells_hashes_seed_tolerance_and_the_command(page: Page) -> None:
    for said in (
        "ab" * 8,
        "Self-check, numeric",
        "1.0\u00a0×\u00a010⁻⁶",
        "duckdb 2.0.0",
        "35 % of its types occur once",
    ):
        assert said in page.text
    lines = ("--model novella", "--corpus c4-sample", "--frequencies novella-training.npy", "--effects loss,direct")
    command = " \\ ".join(["python cli.py ingest", *lines, "--seed 0", "--revision step0"])
    assert command in page.text, "one line for each option"
    assert "/home/someone" not in page.text


def test_failed_checks_come_first_and_are_counted(page: Page) -> None:
    assert "18 of 24 checks passed" in page.text
    assert page.text.index("frequencies sum to 1") < page.text.index("delta_loss is finite")


# ---- what the page's script is given ----


def test_every_number_that_the_script_writes_comes_with_its_text(inputs: ReportInputs, content: Content) -> None:
    given = page_data(content)
    last = content.series[0].shown
    curve = given["runs"][last.index]["curves"]["es"]["rare"]
    key = {"run_id": last.run_id, "preset": "es", "token_group": "rare"}
    influence = inputs.influence.filter(**key).sort("rank")
    deviation = inputs.deviations.filter(**key).sort("rank")["deviation"]
    assert curve["neuron"] == influence["neuron"].to_list()
    assert list(accumulate(curve["rank"])) == influence["rank"].to_list()
    packed = 10 ** (np.cumsum(curve["log10"]) / 1e5)
    assert packed == pytest.approx(influence["influence"].to_numpy(), rel=2e-5)
    assert np.cumsum(curve["deviation"]) / 1e5 == pytest.approx(deviation.to_numpy(), abs=1e-5)
    texts = {name: [given[f"{name}s"][code] for code in accumulate(curve[f"{name}_text"])] for name in TEXTS}
    assert texts["influence"] == [milli(value) for value in influence["influence"]]
    assert texts["deviation"] == [signed(value) for value in deviation]


def test_the_rows_of_every_checkpoint_are_those_that_the_page_writes_for_the_one_shown(content: Content) -> None:
    given = page_data(content)
    assert {name: len(given["columns"][name]) for name in given["columns"]} == {
        "top": 11, "specific": 8, "sample": 7,
    }  # fmt: skip
    for run in content.series[0].runs:
        for preset in content.presets:
            tables = {name: found[preset] for name, found in given["runs"][run.index]["tables"].items()}
            assert [int(row[0]) for row in tables["top"]] == [row["neuron"] for row in content.top[run.run_id, preset]]
            assert [len(row) for row in tables["sample"]] == [7] * 16
            for packed, row in zip(tables["top"], content.rows["top"][run.run_id, preset], strict=True):
                assert packed[:9] == row[:9]
                assert [[given["texts"][code] for code in cell] for cell in packed[9:]] == row[9:]


def test_a_neuron_that_only_one_group_has_and_a_ratio_of_nothing_have_dashes() -> None:
    names = ("shown_role", "settled_role", "rank", "influence", "deviation", "regime")
    nothing = {f"{name}_rare": None for name in names}
    common = {
        "shown_role_common": None,
        "settled_role_common": None,
        "rank_common": 1234,
        "influence_common": 0.0,
        "deviation_common": -0.5,
    }
    row = {"neuron": 7, "ratio": float("inf"), "regime_common": None, "raises": None, "lowers": ["a"]}
    cells = top_row(nothing | common | row)
    assert cells == ["7", "–", "–", "–", "–", "1,234", ["0", 0.0], "–", "–", [], ["a"]]


# ---- what is not there ----


def test_a_fit_that_could_not_be_made_shows_its_reason() -> None:
    inputs = small()
    rare = pl.col("token_group") == "rare"
    numbers = [pl.when(~rare).then(pl.col(name)) for name in ("kappa", "beta", "r2", "first_rank", "last_rank")]
    fits = inputs.fits.with_columns(*numbers, reason=pl.when(rare).then(pl.lit("fewer than 30 ranks above zero")))
    deviations = inputs.deviations.with_columns(deviation=pl.when(~rare).then("deviation"), regime=None)
    shown = page_of(replace(inputs, fits=fits, deviations=deviations))
    assert "no power law for rare tokens (fewer than 30 ranks above zero)" in shown.text
    assert "no fit: fewer than 30 ranks above zero" in shown.text


def test_an_empty_group_shows_its_reason() -> None:
    inputs = small()
    common = pl.col("token_group") == "common"
    reason = "the count source holds fewer than 10 M tokens"
    fits = inputs.fits.with_columns(
        *(pl.when(common).then(name).alias(name) for name in ("kappa", "beta", "r2", "first_rank", "last_rank")),
        reason=pl.when(~common).then(pl.lit(reason)),
    )
    frames = {"influence": inputs.influence.filter(common), "deviations": inputs.deviations.filter(common)}
    content = build_content(replace(inputs, fits=fits, **frames))
    shown = Page(render_page(content))
    assert f"Nothing can be said of rare words in layer 3 of novella: {reason}." in shown.text
    assert f"empty: {reason}" in shown.text
    assert content.top[content.series[0].shown.run_id, "es"][0]["rank_common"] == 1


def test_groups_empty_on_both_sides_still_make_a_page() -> None:
    inputs = small()
    nothing = inputs.influence.with_columns(influence=pl.lit(None, dtype=pl.Float64), positions=pl.lit(0))
    fits = inputs.fits.with_columns(kappa=None, beta=None, r2=None, first_rank=None, last_rank=None)
    shown = page_of(replace(inputs, influence=nothing, fits=fits, deviations=inputs.deviations.clear()))
    assert shown.text.count("no position of this run falls into the group") >= 4


def test_a_missing_checkpoint_is_named_and_passed_over() -> None:
    inputs = small()
    gone = inputs.runs["run_id"][0]
    runs = inputs.runs.with_columns(
        status=pl.when(pl.col("run_id") == gone).then(pl.lit("missing")).otherwise("status"),
        status_reason=pl.when(pl.col("run_id") == gone).then(pl.lit("no weights at this revision")),
    )
    frames = {
        name: getattr(inputs, name).filter(pl.col("run_id") != gone) for name in ("influence", "fits", "deviations")
    }
    shown = page_of(replace(inputs, runs=runs, **frames))
    assert "Without effects, so in no figure: step0 (missing: no weights at this revision)" in shown.text


def test_a_run_without_any_effect_still_makes_a_page() -> None:
    inputs = small()
    frames = {name: getattr(inputs, name).clear() for name in ("influence", "fits", "deviations", "tokens")}
    rejected = inputs.runs.with_columns(status=pl.lit("rejected"), status_reason=pl.lit("losses are not finite"))
    shown = page_of(replace(inputs, runs=rejected, **frames))
    assert "nothing to show" in shown.text
    assert "losses are not finite" in shown.text


def test_influence_of_zero_or_not_finite_is_left_out_of_the_figure_only() -> None:
    inputs = small()
    values = pl.when(pl.col("rank") == 64).then(0.0).when(pl.col("rank") == 63).then(float("nan"))
    content = build_content(
        replace(inputs, influence=inputs.influence.with_columns(influence=values.otherwise("influence")))
    )
    curve = page_data(content)["runs"][1]["curves"]["es"]["rare"]
    assert curve["log10"][-1] is None
    assert len(curve["log10"]) == 63
    json.loads(inline_json(page_data(content)))


def test_columns_that_are_missing_are_named() -> None:
    inputs = small()
    with pytest.raises(ValueError, match="fits lacks kappa"):
        build_content(replace(inputs, fits=inputs.fits.drop("kappa")))


def test_no_run_at_all_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run to report on"):
        write_report(replace(small(), runs=small().runs.clear()), tmp_path / "report")
    assert not (tmp_path / "report").exists()
