"""Which process holds a run, and whether it is still alive."""

import os
import platform
import time

import psutil


def current() -> str:
    """This process as text: host, PID and start (a PID alone is used again after the process is gone)."""
    return f"{platform.node()} {os.getpid()} {psutil.Process().create_time():.3f}"


def holder(process: str | None) -> int | None:
    """PID of the process that `current` described, or None where it is gone.

    A process of another host cannot be asked; it counts as alive.
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
