"""The report: what its page says, that it loads and runs nothing of others', and that it is written whole or not."""

import base64
import errno
import hashlib
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from analyses.report import ReportInputs, write_report
from analyses.report.content import Content, build_content
from analyses.report.page import page_data, render_page
from analyses.report.points import curve_ranks, pack_points, sample_ranks
from analyses.report.series import group_runs, presets
from analyses.report.summary import group_summaries, pair_summaries
from analyses.report.text import inline_json, number, visible, visible_token
from common.errors import UserError
from tests.report_inputs import HOSTILE, make_inputs

MEGABYTE = 1_000_000
VOID = {"meta", "input", "br", "link", "img", "hr"}


class Page(HTMLParser):
    """A parsed page: every element closed in order, its attributes, its text, and the text of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self.open and self.open[-1] != "style":
            self.words.append(data)


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


def small(**changes: object) -> ReportInputs:
    return make_inputs(steps=(0, 10), neurons=64, presets=("es",), **changes)


def page_of(inputs: ReportInputs) -> Page:
    return Page(render_page(build_content(inputs)))


# ---- what it says ----


def test_the_finding_tells_the_numbers_of_the_last_checkpoint(inputs: ReportInputs, page: Page) -> None:
    last = inputs.influence.filter(pl.col("run_id").str.contains("step3979"), preset="es", token_group="rare")
    top = last.sort("influence").row(-1, named=True)
    assert f"{number(top['influence'])} nats" in page.text
    assert f"neuron {top['neuron']}" in page.text
    fit = inputs.fits.filter(pl.col("run_id").str.contains("step3979"), preset="es", token_group="rare")
    assert f"κ = {number(fit['kappa'][0])}" in page.text
    assert "no interval is stored" in page.text


def test_intervals_are_shown_where_there_are_any() -> None:
    shown = page_of(small(intervals=True))
    fits = small().fits.filter(pl.col("run_id").str.contains("step10"), token_group="rare")
    kappa = fits["kappa"][0]
    assert f"[{number(kappa - 0.05)}, {number(kappa + 0.06)}]" in shown.text
    assert "Brackets are 95 % intervals" in shown.text
    assert "no interval is stored" not in shown.text


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
    assert row["above_line"] == (deviation > 0.5).sum()
    assert row["share_small"] == pytest.approx((deviation.abs() < 0.1).mean())
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
    runs = inputs.runs.with_columns(revision=pl.Series(["main", "step10"]))
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
    for said in ("ab" * 8, "Self-check, numeric", "1.0 × 10⁻⁶", "duckdb 2.0.0", "35 % of its types occur once"):
        assert said in page.text
    command = "python cli.py ingest --model novella --corpus c4-sample --frequencies novella-training.npy"
    assert f"{command} --effects loss,direct --seed 0 --revision step0" in page.text
    assert "/home/someone" not in page.text


def test_failed_checks_come_first_and_are_counted(page: Page) -> None:
    assert "18 of 24 checks passed" in page.text
    assert page.text.index("frequencies sum to 1") < page.text.index("delta_loss is finite")


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
    assert f"could not be judged on rare tokens ({reason})" in shown.text
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


# ---- it needs nothing but itself, and runs nothing but its own scripts ----


def test_the_page_names_no_address_and_loads_nothing(page: Page, html: str) -> None:
    loading = {"src", "srcset", "data", "action", "formaction", "poster", "background", "ping"}
    assert [item for item in page.attributes if item[1] in loading] == []
    assert {value[0] for tag, name, value in page.attributes if name == "href"} == {"#"}
    own = html
    for attributes, text in page.scripts[1:2]:
        assert attributes == {}
        own = own.replace(text, "")
    assert re.findall(r"https?:|//[a-z]|@import|url\(|<link|<img|<iframe|import\(", own.replace("// ", "")) == []


def test_only_the_two_scripts_of_the_policy_can_run(page: Page) -> None:
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and value.startswith("default-src"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    running = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    assert {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running} == allowed
    assert len(running) == 2
    assert [item for item in page.attributes if item[1].startswith("on")] == []


def test_hostile_tokens_are_inert_wherever_they_stand(page: Page, html: str) -> None:
    data = next(text for attributes, text in page.scripts if attributes.get("type") == "application/json")
    assert data.isascii()
    assert not set("<>&") & set(data)
    texts = json.loads(data)["texts"]
    shown = [visible_token(text) for text in HOSTILE]
    assert set(shown) <= set(texts)
    for character in "\x00\x1b\u202e\u2028\u2029":
        assert character not in html
    for raw in HOSTILE[:2]:
        assert raw not in html
    assert "x" * 100 not in html
    assert "… (+9,999,968 characters)" in texts[texts.index(shown[9])]


def test_hostile_names_are_inert_too() -> None:
    name = '"><script>window.hacked = true</script>\u202e\udcff'
    inputs = small()
    runs = inputs.runs.with_columns(
        model=pl.lit(name[:-1]),
        corpus=pl.lit(name[:-1]),
        warnings=pl.lit(json.dumps([name])),
        options=pl.lit("[broken"),
    )
    shown = page_of(replace(inputs, runs=runs))
    assert len(shown.scripts) == 3
    assert "window.hacked" in shown.text
    assert "\u202e" not in shown.text


@given(st.text(max_size=60))
def test_visible_leaves_no_character_that_hides_or_reorders(text: str) -> None:
    shown = visible(text)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", shown)
    shown.encode("utf-8")
    assert len(shown) <= 32 * 10 + 40


def test_visible_token_draws_outer_spaces_and_keeps_scripts() -> None:
    assert visible_token(" the") == "␣the"
    assert visible_token("  ") == "␣␣"
    assert visible_token("日本語") == "日本語"
    assert visible_token("a b ") == "a b␣"
    assert visible_token("\u0301x").startswith("◌")
    assert visible_token(None) == "?"
    assert visible_token(" " * 1_000_000) == "␣" * 32 + "… (+999,968 characters)"


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner), max_leaves=8))
def test_inline_json_is_the_value_and_cannot_end_its_element(value: object) -> None:
    text = inline_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


@given(st.floats(min_value=1e-12, max_value=1e12), st.booleans())
def test_number_is_right_to_its_digits(value: float, negative: bool) -> None:
    signed = -value if negative else value
    mantissa, _, power = number(signed).replace("−", "-").replace(",", "").partition(" × 10")
    exponent = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
    assert float(mantissa) * 10.0**exponent == pytest.approx(signed, rel=0.0051)


# ---- size and thinning ----


@pytest.mark.parametrize("neurons", [1024, 3072])
def test_ten_checkpoints_stay_under_five_megabytes(neurons: int) -> None:
    html = render_page(build_content(make_inputs(tuple(range(10)), neurons)))
    assert len(html.encode()) <= 5 * MEGABYTE


def test_thinning_keeps_the_head_whole_and_says_so(content: Content) -> None:
    inputs = content.inputs
    points = pack_points(inputs, content.series, content.presets, limit=400_000)
    assert points.head in (500, 300, 200, 100, 50, 25)
    for run in points.packed["runs"]:
        curve = run["curves"]["es"]["rare"]
        assert curve["rank"][: points.head] == list(range(1, points.head + 1))
        assert {*curve_ranks(1024), *sample_ranks(1024)} <= set(curve["rank"])
        assert set(curve["neuron"]) == set(run["curves"]["es"]["common"]["neuron"])
    thinned = Page(render_page(replace(content, points=points)))
    assert f"All ranks up to {points.head} are drawn" in thinned.text


def test_nothing_is_thinned_where_all_fits(content: Content, page: Page) -> None:
    assert content.points.head is None
    assert "Every neuron is drawn" in page.text
    assert len(page_data(content)["runs"][5]["curves"]["es"]["rare"]["rank"]) == 1024


# ---- files ----


def test_the_report_lies_whole_in_its_folder(inputs: ReportInputs, html: str, tmp_path: Path) -> None:
    index = write_report(inputs, tmp_path / "new" / "report")
    assert index == tmp_path / "new" / "report" / "index.html"
    assert index.read_text(encoding="utf-8") == html
    assert list(index.parent.rglob("*.partial")) == []
    numbers = json.loads((index.parent / "report.json").read_text(encoding="utf-8"))
    assert numbers["series"][0][-1] == "novella-step3979-00000000"
    assert all((index.parent / name).is_file() for name in numbers["tables"])
    assert {row["preset"] for row in numbers["summary"]} == {"es", "nc", "ds"}


def test_tables_hold_every_neuron_as_csv_and_parquet(tmp_path: Path) -> None:
    inputs = small()
    tables = write_report(inputs, tmp_path).parent / "tables"
    neurons = pl.read_parquet(tables / "neurons.parquet")
    assert neurons.height == inputs.influence.height
    assert_frame_equal(pl.read_csv(tables / "neurons.csv", schema=neurons.schema), neurons)
    tokens = (tables / "tokens.csv").read_text(encoding="utf-8")
    assert tokens.isascii()
    assert re.search(r"^[=+@-]|,[=+@-][A-Z]", tokens, flags=re.MULTILINE) is None


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    for folder in (blocked, blocked / "below", Path("/proc/report")):
        with pytest.raises(UserError, match=re.escape(str(folder))):
            write_report(small(), folder)
    assert blocked.read_text() == "mine"


def test_a_full_disk_leaves_the_old_page_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_report(small(), tmp_path)
    before = index.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("common.files.os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_report(small(seed=1), tmp_path)
    assert index.read_bytes() == before
    assert list(tmp_path.rglob("*.partial")) == []


def test_the_same_inputs_make_the_same_page(inputs: ReportInputs, html: str) -> None:
    assert render_page(build_content(inputs)) == html


def test_the_report_imports_neither_torch_nor_a_database() -> None:
    sources = (Path(__file__).parent.parent / "analyses" / "report").glob("*.py")
    imported = {
        line.split()[1].split(".")[0]
        for source in sources
        for line in source.read_text().splitlines()
        if re.match(r"(import|from) ", line)
    }
    assert not imported & {"torch", "duckdb", "ingest", "warehouse", "transformers"}
