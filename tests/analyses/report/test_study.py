"""The report's tables beside the papers, cards, small figures and files: what they say, and where there is nothing."""

import base64
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rare_tokens.analyses.report import ReportInputs, card_neurons, write_report
from rare_tokens.analyses.report.data.cards import address as cards_address
from rare_tokens.analyses.report.data.histogram import densities
from rare_tokens.analyses.report.data.passages import MISSING, pack_passages
from rare_tokens.analyses.report.data.verdicts import same_model, verdict
from rare_tokens.analyses.report.figures import figures
from rare_tokens.analyses.report.page.content import Content, build_content
from rare_tokens.analyses.report.page.page import page_data, render_page
from studies.synthetic.report_inputs import HOSTILE, make_inputs
from studies.synthetic.report_study import studied, value
from tests.support.report_page import Page, page_of, small, small_page


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return studied(small(intervals=True))


@pytest.fixture(scope="module")
def content(inputs: ReportInputs) -> Content:
    return build_content(inputs)


@pytest.fixture(scope="module")
def html(content: Content) -> str:
    return render_page(content)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


# ---- verdicts ----


@pytest.mark.parametrize(
    ("low", "high", "printed", "effect", "said"),
    [
        (0.03, 0.05, {"printed": 0.036}, 0.1, "agrees"),
        (0.03, 0.05, {"printed": 0.05}, 0.1, "agrees"),  # the end counts
        (0.03, 0.05, {"printed": 0.06}, 0.1, "differs"),
        (0.03, 0.05, {"printed": 0.06, "plus_minus": 0.01}, 0.1, "agrees"),
        (0.03, 0.05, {"printed": 0.07, "plus_minus": 0.01}, 0.1, "differs"),
        (0.03, 0.05, {"printed": 0.001, "printed_to": 0.03}, 0.1, "agrees"),
        (0.03, 0.05, {"printed": 0.04}, 0.019, "cannot tell"),  # wider than the effect, though it holds the value
        (0.03, 0.05, {"printed": 9.0}, 0.019, "cannot tell"),
        (0.03, 0.05, {"printed": 0.04}, None, "agrees"),
        (1.2, 1.9, {"printed": 2.0, "relation": "<"}, None, "agrees"),
        (2.1, 2.9, {"printed": 2.0, "relation": "<"}, None, "differs"),
        (0.6, 0.9, {"printed": 0.5, "relation": ">"}, None, "agrees"),
        (0.1, 0.4, {"printed": 0.5, "relation": ">"}, None, "differs"),
        (None, 0.05, {"printed": 0.04}, 0.1, "cannot tell"),
    ],
)
def test_a_verdict(low: float | None, high: float, printed: dict[str, object], effect: float | None, said: str) -> None:
    row = {
        "measured": 0.04,
        "low": low,
        "high": high,
        "printed_to": None,
        "plus_minus": None,
        "relation": "=",
    } | printed
    found, why = verdict(row, effect)
    assert found == said
    assert why


def test_nothing_measured_has_its_reason() -> None:
    assert verdict({"measured": None, "reason": "fewer than 50"}, 0.1) == ("not measured", "fewer than 50")


@pytest.mark.parametrize(
    ("run", "printed", "same"),
    [
        ("EleutherAI/pythia-410m", "Pythia-410M", True),
        ("gpt2-xl", "GPT2-XL", True),
        ("openai-community/gpt2", "GPT2-Small", True),
        ("gpt2", "GPT2-XL", False),
        ("novella", None, False),
        ("pythia-410m-deduped", "Pythia-410M", False),
    ],
)
def test_which_models_are_the_same(run: str, printed: str | None, same: bool) -> None:
    assert same_model(run, printed) is same


# ---- the papers' tables ----


def compared_with(model: str, *rows: dict[str, object]) -> Content:
    inputs = small(model=model)
    last = inputs.runs["run_id"][-1]
    return build_content(replace(inputs, values=pl.DataFrame([row | {"run_id": last} for row in rows])))


@pytest.mark.parametrize("runs", [1, 2])
def test_p_says_over_what_it_is_corrected_and_where_it_could_not_be(runs: int) -> None:
    inputs = make_inputs(steps=(0, 10)[:runs], neurons=64, presets=("es",))
    last = inputs.runs["run_id"][-1]
    short = "100 random groups cannot reach 0.05 over 6 tests: 119 are needed"
    rows = [
        value(last, "boost", 0.036, p_value=None, p_alone=0.0099, tests=6, p_reason=short),
        value(last, "suppress", 0.04, p_value=0.031, p_alone=0.0052, tests=6, p_reason=None),
        value(last, "boost", 0.1, place="table 3", quantity="weight_cosine_similarity"),
    ]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    html = render_page(build_content(replace(inputs, values=frame)))
    text = re.sub(r"\s+", " ", html)
    assert f'title="{short}">0.0099 <span class="reason">uncorrected</span>' in text
    assert 'class="n">0.031</td>' in text
    one, several = "the groups of one preset and positions.", f"positions of the {runs} runs on this page."
    assert f"after Holm over 6 tests of each kind: {one}" in text or runs > 1
    assert several in text or runs == 1
    assert "p: against random groups, after Holm. Where" in text, "a table without the size of its family"


def shown_tables(content: Content) -> list[dict[str, Any]]:
    return content.papers[content.series[0].shown.run_id]


def test_a_run_of_the_papers_model_is_judged_by_its_own_column() -> None:
    content = compared_with("EleutherAI/pythia-70m", value("", "boost", 0.028), value("", "suppress", 0.2))
    table = shown_tables(content)[0]
    boost, suppress = table["rows"]
    assert (boost["same_model"], boost["printed"]["Pythia-70M"]["printed"]) == (True, 0.028)
    # 0.028 against random groups of 0.011: an effect of 0.017, and an interval of 0.02 that is wider.
    assert (boost["verdict"], suppress["verdict"]) == ("cannot tell", "differs")


def test_a_run_of_another_model_is_judged_by_the_range_and_the_page_says_so(page: Page, content: Content) -> None:
    boost = shown_tables(content)[0]["rows"][0]
    assert (boost["group_name"], boost["same_model"], len(boost["printed"])) == ("boost", False, 5)
    assert "No paper measured this model" in page.text
    assert "inside their range" in page.text
    table = shown_tables(compared_with("novella", value("", "boost", 0.036, low=0.0355, high=0.0365)))[0]
    assert table["rows"][0]["verdict"] == "agrees"
    table = shown_tables(compared_with("novella", value("", "boost", 0.05, low=0.0495, high=0.0505)))[0]
    assert table["rows"][0]["verdict"] == "differs"


def test_random_groups_are_judged_by_their_spread(content: Content) -> None:
    row = next(row for row in shown_tables(content)[0]["rows"] if row["group_name"] == "random")
    assert (row["low"], row["high"]) == (pytest.approx(0.012 - 1.96 * 0.003), pytest.approx(0.012 + 1.96 * 0.003))


def test_every_checkpoint_has_its_tables_and_only_the_shown_ones_are_seen(content: Content) -> None:
    series = content.series[0]
    assert list(content.papers) == [run.run_id for one in content.series for run in one.measured]
    found = re.findall(r'<div data-run="(\d+)"( hidden)?>\s*<p class="prose note">At (\w+)<', render_page(content))
    expected = [(str(run.index), " hidden" * (run != series.shown), run.revision) for run in series.measured]
    assert found == expected
    assert len(found) > 1


def test_there_is_no_score_where_no_paper_measured_the_model(page: Page) -> None:
    assert "rows about this model" not in page.text
    measured = compared_with("gpt2", value("", "boost", 0.036, low=0.0355, high=0.0365))
    rows = [row for table in shown_tables(measured) for row in table["rows"] if row["same_model"]]
    assert len(rows) == 1
    assert f"Of {len(rows)} row" in Page(render_page(measured)).text


def test_a_table_without_rows_says_what_makes_them(page: Page) -> None:
    assert "NC table 2." in page.text
    assert "ingest --attention measures it" in page.text
    assert "analyze computes it" in small_page().text


def test_a_group_that_could_not_be_formed_shows_its_reason(page: Page) -> None:
    assert "fewer than 50 neurons suppress" in page.text


def test_a_table_number_never_stands_beside_another_tables(content: Content) -> None:
    compared = content.tables["measured_beside_printed"].filter(pl.col("place").str.starts_with("table"))
    assert compared.select("paper", "place", "quantity").unique().sort("paper", "place", "quantity").rows() == [
        ("ES", "table 1", "activation_correlation"),
        ("ES", "table 3", "weight_cosine_similarity"),
        ("ES", "table 4", "hill_alpha"),
        ("NC", "table 1", "signed_modularity"),
    ]


# ---- cards ----


def test_cards_are_of_the_plateau_or_the_first_50_and_of_specific_ones(inputs: ReportInputs, content: Content) -> None:
    last = inputs.runs["run_id"][-1]
    first = inputs.influence.filter(pl.col("token_group") == "rare", run_id=last, preset="es").sort("rank")["neuron"]
    none = inputs.specificity.clear()
    assert card_neurons(inputs.runs, inputs.influence, none) == {last: first.head(50).to_list()}
    decision = {"run_id": last, "preset": "es", "token_group": "rare", "decision": "present", "break_rank": 55}
    plateau = pl.DataFrame([decision])
    assert card_neurons(inputs.runs, inputs.influence, none, plateau) == {last: first.head(55).to_list()}
    absent = plateau.with_columns(decision=pl.lit("absent"))
    assert card_neurons(inputs.runs, inputs.influence, none, absent) == {last: first.head(50).to_list()}
    assert [card.neuron for card in content.cards[0]] == first.head(3).to_list()
    assert [row["revision"] for row in content.cards[0][0].history] == ["step0", "step10"]


def test_where_there_are_too_many_cards_each_series_has_its_share(inputs: ReportInputs) -> None:
    last = inputs.runs["run_id"][-1]
    first = inputs.influence.filter(token_group="rare", run_id=last, preset="es").sort("rank")["neuron"].to_list()
    specific = inputs.specificity.filter(run_id=last, preset="es", matching="loss").head(1)
    far = pl.concat([specific] * 4).with_columns(
        neuron=pl.Series(first[60:64]), specific_to=pl.lit("rare"), ratio=pl.Series([4.0, 3.0, 2.0, 1.5])
    )
    assert card_neurons(inputs.runs, inputs.influence, far) == {last: [*first[:50], *first[60:64]]}
    assert card_neurons(inputs.runs, inputs.influence, far, total=8) == {last: [*first[:6], *first[60:62]]}


def test_where_no_position_is_rare_cards_are_of_the_first_on_common_tokens(inputs: ReportInputs) -> None:
    common = inputs.influence.filter(token_group="common")
    first = common.filter(run_id=inputs.runs["run_id"][-1], preset="es").sort("rank")["neuron"].head(50).to_list()
    assert list(card_neurons(inputs.runs, common, inputs.specificity.clear()).values()) == [first]
    assert card_neurons(inputs.runs, inputs.influence.clear(), inputs.specificity.clear()) == {}


def test_a_card_has_effects_by_preset_specificity_spread_and_neighbours(page: Page, content: Content) -> None:
    card = content.cards[0][0]
    assert [(row["preset"], row["token_group"]) for row in card.facts][:2] == [("es", "rare"), ("es", "common")]
    assert len(card.facts) == 2
    assert [row["preset"] for row in card.specificity] == ["es"]
    assert card.moments["activation", "rare"]["skew"] == 2.5
    assert [row["address"] for row in content.cards[0][1].neighbours["weight"]] == [card.address, None]
    assert card.address == f"n{card.neuron}"
    assert cards_address(1, 42) == "s1-n42"
    assert "times the layer’s median, p = 0.0040: specific to rare" in page.text


def test_passages_are_packed_as_shares_of_the_largest(content: Content) -> None:
    texts: list[str] = []

    def code(text: str) -> int:
        texts.append(text)
        return len(texts) - 1

    rows = content.cards[0][0].passages
    packed = pack_passages(rows, code)
    assert packed is not None
    place = {name: column[0] for name, column in packed["places"].items()}
    values = np.frombuffer(base64.b64decode(place["delta_loss"]), dtype="<i2")
    assert values[0] == MISSING
    shown = values[1:] / 32767 * packed["delta_loss"]
    np.testing.assert_allclose(shown, rows[0]["delta_losses"][1:], atol=packed["delta_loss"] / 60_000)
    assert packed["delta_loss"] == pytest.approx(max(abs(v) for row in rows for v in row["delta_losses"] if v), 1e-5)
    assert place["at"] == 4
    codes = np.frombuffer(base64.b64decode(place["tokens"][1:]), dtype=f"<u{place['tokens'][0]}")
    assert codes.tolist() == list(range(len(HOSTILE)))
    texts[:] = ["filler"] * 70_000
    assert pack_passages(rows[:1], code)["places"]["tokens"][0].startswith("4")  # type: ignore[index]
    assert place["said"] == "2.50 (the largest), Δ −250"
    assert "\\x1b[31mred\\x1b[0m" in texts
    assert max(map(len, texts)) < 100, "cut, and said so"
    assert pack_passages([], code) is None


def test_hostile_contexts_are_inert(page: Page, html: str, content: Content) -> None:
    shown = page.text
    assert "\\x1b[31mred" in shown
    assert "\\u202eevil" in shown
    assert "<script>window.hacked" in shown  # as text
    assert [attributes for attributes, _ in page.scripts] == [{"type": "application/json", "id": "data"}, {}, {}]
    assert not {"\x1b", "\u202e", "\x00", "\u2028"} & set(html)
    assert not [item for item in page.attributes if item[1].startswith("on")]
    assert max(len(row["text"]) for card in content.cards[0] for row in card.contexts["helps"]) < 1000
    assert len(HOSTILE) > 10


def test_a_histogram_is_of_densities_so_that_few_rare_and_many_other_positions_compare() -> None:
    rows = [(-1.0, 1000, 10), (0.0, 99, 9), (1.0, 0, 0), (2.0, 1, 1)]
    found = densities([{"low": low, "high": low + 1, "positions": n, "rare": rare} for low, n, rare in rows])
    assert found is not None
    share = {"rare": [10 / 20, 9 / 20, 0, 1 / 20], "others": [990 / 1080, 90 / 1080, 0, 0]}
    top = 990 / 1080
    for name, shares in share.items():
        heights = [1 + math.log10(one / top) / 4 if one else 0.0 for one in shares]
        assert found[name] == pytest.approx(heights)
    assert (found["low"], found["high"], found["zero"]) == (-1.0, 3.0, 0.25)
    assert found["positions"] == {"rare": 20, "others": 1080}
    assert densities([]) is None
    assert densities([{"low": 0.0, "high": 1.0, "positions": 0, "rare": 0}]) is None


# ---- figures ----


def test_every_small_figure_has_its_rows(content: Content) -> None:
    packed = page_data(content)["series"][0]
    small = {"kappa", "spread", "slopes", "alpha", "suppress", "sensitivity", "references", "attribution", "layers"}
    assert set(packed["sets"]) == small
    assert set(packed["sets"]) < set(packed["figures"])
    spread = packed["sets"]["spread"]["es"]
    assert len(spread["influence"]) == 2 * 2 * 4  # checkpoints × groups × places of the ranking
    slopes = packed["sets"]["slopes"]["es"]
    assert slopes["log_rank"][0] == 0
    assert set(slopes["run"]) == {0, 1}


def test_charts_one_below_the_other_have_heights_for_the_script(content: Content) -> None:
    stacked = {name for name, specification in content.figures[0].items() if "vconcat" in specification}
    assert stacked == {figure.name for figure in figures() if figure.heights} == {"influence", "slopes"}
    assert set(content.figures[0]) == {figure.name for figure in figures()} - {"compared"}  # of several series


def test_kappa_is_that_of_the_fits_at_every_checkpoint(inputs: ReportInputs, content: Content) -> None:
    rows = content.sets[0]["kappa"]["es"]
    assert rows.select("step", "group").rows() == [
        (step, group) for step in ("step0", "step10") for group in ("rare", "common")
    ]
    fits = dict(inputs.fits.select(pl.col("run_id") + pl.col("token_group"), "kappa").iter_rows())
    ids = dict(zip(("step0", "step10"), inputs.runs["run_id"], strict=True))
    for row in rows.iter_rows(named=True):
        kappa = fits[ids[row["step"]] + row["group"]]
        assert (row["kappa"], row["low"], row["high"]) == pytest.approx((kappa, kappa - 0.05, kappa + 0.06))


def test_every_row_of_a_figure_over_training_is_at_a_checkpoint_of_the_series(content: Content) -> None:
    names = {run.label for run in content.series[0].measured}
    for name, rows in content.sets[0].items():
        for frame in rows.values():
            if "step" in frame.columns:
                assert set(frame["step"]) == names, name


def test_places_of_the_ranking_are_those_of_the_ranks(inputs: ReportInputs, content: Content) -> None:
    rows = content.sets[0]["spread"]["es"].filter(step="step10", group="rare")
    ranked = inputs.influence.filter(pl.col("token_group") == "rare", run_id=inputs.runs["run_id"][-1], preset="es")
    influence = ranked.sort("rank")["influence"]
    found = dict(rows.select("level", "influence").iter_rows())
    assert found["the first neuron"] == influence[0]
    assert found["first 10 %"] == influence[5]  # rank 6 of 64
    assert found["median"] == influence[31]


def test_a_single_run_has_no_figure_over_training(inputs: ReportInputs) -> None:
    last = pl.col("run_id") == inputs.runs["run_id"][-1]
    frames = {
        name: frame for name, frame in vars(inputs).items() if isinstance(frame, pl.DataFrame) and name != "published"
    }
    one = replace(inputs, **{name: frame.filter(last) for name, frame in frames.items()})
    assert set(build_content(one).sets[0]) == {"slopes", "suppress", "sensitivity", "attribution"}
    assert "Over training" not in page_of(one).text


def test_without_analyses_the_page_is_whole_and_names_what_is_missing() -> None:
    shown = small_page()
    assert "It cannot be asked of this report" in shown.text
    assert not [value for _, name, value in shown.attributes if name == "data-figure" and value == "alpha"]


@pytest.mark.slow
def test_figures_are_written_as_svg_and_png_with_their_rows(inputs: ReportInputs, tmp_path: Path) -> None:
    write_report(inputs, tmp_path)
    run_id = inputs.runs["run_id"][-1]
    names = {path.name.removeprefix(f"{run_id}-") for path in (tmp_path / "figures").iterdir()}
    stems = {"influence", "scatter", "kappa", "slopes", "suppress", "sensitivity", "attribution"}
    by_group = ("steps-influence", "steps-deviation", "spread", "references")
    stems |= {f"{name}-{group}" for name in by_group for group in ("rare", "common")}
    stems |= {"alpha-fix-finger", "alpha-half-of-the-spectrum", "layers-kappa", "layers-step"}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png", "csv")}
    svg = (tmp_path / "figures" / f"{run_id}-influence.svg").read_text(encoding="utf-8")
    assert len(pl.read_csv(tmp_path / "figures" / f"{run_id}-influence.csv")) == 2 * 64
    assert "#c24e00" in svg
    assert "var(" not in svg
    assert svg.count("<path") > 200  # 64 neurons, two groups, two panels
    assert (tmp_path / "figures" / f"{run_id}-alpha-fix-finger.png").read_bytes().startswith(b"\x89PNG")


# ---- several runs on the same positions ----


def test_pairs_of_runs_are_named_in_words(page: Page) -> None:
    assert "novella step0 on c4-sample novella step10 on c4-sample boost 900 0.25 [0.20, 0.30] 0.01 ± 0.02" in page.text
