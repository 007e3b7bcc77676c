"""The commands that read: `runs`, `tables`, `sql`."""

import sys
from dataclasses import asdict
from pathlib import Path

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.completion import relation_names
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import FORMATS, show
from rare_tokens.common.errors import UserError
from rare_tokens.common.progress import working

_RUN_COLUMNS = ("run_id", "status", "model", "revision", "layer", "positions", "neurons", "corpus", "created_at")


def listed_runs(settings: Settings, wanted: list[str] | None = None) -> pl.DataFrame:
    """The runs, or those wanted: with --json all that is known of each, else what fits a screen."""
    found = warehouse.runs(settings.warehouse, wait=settings.wait)
    found = found if wanted is None else found.filter(pl.col("run_id").is_in(wanted))
    return found if settings.json else found.select(_RUN_COLUMNS)


@click.command()
@global_options
def runs(settings: Settings) -> None:
    """List the runs and how far each got.

    With --json everything that is known of them.
    """
    found = listed_runs(settings)
    if found.is_empty():
        settings.say(f"{settings.warehouse} holds no runs yet. `ingest --model gpt2` makes one, `demo` several.")
    show(found, settings.form)


@click.command()
@click.argument("name", required=False, shell_complete=relation_names)
@global_options
def tables(settings: Settings, name: str | None) -> None:
    """List the relations, or describe one.

    With NAME its columns, their types and what they mean.
    """
    found = warehouse.tables(settings.warehouse, name, wait=settings.wait)
    if name is None:
        rows = [{"name": one.name, "rows": one.rows, "kind": one.kind, "one row per": one.grain} for one in found]
        show(pl.DataFrame(rows), settings.form)
        return
    if not settings.json:
        settings.say(f"{found[0].name}: {found[0].summary}")
    show(pl.DataFrame([asdict(column) for column in found[0].columns]), settings.form)


@click.command()
@click.argument("query", metavar="SQL|FILE.sql|-")
@click.option("--format", "form", type=click.Choice(FORMATS), help="How to print the rows [default: table].")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds after which the query is stopped.")
@global_options
def sql(settings: Settings, query: str, form: str | None, timeout: float) -> None:
    """Run one query, read-only.

    The query is the text itself, a path ending in .sql, or `-` for stdin.
    """
    text = _query_text(query)
    with working("Query", quiet=settings.quiet):
        rows = warehouse.run_sql(settings.warehouse, text, timeout, wait=settings.wait)
    show(rows, form or settings.form)


def _query_text(query: str) -> str:
    try:
        if query == "-":
            return sys.stdin.read()
        if query.endswith(".sql"):
            return Path(query).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{query}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{query}: is not UTF-8 text.") from error
    return query


def published_runs(settings: Settings, wanted: tuple[str, ...]) -> pl.DataFrame:
    """The published runs, or those named, of which every one must be published (`dim_run`)."""
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        chosen = opened.dim_run(run=list(wanted)) if wanted else opened.dim_run(status="published")
    if chosen.is_empty():
        raise UserError(f"{settings.warehouse} holds no published run to report on. `ingest --model gpt2` makes one.")
    for run_row in chosen.filter(pl.col("status") != "published").iter_rows(named=True):
        why = f" ({run_row['status_reason']})" if run_row["status_reason"] else ""
        raise UserError(f"Run {run_row['run_id']} is {run_row['status']}{why}: there is nothing to report on it.")
    return chosen
