"""Progress of long steps: on stderr, only on a terminal, with rate and time left if the work can be counted."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as _Task
from rich.text import Text

from rare_tokens.common.text import fitted


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


@contextmanager
def progress(title: str, total: int, unit: str, *, quiet: bool = False) -> Iterator[Advance]:
    """Show a bar for a step of `total` units while the context lasts; yield the function that advances it.

    Nothing is written if stderr is not a terminal or `quiet` is set.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done=1: None  # noqa: ARG005
        return
    bar = _shown(BarColumn(), TextColumn("{task.percentage:3.0f} %"), _Rate(unit), TimeElapsedColumn(), _LEFT)
    with bar:
        task = bar.add_task(fitted(title), total=total)
        yield lambda done=1: bar.advance(task, done)


@contextmanager
def working(title: str, *, quiet: bool = False) -> Iterator[None]:
    """Show that a step that cannot be counted is running, and for how long, while the context lasts.

    Nothing is written if stderr is not a terminal or `quiet` is set. Bars shown within the context come below it.
    """
    if quiet or not sys.stderr.isatty():
        yield
        return
    with _shown(SpinnerColumn(), TimeElapsedColumn()) as spinner:
        spinner.add_task(fitted(title), total=None)
        yield


_LEFT = TimeRemainingColumn()


def _shown(*columns: ProgressColumn) -> Progress:
    """Stdout is left alone, so results never end up between bars. A title is plain text, whatever a run is called."""
    title = TextColumn("{task.description}", markup=False)
    return Progress(title, *columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
