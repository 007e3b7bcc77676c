"""The command `attach`: copies runs that `export` wrote into this warehouse."""

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.progress import working
from rare_tokens.warehouse import STORES


@click.command()
@click.argument("source", metavar="FOLDER", type=click.Path(path_type=str, file_okay=False))
@click.option(
    "--store",
    type=click.Choice(STORES),
    default=STORES[0],
    show_default=True,
    help="Store the facts in the warehouse file, or in Parquet files beside it.",
)
@global_options
def attach(settings: Settings, source: str, store: str) -> None:
    """Copy runs that `export` wrote to FOLDER into this warehouse.

    FOLDER may also be a data set of the Hugging Face hub, hf://datasets/USER/NAME or hf://datasets/USER/NAME@REVISION.

    A run that is already here with the same facts is skipped. If its facts differ, nothing is attached.
    """
    from rare_tokens.analyses.curve.power_law import power_law_line

    with working("Attach", quiet=settings.quiet):
        outcomes = warehouse.attach(
            settings.warehouse, source, line=power_law_line, store=store, wait=settings.wait, quiet=settings.quiet
        )
    rows = {"run_id": list(outcomes), "outcome": list(outcomes.values())}
    show(pl.DataFrame(rows, {"run_id": pl.String, "outcome": pl.String}), settings.form)
