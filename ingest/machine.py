"""The machine: how fast it multiplies matrices, which every estimate of time is made from, and its memory."""

import ctypes
import platform
import time

import torch

_SIZE = 1536


def matrix_rate(device: str, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a matrix product on the device, measured in well under a second."""
    left = torch.randn(_SIZE, _SIZE, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        float((left @ left)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best


def release_memory() -> None:
    """Give the system back what the C library's allocator holds free.

    Tensors of many sizes leave gaps in its heap that it keeps: a model that is fetched block by block left a gigabyte.
    """
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
