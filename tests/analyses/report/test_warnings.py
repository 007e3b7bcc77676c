"""What to know before reading stands above what was found, for every preset, and is inert."""

from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest

from rare_tokens.analyses.report.data.run_warnings import run_warnings
from rare_tokens.analyses.report.data.series import Series, group_runs
from rare_tokens.analyses.report.page.content import Content, build_content
from rare_tokens.analyses.report.page.page import render_page
from rare_tokens.analyses.report.page.write import report_json
from tests.support.report_page import Page, small, small_page

ELBOW = "The elbow of the frequency curve falls on rank 8, among the most frequent tokens."
FEW = "Token frequencies rest on 130,000 tokens (counted over texts), fewer than 5,000,000."
TITLE = "Before you read on"
HOSTILE = 'counted over "><script>window.hacked = true</script>\u202e{{ 7 * 7 }}'


def given(*rows: tuple[str, str, str | None, str]) -> pl.DataFrame:
    """Rows of `run_warning`: run, kind, preset, message."""
    columns = ("run_id", "kind", "preset", "message")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


class Hidden(HTMLParser):
    """The text within elements that have the attribute `hidden` or are only for scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[bool] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "input", "br", "link", "img", "hr"}:
            given = dict(attrs)
            self.stack.append("hidden" in given or "script-only" in (given.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if any(self.stack):
            self.text += data


@pytest.fixture(scope="module")
def content() -> Content:
    """Two checkpoints that warn of the same two things, and a hostile warning of one."""
    inputs = small()
    runs = inputs.runs["run_id"].to_list()
    rows = [row for run in runs for row in ((run, "large_elbow", "ds", ELBOW), (run, "few_tokens", None, FEW))]
    return build_content(replace(inputs, warnings=given(*rows, (runs[0], "other", None, HOSTILE))))


@pytest.fixture(scope="module")
def html(content: Content) -> str:
    return render_page(content)


@pytest.fixture(scope="module")
def two_models() -> list[Series]:
    """Two series of two checkpoints each."""
    rows = [
        {"run_id": f"{model}-{step}", "model": model, "revision": f"step{step}", "corpus": "texts"}
        for model in ("one", "other")
        for step in (1, 2)
    ]
    runs = small().conformed().runs.clear()
    influence = small().influence.clear()
    return group_runs(pl.concat([runs, pl.DataFrame(rows)], how="diagonal"), influence)


def test_warnings_stand_once_below_the_answer_for_whatever_preset_is_shown(html: str) -> None:
    for message in (ELBOW, FEW):
        assert html.count(message) == 1, "two checkpoints of one series say it once"
        place = html.index(message)
        assert html.index('class="answer"') < html.index('data-figure="influence" role') < place
        assert place < html.index("Which neurons?")
        assert message not in Hidden(html).text, "it is seen without a script"
    assert html.index(FEW) < html.index(ELBOW)


def test_without_a_warning_there_is_no_box(html: str) -> None:
    assert TITLE in html
    assert TITLE not in small_page().text


def test_hostile_text_in_a_warning_is_inert(html: str) -> None:
    page = Page(html)
    assert len(page.scripts) == 3
    assert "window.hacked = true" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\u202e" not in page.text


def test_warnings_are_written_beside_the_page(content: Content) -> None:
    numbers = report_json(content)
    assert [row["message"] for row in numbers["warnings"]].count(ELBOW) == 2, "a row per run"
    assert {"tables/warnings.csv", "tables/warnings.parquet"} <= set(numbers["tables"])


def test_a_warning_names_its_series_where_others_do_not_give_it(two_models: list[Series]) -> None:
    of_one = [(f"other-{step}", "large_elbow", "ds", ELBOW) for step in (1, 2)]
    of_all = [(run, "few_tokens", None, FEW) for run in ("one-1", "one-2", "other-2")]
    of_none = ("in-no-series", "few_tokens", None, "not of this report")
    assert run_warnings(given(*of_one, *of_all, of_none), two_models) == [
        {"message": FEW, "of": []},
        {"message": ELBOW, "of": ["other on texts"]},
    ]
    assert run_warnings(given(), two_models) == []
