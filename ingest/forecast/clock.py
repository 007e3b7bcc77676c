"""Timing pieces of a run, the device's share of the work included."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Found = TypeVar("Found")


def timed(work: Callable[[], Found], device: str = "cpu") -> tuple[float, Found]:
    """Seconds that a piece of work takes on a device, and what it returns."""
    _settle(device)
    start = time.perf_counter()
    found = work()
    _settle(device)
    return time.perf_counter() - start, found


def _settle(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()
