"""The report's table of neurons that are for rare tokens: which, in what order, with what beside them."""

from pathlib import Path

import polars as pl
import pytest

from rare_tokens.analyses.report import ReportInputs, card_neurons, write_report
from rare_tokens.analyses.report.data.specificity import SPECIFIC, specific_neurons, specificity_counts
from rare_tokens.analyses.report.figures import inputs as inputs_of_figures
from studies.synthetic.report_inputs import make_inputs
from studies.synthetic.report_study import studied


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return studied(make_inputs((0, 64), 128)).conformed(inputs_of_figures())


def test_the_table_holds_the_neurons_called_rare_largest_ratio_first(inputs: ReportInputs) -> None:
    last = inputs.runs["run_id"][-1]
    found = specific_neurons(inputs).filter(run_id=last, preset="es")
    first = inputs.influence.filter(run_id=last, preset="es", token_group="rare").sort("rank")["neuron"].head(3)
    assert found["neuron"].to_list() == first.to_list()
    assert found["specific_ratio"].to_list() == pytest.approx([1.9, 1.8, 1.7])
    assert found["word_ratio"].to_list() == pytest.approx([1.9, 1.8, 1.7])
    assert found["rank_rare"].to_list() == [1, 2, 3]
    assert found["helps"].null_count() == 0
    many = inputs.specificity.with_columns(specific_to=pl.lit("rare"))
    assert len(specific_neurons(ReportInputs(**(vars(inputs) | {"specificity": many})), 2).filter(run_id=last)) == 6


def test_specific_neurons_have_cards_besides_the_first(inputs: ReportInputs) -> None:
    last = inputs.runs["run_id"][-1]
    influence = inputs.influence.filter(run_id=last, preset="es", token_group="rare").sort("rank")["neuron"].to_list()
    specific = inputs.specificity.filter(run_id=last, preset="es", matching="loss", specific_to="rare")
    other = specific.with_columns(neuron=pl.Series(influence[40:43]))
    chosen = card_neurons(inputs.runs, inputs.influence, other)[last]
    assert chosen == influence[:50]
    further = specific.with_columns(neuron=pl.Series(influence[52:55]))
    assert card_neurons(inputs.runs, inputs.influence, further)[last] == [*influence[:50], *influence[52:55]]
    assert SPECIFIC == 20


def test_counts_are_by_run_and_preset_and_say_why_there_are_none(inputs: ReportInputs) -> None:
    last = inputs.runs["run_id"][-1]
    assert specificity_counts(inputs.specificity)[last, "es"] == {
        "run_id": last, "preset": "es", "neurons": 6, "rare": 3, "common": 1, "rare_positions": 734,
        "common_positions": 20_145, "reason": None,
    }  # fmt: skip
    empty = {"ratio": None, "specific_to": None, "neuron": None, "reason": "no rare position"}
    none = inputs.specificity.head(1).with_columns(**{name: pl.lit(value) for name, value in empty.items()})
    (counted,) = specificity_counts(none).values()
    assert (counted["neurons"], counted["reason"]) == (0, "no rare position")


def test_the_page_says_how_many_and_shows_them(inputs: ReportInputs, tmp_path: Path) -> None:
    html = write_report(inputs, tmp_path).read_text(encoding="utf-8")
    assert "<b>3</b> of 6 neurons matter more for" in html
    assert 'data-rows="specific"' in html
    assert (tmp_path / "tables" / "specificity.csv").is_file()
    without = write_report(make_inputs((0,), 64), tmp_path / "without").read_text(encoding="utf-8")
    assert "The neurons that are for rare tokens" not in without
