"""The commands that keep house: `export`, `attach`, `delete`, `migrate`, `vacuum`."""

from pathlib import Path

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.completion import run_ids
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.errors import UserError
from rare_tokens.common.progress import working
from rare_tokens.warehouse import STORES


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@global_options
def export(settings: Settings, folder: Path) -> None:
    """Write every relation as Parquet to a FOLDER."""
    with working("Export", quiet=settings.quiet):
        rows = warehouse.export(settings.warehouse, folder, wait=settings.wait)
    show(pl.DataFrame({"relation": list(rows), "rows": list(rows.values())}), settings.form)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--store",
    type=click.Choice(STORES),
    default=STORES[0],
    show_default=True,
    help="Where the facts go: into the warehouse, or into Parquet files beside it.",
)
@global_options
def attach(settings: Settings, folder: Path, store: str) -> None:
    """Copy the runs of a FOLDER that `export` wrote into the warehouse.

    A run that is there already with the same facts is passed over; with others, nothing is attached.
    """
    with working("Attach", quiet=settings.quiet):
        outcomes = warehouse.attach(settings.warehouse, folder, store=store, wait=settings.wait, quiet=settings.quiet)
    rows = {"run_id": list(outcomes), "outcome": list(outcomes.values())}
    show(pl.DataFrame(rows, {"run_id": pl.String, "outcome": pl.String}), settings.form)


@click.command()
@click.argument("run_id", metavar="RUN", shell_complete=run_ids)
@global_options
def delete(settings: Settings, run_id: str) -> None:
    """Remove a run and what only it uses."""
    with working(f"Remove {run_id}", quiet=settings.quiet):
        removed = warehouse.delete(settings.warehouse, run_id, wait=settings.wait)
    _done(settings, f"{removed} is removed.", pl.DataFrame({"run_id": [removed], "status": ["removed"]}))


@click.command()
@global_options
def migrate(settings: Settings) -> None:
    """Bring the warehouse to this schema."""
    _require_file(settings)
    with working("Migrate", quiet=settings.quiet):
        applied = warehouse.migrate(settings.warehouse, wait=settings.wait)
    said = f"Applied {', '.join(applied)}." if applied else "The warehouse is up to date."
    _done(settings, said, pl.DataFrame({"applied": pl.Series(applied, dtype=pl.String)}))


@click.command()
@global_options
def vacuum(settings: Settings) -> None:
    """Give deleted runs' space back."""
    _require_file(settings)
    with working("Vacuum", quiet=settings.quiet):
        space = warehouse.vacuum(settings.warehouse, wait=settings.wait)
    said = f"{space.before / 1e6:.1f} MB before, {space.after / 1e6:.1f} MB after."
    _done(settings, said, pl.DataFrame({"bytes_before": [space.before], "bytes_after": [space.after]}))


def _done(settings: Settings, said: str, rows: pl.DataFrame) -> None:
    """What was done: a remark for a person, rows for a program."""
    if settings.json:
        show(rows, settings.form)
    else:
        settings.say(said)


def _require_file(settings: Settings) -> None:
    if not settings.warehouse.exists():
        raise UserError(f"There is no warehouse {settings.warehouse}. Name another with --warehouse.")
