"""Rows of a block on several threads at once.

torch's own threads wait for each other after every operation. Each thread here takes its own rows through all
operations, and they meet only when a piece of the vocabulary is done.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch

T = TypeVar("T")
STRIPES = 4  # threads with rows of their own, at most; any more that torch has work within these


class Stripes:
    """Threads that share the rows of a block; a context, within which torch's own threads are divided among them."""

    def __init__(self, device: torch.device) -> None:
        """Use as many threads as torch may, up to `STRIPES`; on an accelerator only the caller's."""
        self._threads = torch.get_num_threads()
        self._on_processor = device.type == "cpu"
        self.count = min(STRIPES, self._threads) if self._on_processor else 1
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Stripes":
        """Start the threads, if there are several."""
        if self.count > 1:
            own = self._threads // self.count
            self._pool = ThreadPoolExecutor(self.count, "stripe", lambda: torch.set_num_threads(own))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the threads and give torch its own back."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    def split(self, total: int, held: int) -> list[slice]:
        """Split `total` rows into slices of nearly equal size, for threads that together hold at most `held` rows.

        On a processor the slices do not depend on the number of threads, and so neither do the bits of a result.
        """
        shared = STRIPES if self._on_processor else 1
        slices = min(total, shared * -(-total // held))
        size = -(-total // max(1, slices))
        return [slice(start, min(start + size, total)) for start in range(0, total, max(1, size))]

    def map(self, work: Callable[[slice], T], slices: list[slice]) -> list[T]:
        """Results of `work` for every slice, in order. It runs in any order, and may write only to its own rows."""
        if self._pool is None:
            return [work(rows) for rows in slices]
        inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def as_the_caller(rows: slice) -> T:  # these modes are each thread's own
            with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
                return work(rows)

        return list(self._pool.map(as_the_caller, slices))
