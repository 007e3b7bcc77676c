"""A report's page, parsed as a browser would begin to: for tests that read it."""

import re
from functools import cache
from html.parser import HTMLParser

from rare_tokens.analyses.report import ReportInputs
from rare_tokens.analyses.report.page.content import build_content
from rare_tokens.analyses.report.page.page import render_page
from studies.synthetic.report_inputs import make_inputs

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
        return re.sub(r"[ \n\t]+", " ", " ".join(self.words))

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


@cache
def small(**changes: object) -> ReportInputs:
    return make_inputs(steps=(0, 10), neurons=64, presets=("es",), **changes)


def page_of(inputs: ReportInputs) -> Page:
    return Page(render_page(build_content(inputs)))


@cache
def small_page(**changes: object) -> Page:
    return page_of(small(**changes))
