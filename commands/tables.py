"""The command `tables`: lists the relations by groups, or describes one."""

from dataclasses import asdict

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.completion import relation_names
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import LONGEST_FIELD, show, show_groups
from rare_tokens.common.program import command
from rare_tokens.common.text import inert, plural
from rare_tokens.warehouse.catalogue import Column, Table


@click.command()
@click.argument("name", required=False, shell_complete=relation_names)
@global_options
def tables(settings: Settings, name: str | None) -> None:
    """List the relations by groups, or describe one.

    With NAME: what it is, what it has one row per, its columns with their types and meanings; for a macro also a call
    that works.
    """
    found = warehouse.tables(settings.warehouse, name, wait=settings.wait)
    if name is not None:
        _describe(found[0], settings)
    elif settings.json:
        show(pl.DataFrame([_listed(one) for one in found]), settings.form)
    else:
        rows: dict[str, list[dict[str, str]]] = {}
        for one in found:
            rows.setdefault(one.group, []).append(_line(one))
        show_groups(
            {group[0].upper() + group[1:]: pl.DataFrame(lines) for group, lines in rows.items()}, right=("rows",)
        )
        settings.say(f"`{command('tables NAME')}` describes one of them.")


def _listed(one: Table) -> dict[str, object]:
    return {
        "name": one.name,
        "group": one.group,
        "what it is": one.summary,
        "one row per": one.grain,
        "kind": one.kind,
        "rows": one.rows,
        "example": one.example,
    }


def _line(one: Table) -> dict[str, str]:
    """A relation in the list for people: of a view its rows, of a macro that it is called."""
    if one.rows is None:
        return {"name": f"{one.name}(…)", "what it is": one.summary, "rows": ""}
    return {"name": one.name, "what it is": one.summary, "rows": f"{one.rows:,}"}


def _describe(one: Table, settings: Settings) -> None:
    columns = pl.DataFrame([asdict(column) for column in one.columns], list(Column.__annotations__))
    if not settings.json:
        rows = "" if one.rows is None else f" It has {plural(one.rows, 'row')}."
        click.echo(inert(f"{one.name}: {one.summary} {one.grain}{rows}"))
        if one.example:
            click.echo(inert(f'Example: {command("sql")} "{one.example}"'))
        click.echo()
    if one.columns or settings.json:
        show(columns, settings.form, widest=LONGEST_FIELD)
