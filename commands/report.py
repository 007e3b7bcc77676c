"""The command `report`: a page about the runs of the warehouse."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.analyze import analyze_all
from rare_tokens.commands.support.chosen_runs import published_runs, say_warnings
from rare_tokens.commands.support.completion import run_ids
from rare_tokens.commands.support.neuron_cards import card_frames
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.program import command, program
from rare_tokens.common.progress import working

if TYPE_CHECKING:
    from rare_tokens.analyses.report import ReportInputs

REPORT_FOLDER = "rare_tokens_report"


@click.command()
@click.argument("wanted", nargs=-1, metavar="[RUN]...", shell_complete=run_ids)
@click.option(
    "--out",
    default=REPORT_FOLDER,
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the report.",
)
@click.option("--no-analyze", is_flag=True, help="Show what is stored, without computing what is missing.")
@global_options
def report(settings: Settings, wanted: tuple[str, ...], out: Path, no_analyze: bool) -> None:
    """Write the report on all published runs, or on those named.

    The folder holds index.html, its numbers as report.json, its tables and figures. Analyses that are missing are
    computed first.
    """
    from rare_tokens.analyses.report import require_writable

    chosen = published_runs(settings, wanted)
    require_writable(out)
    if not no_analyze:
        analyze_all(chosen, settings)
    index = build_report(settings, wanted, out)
    show(pl.DataFrame({"report": [str(index)]}), "json") if settings.json else click.echo(index)


def build_report(settings: Settings, wanted: tuple[str, ...], out: Path) -> Path:
    """Write the page about the wanted runs to a folder, from what is stored; returns its index.html."""
    from rare_tokens.analyses.report import write_report

    with working("Read what the report shows", quiet=settings.quiet):
        inputs = _report_inputs(settings, wanted)
    if without := sorted(set(inputs.runs["run_id"]) - set(inputs.decisions["run_id"])):
        settings.say(f"Without intervals and decisions for {', '.join(without)}: `{command('analyze')}` computes them.")
    say_warnings(settings, inputs.runs["run_id"].to_list())
    with working("Write the report", quiet=settings.quiet):
        return write_report(inputs, out)


def _report_inputs(settings: Settings, wanted: tuple[str, ...]) -> "ReportInputs":
    """Everything that a page about the wanted runs shows."""
    from rare_tokens.analyses.across_runs.comparison import COACTIVATION, coactivation, compared_runs
    from rare_tokens.analyses.reference import published_values
    from rare_tokens.analyses.report import CARD_PRESET, ReportInputs, card_neurons, relations

    path, wait = settings.warehouse, settings.wait
    chosen = published_runs(settings, wanted)
    frames = warehouse.report_frames(path, chosen["run_id"].to_list(), relations(), wait=wait)
    shown = card_neurons(chosen, frames["influence"], frames["specificity"], frames["decisions"])
    frames |= card_frames(settings, shown)
    together = [
        coactivation(pl.concat([_group_activity(settings, run_id, CARD_PRESET) for run_id in runs]))
        for runs in warehouse.same_positions(path, compared_runs(chosen), wait=wait)
    ]
    return ReportInputs.of(
        frames,
        runs=chosen,
        coactivation=pl.concat([pl.DataFrame(schema=COACTIVATION), *together]),
        published=published_values(),
        command=" ".join([program(), "report", *wanted]),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _group_activity(settings: Settings, run_id: str, preset: str) -> pl.DataFrame:
    """How active each group of neurons of a run is at each of its rare positions."""
    from rare_tokens.analyses.across_runs.comparison import group_activity
    from rare_tokens.analyses.curve.effect_cells import RARE

    path, wait = settings.warehouse, settings.wait
    read = partial(warehouse.read, path, run_id, wait=wait)
    rare = read("position_group", preset=preset, token_group=RARE, columns=("position_id",))
    windows = read("dim_position", columns=("position_id", "window_id"))
    values, _ = warehouse.activations(path, run_id, preset=preset, token_group=RARE, wait=wait)
    positions = rare.join(windows, on="position_id", maintain_order="left")
    return group_activity(run_id, preset, values, positions, read("neuron_group", preset=preset, token_group=RARE))
