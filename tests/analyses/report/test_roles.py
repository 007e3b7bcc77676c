"""Roles in the report: mixed wherever one is read of a neuron whose interval of mean Δ holds 0, in words."""

import polars as pl
import pytest

from rare_tokens.analyses.report import ReportInputs
from rare_tokens.analyses.report.data.roles import mean_with_interval, why_mixed
from rare_tokens.analyses.report.data.rows import top_row
from rare_tokens.analyses.report.data.summary import group_summaries
from rare_tokens.analyses.report.data.tables import all_neurons, top_neurons
from rare_tokens.analyses.report.page.content import Content, build_content
from rare_tokens.analyses.report.page.page import render_page
from studies.synthetic.report_study import studied
from tests.support.report_page import Page, small

ROW = {
    "role_rare": "boost",
    "settled_role_rare": "mixed",
    "mean_delta_loss_rare": 0.005,
    "mean_delta_low_rare": -0.0123,
    "mean_delta_high_rare": 0.02,
}


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return studied(small(intervals=True))


@pytest.fixture(scope="module")
def content(inputs: ReportInputs) -> Content:
    return build_content(inputs)


@pytest.fixture(scope="module")
def page(content: Content) -> Page:
    return Page(render_page(content))


def test_what_is_said_of_a_mixed_neuron_is_the_sign_of_its_mean_and_the_interval() -> None:
    said = "+5.00 [−12.3, +20.0] · 10⁻³ nats"
    assert mean_with_interval(ROW, "rare") == said
    assert why_mixed(ROW, "rare") == f"mean Δ on rare tokens {said}: boost by its sign alone"
    assert why_mixed(ROW | {"settled_role_rare": "boost"}, "rare") is None
    assert why_mixed(ROW | {"settled_role_rare": None}, "rare") is None
    assert mean_with_interval(ROW | {"mean_delta_low_rare": None}, "rare") is None


def test_every_third_neuron_is_mixed_in_the_table_with_its_mean_to_point_at(content: Content, page: Page) -> None:
    run_id = content.series[0].shown.run_id
    notes = []
    rows = zip(content.rows["top"][run_id, "es"], content.top[run_id, "es"], strict=True)
    for (_, role, *_), row in rows:
        sign = "boost" if row["mean_delta_loss_rare"] > 0 else "suppress"
        if row["rank_rare"] % 3:
            assert role == sign
            continue
        assert role[:2] == ["mixed", "mixed"], "the word, and what is sorted by"
        assert role[2].endswith(f"{sign} by its sign alone")
        notes.append(role[2])
    assert len(notes) == 6
    assert [text for tag, name, text in page.attributes if (tag, name) == ("td", "title") and text in notes] == notes
    assert "the 95 % interval of that mean change holds 0" in page.text


def test_points_of_mixed_neurons_have_the_letter_of_their_sign_in_capitals(content: Content) -> None:
    run = content.series[0].shown
    curve = content.points.packed["runs"][run.index]["curves"]["es"]["rare"]
    ranks = [sum(curve["rank"][: i + 1]) for i in range(len(curve["rank"]))]
    assert "".join(curve["role"]).lower().strip("bs") == ""
    assert [letter.isupper() for letter in curve["role"]] == [rank % 3 == 0 for rank in ranks]


def test_a_card_says_mixed_with_the_interval_at_every_checkpoint(content: Content, page: Page) -> None:
    cards = content.cards[0]
    third = next(card for card in cards if card.row and card.row["rank_rare"] == 3)
    (row,) = [row for row in third.facts if (row["preset"], row["token_group"]) == ("es", "rare")]
    assert row["mixed"]
    note = f"the interval of mean Δ holds 0; {row['role']} by its sign alone"
    assert ("span", "title", note) in page.attributes
    for card in cards:
        for row in card.history:
            assert (row["role"] == "mixed") == (row["rank"] % 3 == 0)


def test_tables_beside_the_page_keep_the_sign_and_say_mixed(inputs: ReportInputs) -> None:
    neurons = all_neurons(inputs.conformed())
    mixed = pl.col("settled_role") == "mixed"
    assert neurons.filter(mixed)["rank"].unique().sort().to_list() == list(range(3, 65, 3))
    assert set(neurons.filter(mixed)["role"]) == {"boost", "suppress"}
    assert neurons.filter(~mixed).select((pl.col("role") == pl.col("settled_role")).all()).item()
    assert (neurons.filter(mixed)["mean_delta_low"] * neurons.filter(mixed)["mean_delta_high"] < 0).all()
    assert set(group_summaries(inputs.conformed())["mixed_in_top"]) == {2}, "of the first 6"


def test_the_page_says_how_many_of_the_papers_groups_are_mixed(content: Content, page: Page) -> None:
    assert "(the 95 % interval of the mean holds 0); preset es: boost 9 of 50. The groups" in page.text
    assert "neuron_groups" in content.tables
    assert content.tables["neuron_groups"].height == 3 * len(content.series[0].runs)


def test_without_intervals_the_sign_is_shown_and_the_page_says_so() -> None:
    alone = small().conformed()
    top = top_neurons(alone)
    signs = top["mean_delta_loss_rare"].to_list()
    cells = [top_row(row)[1] for row in top.iter_rows(named=True)]
    assert cells == ["boost" if mean > 0 else "suppress" for mean in signs]
    assert group_summaries(alone)["mixed_in_top"].null_count() == 4
    content = build_content(small())
    assert not content.has_signs
    assert content.group_signs(content.series[0].shown.run_id) == {}
    page = Page(render_page(content))
    assert "a role is the sign of that mean, settled or not" in page.text
