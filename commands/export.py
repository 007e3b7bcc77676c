"""The command `export`: writes every relation as Parquet."""

from pathlib import Path

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.progress import working


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@global_options
def export(settings: Settings, folder: Path) -> None:
    """Write every relation to FOLDER as Parquet files."""
    with working("Export", quiet=settings.quiet):
        rows = warehouse.export(settings.warehouse, folder, wait=settings.wait)
    show(pl.DataFrame({"relation": list(rows), "rows": list(rows.values())}), settings.form)
