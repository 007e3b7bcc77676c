"""What a benchmark runs on, how fast it multiplies, and how much memory it took at most."""

import os
import platform
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rare_tokens.ingest.machine import reduced_precision

FAST_BF16 = 4.0


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of one call, the device's work included, and what it returned."""
    wait(device)
    start = time.perf_counter()
    result = run()
    wait(device)
    return time.perf_counter() - start, result


def wait(device: str) -> None:
    """Return when the device has done all it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def product_rate(width: int, device: str, dtype: torch.dtype) -> float:
    """Billions of operations per second of a product like the unembedding's in `dtype`, measured on this machine."""
    rates = []
    for rows, inner, columns in ((512, width, 16384), (1024, 1024, 4096)):
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)
        seconds = min(timed(partial(torch.matmul, left, right.T), device)[0] for _ in range(6))
        rates.append(2 * rows * inner * columns / seconds / 1e9)
    return max(rates)


def reset_peak(device: str) -> int:
    """Reset the peak memory, and return what is in use now."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
    return peak_bytes(device)


def peak_bytes(device: str) -> int:
    """Peak memory since `reset_peak`, of the process or the GPU."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    single, rounded = (product_rate(768, device, dtype) for dtype in (torch.float32, torch.bfloat16))
    found = {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "fast_bf16": rounded >= FAST_BF16 * single,
        "bf16_over_float32": round(rounded / single, 2),
        "float32_gflops": round(single),
        "reduced_precision": str(reduced_precision(torch.device(device))),
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found
