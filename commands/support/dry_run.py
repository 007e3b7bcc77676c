"""What `ingest --dry-run` says: the estimate of each run, and what all of them take."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import polars as pl

from rare_tokens.commands.support.ingested import Ingested
from rare_tokens.commands.support.requests import Requests
from rare_tokens.commands.support.settings import Settings
from rare_tokens.commands.support.terminal import show, show_groups
from rare_tokens.common.errors import UserError
from rare_tokens.common.files import size_in_words
from rare_tokens.common.progress import working
from rare_tokens.common.text import plural

if TYPE_CHECKING:
    from rare_tokens.ingest.attention.measure import AttentionOptions
    from rare_tokens.ingest.estimate import Estimate
    from rare_tokens.ingest.run.request import Request


def show_estimates(requests: Requests, heads: "AttentionOptions", settings: Settings, began: float) -> None:
    """Print the estimate of each run; `began` is when the command did, since when the first is being found."""
    from rare_tokens.ingest.estimate import UNKNOWN, Estimate, estimates
    from rare_tokens.ingest.run.checkpoints import Gap
    from rare_tokens.ingest.run.loading import Loader

    made: list[Estimate] = []
    ingested, loader, before = Ingested(), Loader(), _Before()
    for asked in requests.together():
        found = time.perf_counter() - began
        if isinstance(asked, Gap):
            ingested.run_ids.append(asked.run_id)
            if asked.is_failure:
                ingested.fail(asked.run_id, UserError(asked.why))
            continue
        ingested.run_ids += [one.run_id for one in asked]
        attention = heads.request(int(asked[0].config.num_hidden_layers))
        try:
            with working(f"Try a few positions of {asked[0].run_id}", quiet=settings.quiet):
                made += estimates(asked, attention, found=found, loader=loader, done=before.done(asked[0]))
        except UserError as error:
            if not requests.goes_on:
                raise
            for request in asked:
                ingested.fail(request.run_id, error)
        began = time.perf_counter()
    if settings.json:
        show(pl.DataFrame([asdict(one) for one in made]), settings.form)
    elif made:
        show_groups({one.run_id: _lines(one) for one in made}, right=("value",))
    for one in made:
        settings.say(f"{one.run_id}: {_in_words(one)}")
        if one.path == UNKNOWN:
            settings.say(
                f"{one.run_id}: whether the dense path is needed cannot be told without the weights. The figures are "
                "those of the dense path, the most it can take; the ingest says which it is before it starts."
            )
    if len(made) > 1:
        settings.say(_total(made))
    ingested.require_all()


HOURS_FROM = 120  # minutes


class _Before:
    """What the runs before one have done for it: the same model is loaded, and the same text drawn, only once."""

    def __init__(self) -> None:
        self._model: object = None
        self._texts: set[tuple[str, str]] = set()

    def done(self, request: "Request") -> list[str]:
        """The stages that are done for a run."""
        from rare_tokens.ingest.forecast.extrapolation import LOAD, TEXT

        text = (request.tokenizer_id, request.frequency_source_id)
        found = [LOAD] * (request.folder == self._model) + [TEXT] * (text in self._texts)
        self._model = request.folder
        self._texts.add(text)
        return found


def _lines(found: "Estimate") -> pl.DataFrame:
    """An estimate as lines of name, value, unit; what does not concern the run is left out."""

    def size(name: str, count: int) -> tuple[str, str, str]:
        value, unit = size_in_words(count).split(" ")
        return name, value, unit

    path = {"dense": "dense: the model is run again", "unknown": "not known yet"}
    hours = found.minutes >= HOURS_FROM
    lines = [
        ("time", f"{found.minutes / 60:,.1f}" if hours else f"{found.minutes:,.1f}", "hours" if hours else "minutes"),
        size("memory at the peak", found.memory_bytes),
        size("memory available", found.memory_available),
        size("disk while it runs", found.disk_bytes),
        size("warehouse grows by", found.warehouse_bytes),
        ("positions", f"{found.positions:,}", ""),
        ("neurons", f"{found.neurons:,}", f"of layer {found.layer}"),
        ("effects (positions × neurons)", f"{found.fact_rows:,}", "rows"),
        ("path", path.get(found.path, found.path), ""),
    ]
    if found.rerun_positions:
        lines.append(("positions run again", f"{found.rerun_positions:,}", "at most"))
    if found.offloaded_bytes:
        lines.append(size("weights kept off the device", found.offloaded_bytes))
    if found.attention_rows:
        lines.append(("attention, included above", f"{found.attention_rows:,}", "rows"))
        lines.append(("", f"{found.attention_minutes:,.1f}", "minutes"))
    return pl.DataFrame(lines, ["name", "value", "unit"], orient="row")


def _in_words(found: "Estimate") -> str:
    """Where the minutes of an estimate come from, and where they go."""
    stages = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in found.stage_seconds.items() if seconds >= 1)
    if found.minutes_source == "measured":
        return f"minutes are measured on a few positions: {stages}."
    return f"minutes are reckoned from rates of other runs, since {found.minutes_why}: {stages}."


def _total(made: "Sequence[Estimate]") -> str:
    """What several runs take together."""
    rows, stored = (sum(getattr(one, name) for one in made) for name in ("fact_rows", "warehouse_bytes"))
    most = max(one.memory_bytes for one in made)
    dense = [one.minutes for one in made if one.rerun_positions]
    total = (
        f"All {len(made)} runs: {rows:,} fact rows, {size_in_words(stored)} in the warehouse, "
        f"{size_in_words(most)} of memory at the peak, {_time_in_words(sum(one.minutes for one in made))}"
    )
    if not dense:
        return f"{total}."
    return f"{total}, of which {_time_in_words(sum(dense))} for {plural(len(dense), 'run')} on the dense path."


def _time_in_words(minutes: float) -> str:
    if minutes < HOURS_FROM:
        return f"{minutes:,.1f} minutes"
    return f"{minutes:,.0f} minutes ({minutes / 60:,.1f} hours)"
