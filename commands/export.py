"""The command `export`: writes runs as a folder that is a data set of the Hugging Face hub."""

import re
from pathlib import Path

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.completion import run_ids
from rare_tokens.commands.support.settings import Settings, global_options, program
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.errors import UserError
from rare_tokens.common.progress import working

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="RUN",
    shell_complete=run_ids,
    help="Only this run, by its id or the start of it; may be given several times. [default: all]",
)
@click.option(
    "--license",
    "licence",
    metavar="ID",
    help="Licence that the card names, by the hub's name for it (cc-by-4.0, mit, other). [default: none]",
)
@global_options
def export(settings: Settings, folder: Path, runs: tuple[str, ...], licence: str | None) -> None:
    """Write runs to FOLDER as Parquet files, a data set that can be put on the Hugging Face hub.

    README.md in it is the data set's card, with a configuration for each relation that has rows. `attach` takes the
    runs into another warehouse.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UserError(f"--license {licence}: the hub's names of licences are like cc-by-4.0, mit or other.")
    with working("Export", quiet=settings.quiet):
        rows = warehouse.export(settings.warehouse, folder, runs, licence=licence, wait=settings.wait)
    show(pl.DataFrame({"relation": list(rows), "rows": list(rows.values())}), settings.form)
    settings.say(
        f"Read {folder / 'README.md'}, then share it: hf upload USER/NAME {folder} . --repo-type dataset. "
        f"Others take it by: {program()} attach hf://datasets/USER/NAME"
    )
