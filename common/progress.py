"""Progress of long steps: on stderr, only on a terminal, with rate and time left.

The time left begins as it is forecast, where there is a forecast; what is done corrects it.
"""

import sys
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


class Advance(Protocol):
    """Called with the number of units done since the last call."""

    def __call__(self, done: int = 1) -> None:
        """Count `done` more units."""


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
    """Show a bar for a step of `total` units while the context lasts; yield the function that advances it.

    Nothing is written if stderr is not a terminal or `quiet` is set.

    Args:
        title: of the step.
        total: units in it.
        unit: their name.
        quiet: show nothing.
        expected: seconds that the units left are forecast to take.
        already: how many units are done before it begins.
    """
    if not is_shown(quiet=quiet):
        yield lambda done=1: None  # noqa: ARG005
        return
    bar = _shown(BarColumn(), TextColumn("{task.percentage:3.0f} %"), _Rate(unit), TimeElapsedColumn(), _Left())
    with bar:
        task = bar.add_task(fitted(title), total=total, completed=already, expected=expected, already=already, at=0.0)

        def advance(done: int = 1) -> None:
            bar.update(task, advance=done, at=bar.tasks[0].elapsed or 0.0)

        yield advance


@contextmanager
def working(title: str, *, quiet: bool = False, expected: float | None = None) -> Iterator[None]:
    """Show that a step that cannot be counted is running, and for how long, while the context lasts.

    Nothing is written if stderr is not a terminal or `quiet` is set. Bars shown within the context come below it.
    `expected` is how many seconds it is forecast to take.
    """
    if not is_shown(quiet=quiet):
        yield
        return
    columns = (SpinnerColumn(), TimeElapsedColumn(), *([] if expected is None else [_Left()]))
    with _shown(*columns) as spinner:
        spinner.add_task(fitted(title), total=None, expected=expected, already=0, at=0.0)
        yield


def _shown(*columns: ProgressColumn) -> Progress:
    """Stdout is left alone, so results never end up between bars. A title is plain text, whatever a run is called."""
    title = TextColumn("{task.description}", markup=False)
    return Progress(title, *columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
