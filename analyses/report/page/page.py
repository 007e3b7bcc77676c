"""The page: one self-contained HTML text."""

import base64
import hashlib
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from rare_tokens.analyses.report.data import text
from rare_tokens.analyses.report.data.cards import Card
from rare_tokens.analyses.report.data.passages import pack_passages
from rare_tokens.analyses.report.data.points import curve_ranks
from rare_tokens.analyses.report.data.rows import COLUMNS, Cell
from rare_tokens.analyses.report.data.series import Run, Series
from rare_tokens.analyses.report.data.summary import top_count
from rare_tokens.analyses.report.figures import charts, figures
from rare_tokens.analyses.report.figures.figure import columns
from rare_tokens.analyses.report.page.content import Content


def render_page(content: Content) -> str:
    """The page of `content`: HTML that loads nothing, runs only its own two scripts, and keeps every token inert."""
    library = _library()
    code = script("base.js", "points.js", "tables.js", "cards.js", "page.js")
    return template("page.html.jinja").render(
        content=content,
        columns=COLUMNS,
        style=Markup(resource("page.css")),  # noqa: S704 - our own file
        library=Markup(library),  # noqa: S704 - Vega, Vega-Lite and Vega-Embed, as vl-convert packs them
        script=Markup(code),  # noqa: S704 - our own file
        policy=policy(library, code),
        data=text.inline_json(page_data(content)),
        versions=f"Vega {vl_convert.get_vega_version()}, Vega-Lite {charts.VEGA_LITE}, Vega-Embed "
        f"{vl_convert.get_vega_embed_version()}",
    )


def page_data(content: Content) -> dict[str, Any]:
    """What the page's script reads: texts, points, rows of tables, fits, and each figure's specification and rows."""
    packed = content.points.packed
    texts = Texts(packed["texts"])
    order = [(one, run) for one in content.series for run in one.runs]
    runs = [points | _run_data(*pair, content, texts) for points, pair in zip(packed["runs"], order, strict=True)]
    passages = packed_passages([card for found in content.cards for card in found], texts)
    return packed | {
        "texts": texts.every,
        "runs": runs,
        "presets": content.presets,
        "columns": {name: [asdict(column) for column in found] for name, found in COLUMNS.items()},
        "light": charts.LIGHT,
        "series": [_series_data(one, content) for one in content.series],
        "passages": passages,
        "program": content.program,
    }


class Texts:
    """Token texts, each held once, and their numbers."""

    def __init__(self, texts: list[str]) -> None:
        self.every = list(texts)
        self.codes = {text: code for code, text in enumerate(texts)}

    def coded(self, cell: Cell, kind: str) -> Cell:
        """A cell of a table with the numbers of its tokens."""
        return [self.code(token) for token in cell] if kind == "tokens" else cell

    def code(self, text: str) -> int:
        """The number of a text."""
        if text not in self.codes:
            self.codes[text] = len(self.every)
            self.every.append(text)
        return self.codes[text]


def packed_passages(cards: list[Card], texts: Texts) -> dict[str, Any]:
    """The passages of some cards as the script draws them, by the card's address."""
    packed = {card.address: pack_passages(card.passages, texts.code) for card in cards}
    return {address: found for address, found in packed.items() if found}


def _run_data(one: Series, run: Run, content: Content, texts: Texts) -> dict[str, Any]:
    """What the script reads about a run besides its points; tables and fits by preset."""
    tables = {
        name: {
            preset: [
                [texts.coded(cell, column.kind) for cell, column in zip(row, COLUMNS[name], strict=True)]
                for row in found.get((run.run_id, preset), [])
            ]
            for preset in content.presets
        }
        for name, found in content.rows.items()
    }
    fits = {
        preset: {name: columns(rows, 6) for name, rows in content.lines(one, run.run_id, preset).items()}
        for preset in content.presets
    }
    return {"revision": run.label, "tables": tables, "fits": fits}


def _series_data(one: Series, content: Content) -> dict[str, Any]:
    extent = content.extents[one.index]
    sets = content.sets[one.index]
    return {
        "runs": [run.index for run in one.measured],
        "neurons": extent.neurons,
        "top": top_count(extent.neurons),
        "curve_ranks": curve_ranks(extent.neurons),
        "sets": {name: {preset: columns(rows) for preset, rows in found.items()} for name, found in sets.items()},
        "figures": content.figures[one.index],
        "heights": {figure.name: figure.heights for figure in figures() if figure.heights},
    }


@cache
def resource(name: str) -> str:
    """The text of a file beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def template(name: str) -> jinja2.Template:
    """A page's template: everything that it shows is escaped, and what would act is spelled out."""
    environment = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: text.shortened(value, 2000) if type(value) is str else value,
        loader=jinja2.FunctionLoader(resource),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = (text.number, text.p_value, text.signed, text.percent, text.integer, text.milli, text.plain, text.fixed)
    environment.filters.update({function.__name__: function for function in shown})
    return environment.get_template(name)


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from vl-convert: nothing is downloaded."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", charts.VEGA_LITE)


def script(*names: str) -> str:
    """A page's own script: its parts share one scope, and no name is global."""
    parts = "\n".join(resource(name) for name in names)
    return f'(function () {{\n"use strict";\n{parts}}})();\n'


def policy(*scripts: str) -> str:
    """A content security policy under which only these scripts run and nothing is fetched."""
    hashes = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"
