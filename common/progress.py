"""Progress of long steps: on stderr, only on a terminal, with rate and time left."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Task as _Task
from rich.text import Text


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
    """Show a bar for a step of `total` units while the block runs; yields the function that advances it.

    Nothing is written where stderr is no terminal or `quiet` is set.
    """
    console = Console(stderr=True)
    if quiet or not sys.stderr.isatty():
        yield lambda done=1: None  # noqa: ARG005
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    bar = Progress(*columns, _Rate(unit), TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda done=1: bar.advance(task, done)
