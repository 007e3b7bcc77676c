"""Ctrl-C while the database is at work ends the command at once, whatever thread of the engine does the work."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rare_tokens import warehouse
from rare_tokens.warehouse.connection import reading, writing
from tests.support.commands import Commands

LONG = "select count(*) from range(100_000_000_000) t(i) where i % 7 = 3"  # minutes


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Have Ctrl-C raise, also where whoever started the tests had it ignored, as a shell does in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("opened", [reading, writing])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_query_is_stopped_at_once(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Any, threads: int
) -> None:
    def busy(*_arguments: Any, **_given: Any) -> None:
        with opened(tmp_path / "w.duckdb") as con:
            if opened is writing:
                con.execute(f"set threads = {threads}")
            threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            con.execute(LONG)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(warehouse, "runs", busy)
    start = time.monotonic()
    ended = commands("runs")
    assert (ended.code, time.monotonic() - start < 30) == (130, True), ended.err
    assert "Interrupted" in ended.err
    assert signal.getsignal(signal.SIGINT) is handler


def test_closed_connections_and_ignored_signals_are_left_alone(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading(tmp_path / "w.duckdb") as con:
        pass
    monkeypatch.setattr(warehouse, "runs", lambda *_a, **_g: os.kill(os.getpid(), signal.SIGINT))
    assert commands("runs").code == 130
    con.close()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        commands("runs")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
