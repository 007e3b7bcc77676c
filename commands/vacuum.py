"""The command `vacuum`: frees the space of deleted runs."""

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.outcome import require_file, show_outcome
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.common.progress import working


@click.command()
@global_options
def vacuum(settings: Settings) -> None:
    """Free the disk space of deleted runs."""
    require_file(settings)
    with working("Vacuum", quiet=settings.quiet):
        space = warehouse.vacuum(settings.warehouse, wait=settings.wait)
    said = f"{space.before / 1e6:.1f} MB before, {space.after / 1e6:.1f} MB after."
    show_outcome(settings, said, pl.DataFrame({"bytes_before": [space.before], "bytes_after": [space.after]}))
