"""The commands that keep house: `export`, `delete`, `migrate`, `vacuum`."""

from pathlib import Path

import click
import polars as pl

import warehouse
from common.errors import UserError
from common.settings import Settings, global_options
from common.terminal import show


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@global_options
def export(settings: Settings, folder: Path) -> None:
    """Write every relation as Parquet to a FOLDER."""
    rows = warehouse.export(settings.warehouse, folder, wait=settings.wait)
    show(pl.DataFrame({"relation": list(rows), "rows": list(rows.values())}), settings.form)


@click.command()
@click.argument("run_id", metavar="RUN")
@global_options
def delete(settings: Settings, run_id: str) -> None:
    """Remove a run and what only it uses."""
    settings.say(f"{warehouse.delete(settings.warehouse, run_id, wait=settings.wait)} is removed.")


@click.command()
@global_options
def migrate(settings: Settings) -> None:
    """Bring the warehouse to this schema."""
    _require_file(settings)
    applied = warehouse.migrate(settings.warehouse, wait=settings.wait)
    settings.say(f"Applied {', '.join(applied)}." if applied else "The warehouse is up to date.")


@click.command()
@global_options
def vacuum(settings: Settings) -> None:
    """Give deleted runs' space back."""
    _require_file(settings)
    space = warehouse.vacuum(settings.warehouse, wait=settings.wait)
    settings.say(f"{space.before / 1e6:.1f} MB before, {space.after / 1e6:.1f} MB after.")


def _require_file(settings: Settings) -> None:
    if not settings.warehouse.exists():
        raise UserError(f"There is no warehouse {settings.warehouse}. Name another with --warehouse.")
