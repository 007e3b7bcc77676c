"""Memory of a process and all its workers together, shared pages counted once (Linux).

`ru_maxrss` is not enough: for a worker it starts at what its parent had when the worker was started.

    python -m benchmarks.memory.head [--neurons 14336] [--vocabulary 256000] [--width 3584] [--positions 512]

measures what ablating a head of that shape takes besides its memory-mapped weights and captured arrays: a random head,
final norm and unembedding only. Pages of mapped files, which the system takes back at will, are not counted.
"""

import argparse
import json
import os
import platform
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from benchmarks import result
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.model.head import Head
from rare_tokens.ingest.model.norms import NormForm

INTERVAL = 0.05  # seconds between looks


class TreeMemory:
    """Watches this process and its children, and keeps the largest sum of their proportional set sizes.

    Attributes:
        peak_gb: that sum; 0 if the system does not tell.
    """

    def __init__(self, mapped_files: bool = True) -> None:
        """Count pages of mapped files, unless `mapped_files` is false."""
        self.peak_gb = 0.0
        self._field = "Pss:" if mapped_files else "Pss_Anon:"
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
            self.peak_gb = max(self.peak_gb, self.now_gb())

    def now_gb(self) -> float:
        """The sum at this moment."""
        return sum(_proportional_kb(process, self._field) for process in _tree()) * 1024 / 1e9


def _tree() -> list[int]:
    """This process and its children."""
    own = os.getpid()
    return [own, *(process for process in map(int, filter(str.isdigit, _processes())) if _parent(process) == own)]


def _processes() -> list[str]:
    return [path.name for path in Path("/proc").iterdir()] if Path("/proc").is_dir() else []


def _parent(process: int) -> int | None:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):  # the process has ended
        return None


def _proportional_kb(process: int, field: str) -> int:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(field)), 0)


def mapped(folder: Path, name: str, rows: int, columns: int, scale: float) -> torch.Tensor:
    """Random rows x columns in a memory-mapped file, which takes none of the process's memory."""
    generator = np.random.default_rng(len(name))
    array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (rows, columns))
    for start in range(0, rows, 4096):
        part = array[start : start + 4096]
        part[:] = generator.standard_normal(part.shape, dtype=np.float32) * scale
    array.flush()
    return torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c"))


def ablated(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Ablate every neuron of a random head at `positions` positions, and watch the memory."""
    V, d, N, T = options.vocabulary, options.width, options.neurons, options.positions
    norm = NormForm(False, torch.ones(d), None, 1e-5)
    head = Head(mapped(folder, "unembedding", V, d, d**-0.5), None, norm)
    w, x, n = (
        mapped(folder, name, *shape, scale)
        for name, shape, scale in (("w_out", (N, d), 0.15), ("residual", (T, d), 1.0), ("activations", (T, N), 0.3))
    )
    targets = torch.arange(T) % V
    start = time.perf_counter()
    with TreeMemory(mapped_files=False) as memory:
        before = memory.now_gb()
        ablation = Ablation(head, w, torch.zeros(N), sample=x[:64], memory=options.memory)
        block = ablation.preferred_positions(T)
        exact = 0
        for k in range(0, T, block):
            found = ablation.ablate(x[k : k + block], n[k : k + block], targets[k : k + block])
            exact += found.exact_pairs
            del found
    return {
        "vocabulary": V,
        "width": d,
        "neurons": N,
        "positions": T,
        "position_block": block,
        "memory_option_gb": options.memory / 1e9,
        "peak_above_start_gb": round(memory.peak_gb - before, 3),
        "seconds": round(time.perf_counter() - start, 1),
        "threads": torch.get_num_threads(),
        "exact_share": exact / (T * N),
    }


def main() -> None:
    """Measure, print, and add the row to the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("neurons", 14336), ("vocabulary", 256_000), ("width", 3584), ("positions", 512)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--memory", type=int, default=1 << 31, help="bytes a block may take")
    parser.add_argument("--out", type=Path, default=result("memory"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        row = ablated(Path(folder), options)
    print(json.dumps(row))
    cpu = next((line for line in _cpu_lines() if line.startswith("model name")), platform.processor())
    machine = {"cpu": cpu.split(":", 1)[-1].strip(), "cores": os.cpu_count(), "torch": torch.__version__}
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    options.out.write_text(json.dumps({"machine": machine, "rows": [*rows, row]}, indent=1) + "\n")


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
