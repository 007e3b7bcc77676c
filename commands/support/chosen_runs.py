"""The runs that a command is about."""

from collections.abc import Collection
from typing import Any

import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.settings import Settings
from rare_tokens.common.errors import UserError
from rare_tokens.common.program import command
from rare_tokens.common.text import visible
from rare_tokens.warehouse.runs import IN_SHORT


def listed_runs(settings: Settings, wanted: list[str] | None = None) -> pl.DataFrame:
    """The runs, or those wanted in their order: with --json all that is known of each, else what fits a screen."""
    found = warehouse.runs(settings.warehouse, wait=settings.wait)
    if wanted is not None:
        places = pl.DataFrame({"run_id": list(dict.fromkeys(wanted))}, schema={"run_id": pl.String})
        found = places.join(found, on="run_id", how="inner", maintain_order="left")
    return found if settings.json else found.select(IN_SHORT)


def say_warnings(settings: Settings, wanted: list[str], said: Collection[str] = ()) -> None:
    """Say the warnings about runs (`run_warning`), each once, except kinds that were said already."""
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        found = opened.run_warning(run_id=wanted).sort("kind", "preset", "run_id")
    found = found.filter(~pl.col("kind").is_in(list(said)))
    for message, of in found.group_by("message", maintain_order=True).agg("run_id").iter_rows():
        others = f" and {len(of) - 1} more" if len(of) > 1 else ""
        settings.say(f"Warning, {of[0]}{others}: {visible(message)}")


def published_runs(settings: Settings, wanted: tuple[str, ...]) -> pl.DataFrame:
    """The published runs (`dim_run`), or those named, each of which must be published."""
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        chosen = opened.dim_run(run=list(wanted)) if wanted else opened.dim_run(status="published")
    if chosen.is_empty():
        raise UserError(
            f"{settings.warehouse} holds no published run to report on. `{command('ingest --model gpt2')}` makes one."
        )
    for run_row in chosen.filter(pl.col("status") != "published").iter_rows(named=True):
        why = f" ({run_row['status_reason']})" if run_row["status_reason"] else ""
        raise UserError(f"Run {run_row['run_id']} is {run_row['status']}{why}: there is nothing to report on it.")
    return chosen


def one_run(settings: Settings, wanted: str | None) -> dict[str, Any]:
    """The published run named by the start of its id, or the only one, or the one made last (which is said).

    Raises:
        UserError: there is no such run, or it is not published.
    """
    chosen = published_runs(settings, () if wanted is None else (wanted,))
    if wanted is None and len(chosen) > 1:
        chosen = chosen.sort("created_at", "run_id").tail(1)
        settings.say(f"Run {chosen['run_id'][0]}, the last one made. Name another after it; `runs` lists them.")
    return chosen.row(0, named=True)
