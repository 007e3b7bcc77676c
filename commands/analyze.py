"""The command `analyze`: what runs and their series lack is computed and stored."""

import time
from collections.abc import Collection
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import click
import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.chosen_runs import published_runs
from rare_tokens.commands.support.completion import run_ids
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.progress import progress, working
from rare_tokens.common.version import VERSION

if TYPE_CHECKING:
    from rare_tokens.analyses.registry import Source


@click.command()
@click.argument("wanted", nargs=-1, metavar="[RUN]...", shell_complete=run_ids)
@click.option(
    "--positions",
    multiple=True,
    type=click.Choice(["rare", "common", "all"]),
    default=("rare",),
    show_default=True,
    help="Where coordination is measured; repeatable, and added to what is stored.",
)
@click.option("--again", is_flag=True, help="Compute what is stored again and replace it.")
@global_options
def analyze(settings: Settings, wanted: tuple[str, ...], positions: tuple[str, ...], again: bool) -> None:
    """Compute and store the analyses that runs lack.

    Of all runs, or those named: regimes, intervals, groups, geometry, graphs, spectra and tests. Asked again, it does
    nothing for a run that has them all.
    """
    from rare_tokens.analyses.reference import published_values

    chosen = published_runs(settings, wanted)
    warehouse.store_published_values(settings.warehouse, published_values(), wait=settings.wait)
    done = analyze_all(chosen, settings, positions, again)
    if done or settings.json:
        show(pl.DataFrame(done), settings.form)
    if not done:
        settings.say(f"Every analysis of {len(chosen)} runs is stored already; --again computes them anew.")


def analyze_all(
    chosen: pl.DataFrame,
    settings: Settings,
    positions: tuple[str, ...] = ("rare",),
    again: bool = False,
    only: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Compute and store what the chosen runs and their series lack; returns a row per analysis.

    Args:
        chosen: rows of `dim_run`.
        settings: which warehouse.
        positions: where coordination is measured.
        again: also what they have.
        only: of the analyses of a run, those of these names; none: all.
    """
    runs = chosen.iter_rows(named=True)
    done = [row for run_row in runs for row in _analyze(run_row, settings, positions, again, only)]
    return done + _analyze_series(chosen["run_id"].to_list(), settings, again)


def _analyze(
    run_row: dict[str, Any],
    settings: Settings,
    positions: tuple[str, ...],
    again: bool,
    only: Collection[str] | None,
) -> list[dict[str, Any]]:
    """Compute and store what one run lacks; returns a row per analysis that was computed."""
    from rare_tokens.analyses.registry import due, processes

    run_id = run_row["run_id"]
    known = warehouse.stored(settings.warehouse, run_id, wait=settings.wait)
    parameters = {name: found.parameters for name, found in known.items()}
    missing = due(parameters, positions=positions, again=again)
    missing = [analysis for analysis in missing if only is None or analysis.name in only]
    kept = [name for name in known if name not in {analysis.name for analysis in missing}]
    if old := sorted({known[name].code_version for name in kept} - {VERSION}):
        settings.say(f"{run_id} was analysed by version {', '.join(old)}; --again computes it with {VERSION}.")
    ask = cache(partial(_ask, settings, run_id))
    done = []
    with (
        processes(missing, run_row["positions"] * run_row["neurons"]) as pool,
        progress(f"Analyse {run_id}", len(missing), "analyses", quiet=settings.quiet) as advance,
    ):
        for analysis in missing:
            start = time.perf_counter()
            frames = analysis.compute(ask, analysis.parameters, pool)
            row = {"run_id": run_id, "analysis": analysis.name, "seconds": round(time.perf_counter() - start, 2)}
            rows = warehouse.store(
                settings.warehouse, run_id, analysis.name, frames, parameters=analysis.parameters,
                code_version=VERSION, seconds=row["seconds"], published_at=run_row["published_at"], wait=settings.wait,
            )  # fmt: skip
            done.append(row | {"rows": rows})
            advance()
    return done


def _analyze_series(chosen: list[str], settings: Settings, again: bool) -> list[dict[str, Any]]:
    """Follow the series that the chosen runs belong to; returns a row per run that something was stored of."""
    from rare_tokens.analyses.across_runs.series import NAME, every_series, parameters, training

    done = []
    known = warehouse.runs(settings.warehouse, wait=settings.wait)
    for members in every_series(known.filter(pl.col("status").is_in(["published", "missing"]))):
        with_effects = members.filter(pl.col("status") == "published")
        ids, given = with_effects["run_id"].to_list(), parameters(members)
        stored = {run_id: warehouse.stored(settings.warehouse, run_id, wait=settings.wait) for run_id in ids}
        if not set(ids) & set(chosen) or any("influence_interval" not in found for found in stored.values()):
            continue
        if not again and all(NAME in found and found[NAME].parameters == given for found in stored.values()):
            continue
        start = time.perf_counter()
        with working("Follow the series", quiet=settings.quiet):
            frame = training({run_id: cache(partial(_ask, settings, run_id)) for run_id in ids}, members)
        seconds = round((time.perf_counter() - start) / len(ids), 2)
        for run_row in with_effects.iter_rows(named=True):
            of_run = frame.filter(pl.col("run_id") == run_row["run_id"]).drop("run_id")
            rows = warehouse.store(
                settings.warehouse, run_row["run_id"], NAME, {NAME: of_run}, parameters=given, code_version=VERSION,
                seconds=seconds, published_at=run_row["published_at"], wait=settings.wait,
            )  # fmt: skip
            done.append({"run_id": run_row["run_id"], "analysis": NAME, "seconds": seconds, "rows": rows})
    return done


def _ask(settings: Settings, run_id: str, source: "Source") -> Any:
    """What an analysis reads of a run."""
    from rare_tokens.analyses.registry import ACTIVATIONS

    path, wait = settings.warehouse, settings.wait
    key = {"preset": source.preset, "token_group": source.token_group}
    if source.relation == ACTIVATIONS:
        return warehouse.activations(path, run_id, **key, wait=wait)
    return warehouse.read(path, run_id, source.relation, **key, columns=source.columns, wait=wait)
