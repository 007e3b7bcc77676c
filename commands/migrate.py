"""The command `migrate`: brings the warehouse to the schema of this version."""

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.outcome import require_file, show_outcome
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.common.progress import working


@click.command()
@global_options
def migrate(settings: Settings) -> None:
    """Update the warehouse to this version's schema."""
    from rare_tokens.analyses.curve.power_law import power_law_line

    require_file(settings)
    with working("Migrate", quiet=settings.quiet):
        applied = warehouse.migrate(settings.warehouse, line=power_law_line, wait=settings.wait)
    said = f"Applied {', '.join(applied)}." if applied else "The warehouse is up to date."
    show_outcome(settings, said, pl.DataFrame({"applied": pl.Series(applied, dtype=pl.String)}))
