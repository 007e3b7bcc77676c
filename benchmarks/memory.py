"""Memory of a process and all its workers together, shared pages counted once (Linux).

`ru_maxrss` does not do: of a worker it begins at what its parent had when it was started.
"""

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

INTERVAL = 0.05  # seconds between looks


class TreeMemory:
    """Watches this process and its children, and keeps the largest sum of their proportional set sizes.

    Attributes:
        peak_gb: 0 where the system does not say.
    """

    def __init__(self) -> None:
        self.peak_gb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.peak_gb = max(self.peak_gb, sum(map(_proportional_kb, _tree())) * 1024 / 1e9)


def _tree() -> list[int]:
    """This process and its children."""
    own = os.getpid()
    return [own, *(process for process in map(int, filter(str.isdigit, _processes())) if _parent(process) == own)]


def _processes() -> list[str]:
    return [path.name for path in Path("/proc").iterdir()] if Path("/proc").is_dir() else []


def _parent(process: int) -> int | None:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):  # it has ended meanwhile
        return None


def _proportional_kb(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
