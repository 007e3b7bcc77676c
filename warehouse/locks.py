"""Locks: one process at a time works on a run's parts, and whether the process that holds them is still alive."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import SoftFileLock, Timeout

from rare_tokens.common.errors import LockedError


@contextmanager
def claim(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the folder of a run's parts within this context, so that no other process writes to it.

    The claim is a file next to the folder that names the process; a dead process's claim does not count.

    Args:
        folder: for the run's parts; it need not exist yet.
        wait: seconds to wait for another process.

    Raises:
        LockedError: another process holds it; the message gives its PID.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = SoftFileLock(folder.with_name(folder.name + ".lock"), timeout=wait)
    try:
        lock.acquire()
    except Timeout as error:
        who = f"Process {lock.pid}" if lock.pid else "Another process"
        raise LockedError(
            f"{who} is working on run {folder.name}. Wait for it to end, or give --wait SECONDS."
        ) from error
    try:
        yield
    finally:
        lock.release()


def current() -> str:
    """This process as text: host, PID and start time (PIDs are reused)."""
    return f"{platform.node()} {os.getpid()} {psutil.Process().create_time():.3f}"


def holder(process: str | None) -> int | None:
    """PID of the process that `current` described, or None if it is gone.

    A process on another host cannot be checked; it counts as alive.
    """
    if process is None:
        return None
    host, pid, started = process.rsplit(" ", 2)
    if host != platform.node():
        return int(pid)
    try:
        alive = abs(psutil.Process(int(pid)).create_time() - float(started)) < 1
    except psutil.NoSuchProcess:
        return None
    return int(pid) if alive else None


def other_holder(process: str | None) -> int | None:
    """PID of the live process that `current` described, unless it is this one."""
    return None if process == current() else holder(process)


def wait_until(deadline: float) -> bool:
    """Sleep a little; False once the deadline (`time.monotonic`) has passed."""
    if time.monotonic() >= deadline:
        return False
    time.sleep(0.1)
    return True
