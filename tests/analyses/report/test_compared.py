"""Runs of several series side by side: the overlay figure, the runs' lines, and what is known of each two."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from rare_tokens.analyses.report import ReportInputs, write_report
from rare_tokens.analyses.report.data.compared import MOST, compared_runs, labels, pair_rows
from rare_tokens.analyses.report.data.series import group_runs
from rare_tokens.analyses.report.figures import inputs as inputs_of_figures
from rare_tokens.analyses.report.page.content import build_content
from studies.synthetic.report_inputs import make_inputs


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    """Two models with two checkpoints each."""
    one, other = (make_inputs((0, 64), 128, model=model, seed=seed) for model, seed in (("novella", 0), ("other", 1)))
    frames = ("runs", "influence", "fits", "deviations", "tokens", "decisions")
    both = {name: pl.concat([getattr(one, name), getattr(other, name)], how="diagonal_relaxed") for name in frames}
    return replace(one, **both).conformed(inputs_of_figures())


def with_pairs(inputs: ReportInputs) -> tuple[ReportInputs, str, str]:
    one, other = (run.run_id for run in compared_runs(group_runs(inputs.runs, inputs.influence)))
    key = {"preset": "es", "token_group": "rare"}
    match = key | {"run_id": one, "other_run_id": other, "first": 14, "other_first": 12, "matched": 9, "expected": 1.3}
    match |= {"p_value": 1e-6, "head_correlation": 0.81, "layer_correlation": 0.4, "reason": None}
    overlap = key | {"run_id": other, "other_run_id": one, "other_preset": "es", "other_token_group": "rare"}
    overlap |= {"ranking": "influence", "other_ranking": "influence", "shared_10": 6, "shared_50": 33}
    overlap |= {"rank_correlation": 0.7}
    frames = {"matches": pl.DataFrame([match]), "overlaps": pl.DataFrame([overlap])}
    return replace(inputs, **frames).conformed(inputs_of_figures()), one, other


def test_the_run_that_each_series_shows_is_compared_and_one_series_is_not(inputs: ReportInputs) -> None:
    series = group_runs(inputs.runs, inputs.influence)
    assert [run.run_id for run in compared_runs(series)] == [one.shown.run_id for one in series]
    assert compared_runs(series[:1]) == []
    assert len(compared_runs(series * 10)) == MOST


def test_what_is_known_of_two_runs_is_found_in_either_order(inputs: ReportInputs) -> None:
    given, one, other = with_pairs(inputs)
    (row,) = pair_rows(given, compared_runs(group_runs(given.runs, given.influence)), "es")
    assert (row["run_id"], row["other_run_id"], row["token_group"]) == (one, other, "rare")
    assert (row["shared_50"], row["matched"], row["first"]) == (33, 9, 14)
    assert pair_rows(given, compared_runs(group_runs(given.runs, given.influence)), "nc") == []


def test_the_figure_is_drawn_once_and_the_page_has_both_tables(inputs: ReportInputs, tmp_path: Path) -> None:
    given, _one, _other = with_pairs(inputs)
    content = build_content(given)
    assert ["compared" in found for found in content.sets] == [True, False]
    drawn = content.sets[0]["compared"]["es"]
    assert drawn["curve"].n_unique() == 2
    assert set(drawn["group"]) == {"rare", "common"}
    html = write_report(given, tmp_path).read_text(encoding="utf-8")
    assert html.count("Beside the other runs") == 1
    assert "9 of 14 (1.3 by chance)" in html
    assert '<th scope="row">novella, seed 0</th><td>other, seed 1</td>' in html
    alone = write_report(make_inputs((0, 64), 64), tmp_path / "alone").read_text(encoding="utf-8")
    assert "Beside the other runs" not in alone


def test_a_curve_is_named_by_what_tells_it_from_the_others() -> None:
    base = {"model": "m", "revision": "r", "layer": 3, "ablation": "mean", "corpus": "c", "seed": 0, "run_id": "x"}
    assert labels([base, base | {"seed": 1}]) == ["seed 0", "seed 1"]
    assert labels([base, base | {"layer": 2, "model": "n"}]) == ["m, layer 3", "n, layer 2"]
    assert labels([base, base | {"run_id": "y"}]) == ["x", "y"]
    three = [base, base | {"model": "n"}, base | {"model": "n", "run_id": "z"}]
    assert labels(three) == ["x", "x", "z"]
