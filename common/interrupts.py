"""Ctrl-C while a library is at work tells it to stop; otherwise it would first finish what it is doing.

A DuckDB query notices an exception in Python's thread, but not in its own, and ends only when they have done their
share.
"""

import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

Given = TypeVar("Given")
_known: "weakref.WeakKeyDictionary[Any, Callable[[Any], None]]" = weakref.WeakKeyDictionary()


def stoppable(given: Given, stop: Callable[[Given], None]) -> Given:
    """Have Ctrl-C call ``stop(given)`` for as long as `given` lives; return it. Called from a signal handler."""
    _known[given] = stop
    return given


@contextmanager
def stopped_by_ctrl_c() -> Iterator[None]:
    """Within this context SIGINT stops everything that is `stoppable`, then raises KeyboardInterrupt.

    Does nothing in a thread, or if SIGINT is ignored (as for a shell's background jobs).
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    for given, stop in list(_known.items()):
        stop(given)
    raise KeyboardInterrupt
