"""One process at a time on the parts of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLock, Timeout

from common.errors import LockedError


@contextmanager
def claim(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the folder of a run's parts for the block, so that no other process writes to it.

    The claim is a file beside the folder that names the process; that of a process that is gone does not count.

    Args:
        folder: the run's parts; need not exist yet.
        wait: seconds to wait for another process.

    Raises:
        LockedError: another process holds it, with its PID.
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
