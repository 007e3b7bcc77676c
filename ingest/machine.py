"""The machine: how fast and in which precision it multiplies matrices, and its memory."""

import ctypes
import functools
import platform
import time

import torch

_SIZE = 1536


def matrix_rate(device: str, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of a matrix product on the device, measured in well under a second.

    All estimates of time use it.
    """
    left = torch.randn(_SIZE, _SIZE, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        float((left @ left)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best


@functools.cache
def reduced_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it itself (CUDA; avx512_bf16 or amx_bf16 on a CPU), else float32.

    The processor is asked, not timed: timings on a busy machine would choose differently from run to run, and the same
    command would no longer give the same bits.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return torch.float32
    found = torch.cpu.get_capabilities()
    return torch.bfloat16 if found.get("avx512_bf16") or found.get("amx_bf16") else torch.float32


def release_memory() -> None:
    """Give the system back what the C library's allocator holds free.

    Tensors of many sizes leave gaps in its heap that it keeps: a model that is fetched block by block left a gigabyte.
    """
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
