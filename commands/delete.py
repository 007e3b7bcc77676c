"""The command `delete`: removes a run and what only it uses."""

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.completion import run_ids
from rare_tokens.commands.support.outcome import show_outcome
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.common.progress import working


@click.command()
@click.argument("run_id", metavar="RUN", shell_complete=run_ids)
@global_options
def delete(settings: Settings, run_id: str) -> None:
    """Delete a run and everything that only it uses.

    The records of its twins go with it.
    """
    with working(f"Remove {run_id}", quiet=settings.quiet):
        removed = warehouse.delete(settings.warehouse, run_id, wait=settings.wait)
    is_one = len(removed) == 1
    said = (
        f"{removed[0]} is removed." if is_one else f"{removed[0]} and its twins {', '.join(removed[1:])} are removed."
    )
    show_outcome(settings, said, pl.DataFrame({"run_id": removed, "status": ["removed"] * len(removed)}))
