"""Completion of runs and relations in a shell (`_RARE_TOKENS_COMPLETE`, docs/how-to/terminal.md)."""

import os
from pathlib import Path

import click

from rare_tokens import warehouse
from rare_tokens.commands.support.settings import DEFAULT_WAREHOUSE, read_config
from rare_tokens.common.errors import RareTokensError
from rare_tokens.warehouse.schema.relations import relations


def run_ids(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The ids of runs that start with what is typed.

    A warehouse that is locked, missing or of another version offers none, at once and in silence.
    """
    try:
        return [run_id for run_id in warehouse.runs(_warehouse(context))["run_id"] if run_id.startswith(incomplete)]
    except RareTokensError:
        return []


def relation_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The names of relations that start with what is typed. No warehouse is opened."""
    return [name for name in relations() if name.startswith(incomplete)]


def _warehouse(context: click.Context) -> Path:
    """The warehouse that the command, the group, the environment or the configuration names, else the default."""
    root = context.find_root()
    named = [*(one.params.get("warehouse") for one in (context, root)), os.environ.get("RARE_TOKENS_WAREHOUSE")]
    configured = read_config(root.params.get("config"), root).get("warehouse")
    return Path(next((path for path in (*named, configured) if path), DEFAULT_WAREHOUSE))
