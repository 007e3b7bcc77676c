"""The runs that a command is about."""

from collections.abc import Collection

import polars as pl

from rare_tokens import warehouse
from rare_tokens.commands.support.settings import Settings
from rare_tokens.common.errors import UserError
from rare_tokens.common.program import command
from rare_tokens.common.text import visible

_RUN_COLUMNS = (
    "run_id",
    "status",
    "model",
    "revision",
    "layer",
    "ablation",
    "positions",
    "neurons",
    "corpus",
    "created_at",
)


def listed_runs(settings: Settings, wanted: list[str] | None = None) -> pl.DataFrame:
    """The runs, or those wanted in their order: with --json all that is known of each, else what fits a screen."""
    found = warehouse.runs(settings.warehouse, wait=settings.wait)
    if wanted is not None:
        places = pl.DataFrame({"run_id": list(dict.fromkeys(wanted))}, schema={"run_id": pl.String})
        found = places.join(found, on="run_id", how="inner", maintain_order="left")
    return found if settings.json else found.select(_RUN_COLUMNS)


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
