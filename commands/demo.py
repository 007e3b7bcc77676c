"""The command `demo`: the whole story on the embedded model, offline."""

from pathlib import Path

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.analyze import analyze_all
from rare_tokens.commands.report import REPORT_FOLDER, build_report
from rare_tokens.commands.support.chosen_runs import published_runs
from rare_tokens.commands.support.ingest_runs import ingest_all
from rare_tokens.commands.support.requests import requested
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.progress import working

DEMO_TOKENS = 4_096
CHEAP = (
    "regimes",
    "influence_slope",
    "influence_interval",
    "plateau_difference",
    "neuron_group",
)


@click.command()
@click.option(
    "--out",
    default=REPORT_FOLDER,
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the report.",
)
@global_options
def demo(settings: Settings, out: Path) -> None:
    """Show the whole workflow on a small built-in model, offline.

    Ingests the checkpoints of the model on built-in text, analyses them (the last one in full), and writes the report.
    """
    with working("Find the model and the text", quiet=settings.quiet):
        from rare_tokens.ingest.embedded import FREQUENCIES, MODEL_FOLDER, REVISIONS
        from rare_tokens.ingest.run.request import Options

    options = Options(
        str(MODEL_FOLDER),
        revisions=REVISIONS,
        corpus=("builtin",),
        frequencies=str(FREQUENCIES),
        tokens=DEMO_TOKENS,
    )
    ingested = ingest_all(requested([options], None), settings)
    ingested.require_all()
    published = ingested.run_ids
    _analyze(settings, published)
    index = build_report(settings, tuple(published), out)
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        show(opened.sql(DEMO_QUERY, run=published[-1]), settings.form, title=f"Rare tokens in {published[-1]}")
    click.echo(f"Report: {index}", err=settings.json)


def _analyze(settings: Settings, published: list[str]) -> None:
    """Run the cheap analyses for every checkpoint and all of them for the last, then follow the series."""
    from rare_tokens.analyses.reference import published_values

    warehouse.store_published_values(settings.warehouse, published_values(), wait=settings.wait)
    chosen = published_runs(settings, tuple(published))
    is_last = pl.col("run_id") == published[-1]
    analyze_all(chosen.filter(~is_last), settings, only=CHEAP)
    analyze_all(chosen.filter(is_last), settings)


DEMO_QUERY = """
select
    rank, neuron, coalesce(settled_role, role) as role, influence, mean_delta_loss, deviation, regime
from neuron_profile
where run_id = $run and preset = 'es' and token_group = 'rare' and rank <= 10
order by rank
"""
