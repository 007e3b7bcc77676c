"""The command `check`: looks at the stored data of runs again."""

from pathlib import Path

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.completion import run_ids
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.errors import QualityError
from rare_tokens.common.progress import working
from rare_tokens.common.text import plural

QUALITY_FOLDER = "rare_tokens_quality"


@click.command()
@click.argument("wanted", nargs=-1, metavar="[RUN]...", shell_complete=run_ids)
@click.option("--explain", is_flag=True, help="List every expectation, with what was observed and what is expected.")
@click.option(
    "--out",
    default=QUALITY_FOLDER,
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the pages.",
)
@global_options
def check(settings: Settings, wanted: tuple[str, ...], explain: bool, out: Path) -> None:
    """Check the stored data of runs.

    Checks all runs, or those named, with Great Expectations; refused runs are checked too. Writes the results to
    quality_result and pages to a folder. The exit code is 3 if a run fails.
    """
    with working("Check", quiet=settings.quiet):
        checked, page = warehouse.check(settings.warehouse, wanted, out, wait=settings.wait)
    rows = [row for run in checked for row in (run.explained() if explain else [run.summary()])]
    show(pl.DataFrame(rows), settings.form)
    settings.say(f"Pages: {page}")
    if failing := [f"{run.run_id}: {'; '.join(map(str, run.failed))}" for run in checked if run.failed]:
        raise QualityError(f"{len(failing)} of {plural(len(checked), 'run')} fail their checks. {' | '.join(failing)}.")
