"""Progress of long steps on stderr: on a terminal a bar with rate and time left, elsewhere a line now and then.

The time left begins as it is forecast, where there is a forecast; what is done corrects it.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Task as _Task
from rich.text import Text

from rare_tokens.common.text import fitted

PRIOR = 0.1  # share of the work that a forecast counts as
SILENT_SECONDS = 3.0  # off a terminal a step that is done by then gets no line
LINE_SECONDS = 60.0  # between two lines about one step


class Advance(Protocol):
    """Called with the number of units done since the last call."""

    def __call__(self, done: int = 1, doing: str | None = None) -> None:
        """Count `done` more units; `doing` names what comes next."""


class _Rate(TextColumn):
    def __init__(self, unit: str) -> None:
        super().__init__("")
        self.unit = unit

    def render(self, task: _Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {self.unit}/s", style="dim")


def seconds_left(expected: float | None, share: float, at: float, elapsed: float) -> float | None:
    """Seconds that a step has left; None while nothing tells.

    Args:
        expected: seconds that the whole step is forecast to take; None: there is no forecast. It counts as much as
            having seen a tenth of the work.
        share: of the work, that is done.
        at: when the last of that was done, in seconds since the step began.
        elapsed: now, likewise.
    """
    if expected is None and share == 0:
        return None
    prior = 0.0 if expected is None else PRIOR
    total = (prior * (expected or 0.0) + at) / (prior + share)
    return max(0.0, total * (1 - share) - (elapsed - at))


class _Left(ProgressColumn):
    """The time left of a task with the fields `expected`, `already` (units done before it began) and `at`."""

    max_refresh = 0.5

    def render(self, task: _Task) -> Text:
        known, elapsed = task.fields, task.elapsed or 0.0
        of = (task.total or 0.0) - known["already"]
        share = (task.completed - known["already"]) / of if of > 0 else 0.0
        left = seconds_left(known["expected"], share, known["at"], elapsed)
        return Text("-:--:--" if left is None else str(timedelta(seconds=round(left))), style="progress.remaining")


def is_shown(*, quiet: bool) -> bool:
    """Whether progress is shown at all: on a terminal, unless `quiet` is set."""
    return not quiet and sys.stderr.isatty()


@contextmanager
def progress(
    title: str, total: int, unit: str, *, quiet: bool = False, expected: float | None = None, already: int = 0
) -> Iterator[Advance]:
    """Show a step of `total` units while the context lasts; yield the function that advances it.

    Nothing is written if `quiet` is set. On a terminal it is a bar; elsewhere a line when the step has taken some
    seconds, one each minute, and one when it is done.

    Args:
        title: of the step.
        total: units in it.
        unit: their name.
        quiet: show nothing.
        expected: seconds that the units left are forecast to take.
        already: how many units are done before it begins.
    """
    if not is_shown(quiet=quiet):
        with _lines(title, quiet=quiet, of=f"{total:,} {unit}", already=already) as advance:
            yield advance
        return
    columns = (BarColumn(), TextColumn("{task.percentage:3.0f} %"), _Rate(unit), TimeElapsedColumn(), _Left())
    with _shown(*columns) as bar:
        task = bar.add_task(fitted(title), total=total, completed=already, expected=expected, already=already, at=0.0)

        def advance_bar(done: int = 1, doing: str | None = None) -> None:
            name = None if doing is None else fitted(f"{title}: {doing}")
            bar.update(task, advance=done, description=name, at=bar.tasks[0].elapsed or 0.0)

        yield advance_bar


@contextmanager
def working(title: str, *, quiet: bool = False, expected: float | None = None) -> Iterator[None]:
    """Show that a step that cannot be counted is running, and for how long, while the context lasts.

    Nothing is written if `quiet` is set; off a terminal it has lines as `progress` says. Bars shown within the context
    come below it. `expected` is how many seconds it is forecast to take.
    """
    if not is_shown(quiet=quiet):
        with _lines(title, quiet=quiet):
            yield
        return
    columns = (SpinnerColumn(), TimeElapsedColumn(), *([] if expected is None else [_Left()]))
    with _shown(*columns) as spinner:
        spinner.add_task(fitted(title), total=None, expected=expected, already=0, at=0.0)
        yield


@contextmanager
def _lines(title: str, *, quiet: bool, of: str = "", already: int = 0) -> Iterator[Advance]:
    """A step in lines: that it runs, once it has taken a while; how far it is; that it is done."""
    started = said = time.monotonic()
    sofar, now = already, ""

    def say(text: str) -> None:
        nonlocal said
        said = time.monotonic()
        print(fitted(title) + text, file=sys.stderr, flush=True)

    def far() -> str:
        return (f": {sofar:,} of {of}" if of else " …") + (f", {now}" if now else "")

    def advance(done: int = 1, doing: str | None = None) -> None:
        nonlocal sofar, now
        sofar += done
        now = fitted(doing) if doing is not None else now
        if not quiet and not first.is_alive() and time.monotonic() - said >= LINE_SECONDS:
            say(far())

    first = threading.Timer(SILENT_SECONDS, lambda: say(far()))
    first.daemon = True
    if not quiet:
        first.start()
    try:
        yield advance
    finally:
        first.cancel()
    if not quiet and time.monotonic() - started >= SILENT_SECONDS:
        say(f": done in {time.monotonic() - started:,.0f} s")


_live: list[Console] = []  # of the bars that are shown; all within one step share its console, so that they stack


@contextmanager
def _shown(*columns: ProgressColumn) -> Iterator[Progress]:
    """Stdout is left alone, so results never end up between bars. A title is plain text, whatever a run is called.

    While it lasts, what is written to `sys.stderr` comes above it.
    """
    console = _live[-1] if _live else Console(stderr=True)
    title = TextColumn("{task.description}", markup=False)
    _live.append(console)
    try:
        with Progress(title, *columns, console=console, transient=True, redirect_stdout=False) as bars:
            yield bars
    finally:
        _live.pop()
