"""The command `tables`: lists the relations, or the columns of one."""

from dataclasses import asdict

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.completion import relation_names
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show


@click.command()
@click.argument("name", required=False, shell_complete=relation_names)
@global_options
def tables(settings: Settings, name: str | None) -> None:
    """List the relations, or describe one.

    With NAME, list its columns, their types and what they mean.
    """
    found = warehouse.tables(settings.warehouse, name, wait=settings.wait)
    if name is None:
        rows = [{"name": one.name, "rows": one.rows, "kind": one.kind, "one row per": one.grain} for one in found]
        show(pl.DataFrame(rows), settings.form)
        return
    if not settings.json:
        settings.say(f"{found[0].name}: {found[0].summary}")
    show(pl.DataFrame([asdict(column) for column in found[0].columns]), settings.form)
