"""The README.md of an export: its YAML head makes the folder a data set of the hub, its text says what the data are."""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files as resources
from typing import Any

import duckdb
import jinja2

from rare_tokens.common.text import inert
from rare_tokens.common.version import VERSION
from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.share import layout

CARD = "README.md"
TITLE = "Rare Token Neurons: exact single-neuron ablations of language models in a DuckDB warehouse"  # CITATION.cff
AUTHOR = "The Rare Token Neurons contributors"
_TAGS = ["interpretability", "language-models", "neurons", "ablation", "rare-tokens", "rare-token-neurons"]
_FIRST = "neuron_influence"  # the configuration that is loaded where none is named
# The hub's classes of size: fewer rows than the number, and the name.
_SIZES = (
    (1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"),
    (1e8, "10M<n<100M"), (1e9, "100M<n<1B"), (1e10, "1B<n<10B"), (1e11, "10B<n<100B"), (1e12, "100B<n<1T"),
)  # fmt: skip
_COLUMNS = """
select
    run_id, model, revision, layer, neurons, positions, corpus, frequency_source, contexts, ablation, effects, seed,
    tolerance, quantisation, self_check_error as "self-check"
from dim_run
where run_id in $runs and status = 'published'
order by run_key
"""
_GAPS = "select run_id, status, status_reason from dim_run where run_id in $runs and status <> 'published' order by 1"
_WARNINGS = """
select run_id, message from run_warning where run_id in $runs
union
select run_id, unnest(warnings) from dim_run where run_id in $runs and status = 'published'
order by all
"""


def text(
    con: duckdb.DuckDBPyConnection,
    chosen: list[str],
    files: Mapping[str, Mapping[str, Any]],
    left_out: Mapping[str, str],
    licence: str | None,
) -> str:
    """The card of an export.

    A relation without rows has no configuration, for `datasets` loads no empty one.

    Args:
        con: the warehouse.
        chosen: the runs exported.
        files: rows of each file of the export, by its name.
        left_out: relations that the export does not have, and why.
        licence: the hub's name of a licence, or None.
    """
    rows = layout.rows_by_relation(files)
    present = [relation for name, relation in relations.relations().items() if rows.get(name)]
    found = con.sql(_COLUMNS, params={"runs": chosen})
    runs = [dict(zip(found.columns, values, strict=True)) for values in found.fetchall()]
    gaps = con.execute(_GAPS, {"runs": chosen}).fetchall()
    warnings = con.execute(_WARNINGS, {"runs": chosen}).fetchall()
    first = _FIRST if rows.get(_FIRST) else present[0].name
    models = sorted({str(run["model"]) for run in runs})
    title = f"Rare token neurons of {cell(', '.join(models) or 'no model')}"
    body = _template().render(
        title=title,
        version=VERSION,
        year=datetime.now(UTC).year,
        runs=runs,
        run_table=_table(runs) if runs else "None is published.",
        gaps="; ".join(cell(f"{run} ({status}: {why})") for run, status, why in gaps),
        warnings="\n".join(f"- `{cell(run)}`: {cell(message)}" for run, message in warnings) or "The runs carry none.",
        intervals=_intervals(rows),
        example=first,
        corpora=", ".join(sorted({cell(run["corpus"]) for run in runs})) or "none",
        models=cell(", ".join(models)) or "none",
        licence=licence,
        rows=rows,
        present=present,
        empty=", ".join(f"`{name}`" for name, count in rows.items() if not count) or "none",
        left_out=left_out,
        documentation=relations.markdown(relation.name for relation in present).strip(),
        citation_title=TITLE,
        citation_author=AUTHOR,
    )
    return f"---\n{_head(title, [one.name for one in present], first, sum(rows.values()), licence)}\n---\n\n{body}\n"


def _head(title: str, present: list[str], first: str, rows: int, licence: str | None) -> str:
    """The YAML between the lines of dashes, which the hub and `datasets` read."""
    from huggingface_hub import DatasetCardData

    configurations = [
        {"config_name": name, "data_files": f"{name}/*.parquet"} | ({"default": True} if name == first else {})
        for name in present
    ]
    data = DatasetCardData(
        license=licence,
        pretty_name=title,
        tags=_TAGS,
        size_categories=[next((name for limit, name in _SIZES if rows < limit), "n>1T")],
        configs=configurations,
    )
    return str(data.to_yaml()).strip()


def _intervals(rows: Mapping[str, int]) -> str:
    if rows.get("influence_interval"):
        return "Intervals over windows of the text are in `influence_interval`."
    return "No intervals are here: after `attach`, `analyze` computes them."


def _table(rows: list[dict[str, Any]]) -> str:
    """Runs as a Markdown table, without the columns that are empty in all."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    lines = [names, ["---"] * len(names), *([cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    """A value for Markdown, in one line, without a character that would mean more than itself."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    said = f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    for character, escaped in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "'"), ("[", "\\["), ("*", "\\*")):
        said = said.replace(character, escaped)
    return " ".join(inert(said).split())


def _template() -> jinja2.Template:
    source = (resources("rare_tokens.warehouse.share") / "card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701  Markdown
    return environment.from_string(source)
