"""The report: it loads and runs nothing of others', stays small, and is written whole or not at all."""

import base64
import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from rare_tokens.analyses.report import ReportInputs, write_report
from rare_tokens.analyses.report.data.points import curve_ranks, pack_points, sample_ranks
from rare_tokens.analyses.report.data.text import inline_json, number, shortened, visible_token
from rare_tokens.analyses.report.page import write
from rare_tokens.analyses.report.page.content import Content, build_content
from rare_tokens.analyses.report.page.page import page_data, render_page
from rare_tokens.common.errors import UserError
from studies.synthetic.report_inputs import HOSTILE, make_inputs
from tests.conftest import REPOSITORY
from tests.support.report_page import Page, page_of, small

MEGABYTE = 1_000_000


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


@settings(deadline=None)
@given(st.text(max_size=60))
def test_visible_leaves_no_character_that_hides_or_reorders(text: str) -> None:
    shown = shortened(text)
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


@settings(deadline=None)
@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner), max_leaves=8))
def test_inline_json_is_the_value_and_cannot_end_its_element(value: object) -> None:
    text = inline_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


@settings(deadline=None)
@given(st.floats(min_value=1e-12, max_value=1e12), st.booleans())
def test_number_is_right_to_its_digits(value: float, negative: bool) -> None:
    signed = -value if negative else value
    mantissa, _, power = number(signed).replace("−", "-").replace(",", "").partition("\u00a0×\u00a010")
    exponent = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
    assert float(mantissa) * 10.0**exponent == pytest.approx(signed, rel=0.0051)


# ---- size and thinning ----


def test_six_checkpoints_stay_under_three_megabytes(html: str) -> None:
    assert len(html.encode()) <= 3 * MEGABYTE


@pytest.mark.slow
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
        ranks = list(accumulate(curve["rank"]))
        assert ranks[: points.head] == list(range(1, points.head + 1))
        assert {*curve_ranks(1024), *sample_ranks(1024)} <= set(ranks)
        assert set(curve["neuron"]) == set(run["curves"]["es"]["common"]["neuron"])
    thinned = Page(render_page(replace(content, points=points)))
    assert f"All ranks up to {points.head} are drawn" in thinned.text


def test_nothing_is_thinned_where_all_fits(content: Content, page: Page) -> None:
    assert content.points.head is None
    assert "Every neuron is drawn" in page.text
    assert len(page_data(content)["runs"][5]["curves"]["es"]["rare"]["rank"]) == 1024


# ---- files ----


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report that lies in its folder."""
    return write_report(small(), tmp_path_factory.mktemp("written") / "new" / "report")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, content: Content) -> None:
    """Writing alone: content is not made anew, figures are not drawn."""
    monkeypatch.setattr(write, "build_content", lambda _: content)
    monkeypatch.setattr(write, "stills", lambda _: [("influence", "<svg/>", b"PNG")])


def test_the_report_lies_whole_in_its_folder(index: Path) -> None:
    assert index.parts[-3:] == ("new", "report", "index.html")
    assert index.read_text(encoding="utf-8") == render_page(build_content(small()))
    assert list(index.parent.rglob("*.partial")) == []
    numbers = json.loads((index.parent / "report.json").read_text(encoding="utf-8"))
    assert numbers["series"][0][-1] == "novella-step10-00000000"
    assert all((index.parent / name).is_file() for name in numbers["tables"])
    assert {row["preset"] for row in numbers["summary"]} == {"es"}


def test_tables_hold_every_neuron_as_csv_and_parquet(index: Path) -> None:
    tables = index.parent / "tables"
    neurons = pl.read_parquet(tables / "neurons.parquet")
    assert neurons.height == small().influence.height
    assert_frame_equal(pl.read_csv(tables / "neurons.csv", schema=neurons.schema), neurons)
    tokens = (tables / "tokens.csv").read_text(encoding="utf-8")
    assert tokens.isascii()
    assert re.search(r"^[=+@-]|,[=+@-][A-Z]", tokens, flags=re.MULTILINE) is None


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path: Path, drawn: None) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    for folder in (blocked, blocked / "below", Path("/proc/report")):
        with pytest.raises(UserError, match=re.escape(str(folder))):
            write_report(small(), folder)
    assert blocked.read_text() == "mine"


def test_a_full_disk_leaves_the_old_page_whole(
    index: Path, tmp_path: Path, drawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(index.parent, tmp_path, dirs_exist_ok=True)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("rare_tokens.common.files.os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_report(small(), tmp_path)
    assert (tmp_path / "index.html").read_bytes() == index.read_bytes()
    assert list(tmp_path.rglob("*.partial")) == []


def test_the_report_imports_neither_torch_nor_a_database() -> None:
    sources = (REPOSITORY / "analyses" / "report").rglob("*.py")
    imported = {
        line.split()[1].removeprefix("rare_tokens.").split(".")[0]
        for source in sources
        for line in source.read_text().splitlines()
        if re.match(r"(import|from) ", line)
    }
    assert {"analyses", "polars"} <= imported
    assert not imported & {"torch", "duckdb", "ingest", "warehouse", "transformers"}
