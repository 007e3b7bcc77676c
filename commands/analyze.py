"""The command `analyze`: computes and stores what runs and sets of them lack."""

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
from rare_tokens.common.text import plural
from rare_tokens.common.version import VERSION

if TYPE_CHECKING:
    from rare_tokens.analyses.analysis import SetAnalysis, Source


@click.command()
@click.argument("wanted", nargs=-1, metavar="[RUN]...", shell_complete=run_ids)
@click.option(
    "--positions",
    multiple=True,
    type=click.Choice(["rare", "common", "all"]),
    default=("rare",),
    show_default=True,
    help="Positions at which coordination is measured; repeatable, and added to what is stored.",
)
@click.option("--again", is_flag=True, help="Recompute and replace what is stored.")
@global_options
def analyze(settings: Settings, wanted: tuple[str, ...], positions: tuple[str, ...], again: bool) -> None:
    """Compute and store the analyses that runs lack.

    Covers all runs, or those named: regimes, intervals, groups, coordination, graphs, spectra and tests. A run that has
    them all is left as it is.
    """
    from rare_tokens.analyses.reference import published_values

    chosen = published_runs(settings, wanted)
    warehouse.store_published_values(settings.warehouse, published_values(), wait=settings.wait)
    done = analyze_all(chosen, settings, positions, again)
    if done or settings.json:
        show(pl.DataFrame(done), settings.form)
    if not done:
        settings.say(f"Every analysis of {plural(len(chosen), 'run')} is stored already; --again recomputes them.")


def analyze_all(
    chosen: pl.DataFrame,
    settings: Settings,
    positions: tuple[str, ...] = ("rare",),
    again: bool = False,
    only: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Compute and store what the chosen runs and the sets they are in lack; returns a row per analysis.

    Args:
        chosen: rows of `dim_run`.
        settings: which warehouse.
        positions: where coordination is measured.
        again: compute also what they have.
        only: names of the analyses of a run to compute; None: all.
    """
    runs = chosen.iter_rows(named=True)
    done = [row for run_row in runs for row in _analyze(run_row, settings, positions, again, only)]
    return done + _analyze_sets(chosen["run_id"].to_list(), settings, again)


def _analyze(
    run_row: dict[str, Any],
    settings: Settings,
    positions: tuple[str, ...],
    again: bool,
    only: Collection[str] | None,
) -> list[dict[str, Any]]:
    """Compute and store what a run lacks; returns a row per analysis that was computed."""
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
            advance(0, analysis.name)
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


def _analyze_sets(chosen: list[str], settings: Settings, again: bool) -> list[dict[str, Any]]:
    """Compute what concerns several of the runs at once: series, references; returns a row per run with new results."""
    from rare_tokens.analyses.registry import OF_SETS, needed

    done = []
    known = warehouse.runs(settings.warehouse, wait=settings.wait)
    stored = cache(partial(warehouse.stored, settings.warehouse, wait=settings.wait))
    for analysis in OF_SETS:
        for members in analysis.sets(known):
            ids = members.filter(pl.col("status") == "published")["run_id"].to_list()
            given, name = analysis.parameters(members), analysis.name
            if not set(ids) & set(chosen) or any(set(needed(analysis)) - set(stored(run_id)) for run_id in ids):
                continue
            found = [stored(run_id).get(name) for run_id in ids]
            if again or any(one is None or one.parameters != given for one in found):
                done += _analyze_set(analysis, members, settings)
    return done


def _analyze_set(analysis: "SetAnalysis", members: pl.DataFrame, settings: Settings) -> list[dict[str, Any]]:
    """Compute one analysis of a set (rows of `dim_run`) and store it with each run; returns a row per run."""
    with_effects = members.filter(pl.col("status") == "published")
    start = time.perf_counter()
    with working(analysis.doing, quiet=settings.quiet):
        asks = {run_id: cache(partial(_ask, settings, run_id)) for run_id in with_effects["run_id"]}
        frames = analysis.compute(asks, members)
    seconds = round((time.perf_counter() - start) / len(with_effects), 2)
    done = []
    for run_row in with_effects.iter_rows(named=True):
        run_id = run_row["run_id"]
        of_run = {name: frame.filter(pl.col("run_id") == run_id).drop("run_id") for name, frame in frames.items()}
        rows = warehouse.store(
            settings.warehouse, run_id, analysis.name, of_run, parameters=analysis.parameters(members),
            code_version=VERSION, seconds=seconds, published_at=run_row["published_at"], wait=settings.wait,
        )  # fmt: skip
        done.append({"run_id": run_id, "analysis": analysis.name, "seconds": seconds, "rows": rows})
    return done


def _ask(settings: Settings, run_id: str, source: "Source") -> Any:
    """Read what an analysis needs from a run."""
    from rare_tokens.analyses.analysis import ACTIVATIONS, EFFECTS

    path, wait = settings.warehouse, settings.wait
    key = {"preset": source.preset, "token_group": source.token_group}
    if source.relation == ACTIVATIONS:
        return warehouse.activations(path, run_id, preset=source.preset, token_group=source.token_group, wait=wait)
    if source.relation == EFFECTS:
        return warehouse.Magnitudes(path, run_id, wait=wait)
    return warehouse.read(
        path, run_id, source.relation, **key, columns=source.columns, group_names=source.group_names, wait=wait
    )
