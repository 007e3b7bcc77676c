"""What ablating every neuron costs, compared with published code, a hooked model and one plain forward pass.

    python -m benchmarks.speed.ablation [--shapes gpt2-small novella …] [--threads 4] [--positions 4096] [--out FILE]

Synthetic layers take their scale from `novella`'s last step (`layers`); the match is printed. Seconds are
for all T x N pairs (`forward`: T positions); methods that are too slow are timed on fewer, scaled linearly and
marked `extrapolated`; `cpu_seconds` are the process's own, less affected by other load. Errors are against
float64 over 100,000 pairs (`accuracy`). `fast_bf16` says whether bfloat16 products are at least four times as
fast as float32's, as on processors with matrix units; the measured ratio is given too.
"""

import argparse
import json
import math
import os
import platform
import resource
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.accuracy import errors, telling_pairs
from benchmarks.speed.forward import SHAPES, Shape, forward, hooked, timed
from benchmarks.speed.layers import Layer, captured, synthetic
from benchmarks.speed.table import RESULT, write
from rare_tokens.common.effects import EFFECTS, LOSS, chosen_effects
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.machine import reduced_precision

FAST_BF16 = 4.0
CHECKED_PAIRS = 126_000
PUBLISHED_CHUNKS = (16, 32, 64, 128, 256, 512, 1024)
# At most, so that each shape takes minutes on four cores
POSITIONS = {"gpt2-medium": 2048, "pythia-410m": 2048, "gpt2-large": 1024, "gpt2-xl": 1024}
POSITIONS |= {"pythia-2.8b": 512, "llama-3-8b": 256}


def ours(layer: Layer, device: str, effects: tuple[str, ...] = (LOSS,), check: int = CHECKED_PAIRS) -> dict[str, Any]:
    """The project's own method, including construction; its products alone, at the machine's rates, are the floor.

    `check` pairs are compared with float64; for that the series reports its bounds, which costs a little time too.
    """
    T, N = layer.activations.shape
    V, d = layer.head.unembedding.shape
    reference = layer.activations.mean(0)
    before = reset_peak(device)
    cpu = time.process_time()

    def run() -> tuple[Ablation, list[Any], int]:
        counts = torch.arange(V).flip(0) if any(EFFECTS[name].needs_counts for name in effects) else None
        ablation = Ablation(
            layer.head,
            layer.w_out,
            reference,
            effects=effects,
            unigram_counts=counts,
            sample=layer.residual[-256:],
            device=device,
            with_report=check > 0,
        )
        block = ablation.preferred_positions(T)
        found = [
            ablation.ablate(layer.residual[at], layer.activations[at], layer.targets[at])
            for at in (slice(k, k + block) for k in range(0, T, block))
        ]
        return ablation, found, block

    seconds, (ablation, blocks, block) = timed(run, device)
    cpu = time.process_time() - cpu
    peak = peak_bytes(device) - before
    top, common = (count / V for count in (ablation.folded.top, ablation.folded.common))
    single = 2.0 * T * V * (d * (3 + common) + N * (common + top)) + 2.0 * V * d * N * len(blocks)
    rounded = 2.0 * T * V * N * (1 - top + common + 1 + 1 - common)
    floor = single / product_rate(d, device, torch.float32) + rounded / product_rate(d, device, ablation.reduced)
    row = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "extrapolated": False,
        "peak_bytes": peak,
        "gflops": (single + rounded) / seconds / 1e9,
        "floor_seconds": floor / 1e9,
        "share_of_floor": floor / 1e9 / seconds,
        "position_block": block,
        "exact_share": sum(one.exact_pairs for one in blocks) / (T * N),
    }
    if check:
        reports = [one.report for one in blocks if one.report is not None]
        row["order2_share"] = sum(report.order2_pairs for report in reports) / (T * N)
        row["order3_share"] = 1 - row["order2_share"] - row["exact_share"]
        found = torch.cat([one.delta_loss for one in blocks]).cpu()
        bounds = torch.cat([report.share_of_tolerance for report in reports]).cpu()
        del blocks, reports
        row |= errors(layer, reference, found, telling_pairs(found, bounds, check))
    return row


def published(layer: Layer, device: str, seconds_allowed: float) -> dict[str, Any]:
    """Published code's method: each edited residual through norm, unembedding and log-softmax, a chunk at a time."""
    head = layer.head
    W_U, x, n = (value.to(device) for value in (head.unembedding, layer.residual, layer.activations))
    w, y, gain = layer.w_out.to(device), layer.targets.to(device), head.norm.gain.to(device)
    reference = n.mean(0)
    b = torch.zeros(len(W_U), device=device) if head.logit_bias is None else head.logit_bias.to(device)
    if head.norm.bias is not None:
        b = b + W_U @ head.norm.bias.to(device)

    room = torch.empty(2, PUBLISHED_CHUNKS[-1] * len(W_U), device=device) if device == "cpu" else None

    def normed(rows: Tensor) -> Tensor:
        rows = head.norm.centre(rows)
        return (rows * (rows.square().mean(1, keepdim=True) + head.norm.eps).rsqrt()).mul_(gain)

    def losses(rows: Tensor, target: Tensor) -> Tensor:
        if room is None:
            return -torch.log_softmax(torch.addmm(b, normed(rows), W_U.T), -1)[:, target]
        logits, log_p = room[:, : len(rows) * len(W_U)].view(2, len(rows), len(W_U))  # no fresh memory
        torch.addmm(b, normed(rows), W_U.T, out=logits)
        return -torch.log_softmax(logits, -1, out=log_p)[:, target]

    def chunk(t: int, start: int, size: int) -> Tensor:
        few = slice(start, start + size)
        return losses(x[t] + (reference[few] - n[t, few])[:, None] * w[few], y[t])

    N, T = len(w), len(x)
    rates: dict[int, float] = {}
    with torch.inference_mode():
        for size in PUBLISHED_CHUNKS:
            if size * W_U.shape[0] * 8 < 4e9:
                once = [timed(partial(chunk, 0, 0, size), device)[0] for _ in range(3)]
                rates[size] = min(once) / min(size, N)
        best = min(rates, key=rates.__getitem__)
        starts = [(t, k) for t in range(T) for k in range(0, N, best)]
        done, pairs, spent, cpu, values = 0, 0, 0.0, time.process_time(), []
        while done < len(starts) and spent < seconds_allowed:
            seconds, row = timed(partial(chunk, *starts[done], best), device)
            values.append(row.cpu())
            spent, done, pairs = spent + seconds, done + 1, pairs + len(row)
        cpu = (time.process_time() - cpu) / pairs * T * N
        base = torch.stack([losses(x[t : t + 1], y[t])[0] for t in range(-(-pairs // N))]).cpu()
    flat = torch.arange(pairs)
    chosen = torch.stack([flat // N, flat % N], 1)[:: max(1, pairs // 3000)]
    found = torch.zeros(len(base), N)
    found.view(-1)[:pairs] = torch.cat(values)
    gflops = 2.0 * pairs * W_U.numel() / spent / 1e9
    return {
        "seconds": spent / pairs * T * N,
        "cpu_seconds": cpu,
        "extrapolated": done < len(starts),
        "gflops": gflops,
        "chunk": best,
        "measured_pairs": pairs,
        "share_of_product_rate": gflops / product_rate(W_U.shape[1], device, torch.float32),
        **errors(layer, layer.activations.mean(0), found - base[:, None], chosen),
    }


def product_rate(width: int, device: str, dtype: torch.dtype) -> float:
    """Billions of operations per second of a product like the unembedding's in `dtype`, measured on this machine."""
    rates = []
    for rows, inner, columns in ((512, width, 16384), (1024, 1024, 4096)):
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)
        seconds = min(timed(partial(torch.matmul, left, right.T), device)[0] for _ in range(6))
        rates.append(2 * rows * inner * columns / seconds / 1e9)
    return max(rates)


def exponents(layer: Layer, device: str) -> dict[str, Any]:
    """How the cost grows with T and with N: slope of log seconds on log size, construction and W Uᵀ included."""
    found: dict[str, Any] = {}
    T, N = layer.activations.shape
    for name, sizes in (("positions", [T // 8, T // 4, T // 2]), ("neurons", [N // 4, N // 2, N])):
        points = []
        for size in sizes:
            t, i = (size, N) if name == "positions" else (T // 8, size)
            few = Layer(layer.head, layer.w_out[:i], layer.residual[:t], layer.activations[:t, :i], layer.targets[:t])
            points.append((math.log(size), math.log(ours(few, device, check=0)["cpu_seconds"])))
        (mean_x, mean_y) = (sum(column) / len(points) for column in zip(*points, strict=True))
        slope = sum((p - mean_x) * (q - mean_y) for p, q in points) / sum((p - mean_x) ** 2 for p, _ in points)
        found[name] = {"sizes": sizes, "cpu_seconds": [math.exp(q) for _, q in points], "exponent": slope}
    return found


def effects_cost(layer: Layer, device: str, positions: int) -> list[dict[str, Any]]:
    """The loss alone, and with each further effect."""
    few = Layer(
        layer.head, layer.w_out, *(value[:positions] for value in (layer.residual, layer.activations, layer.targets))
    )
    rows = []
    for effect in EFFECTS:
        row = ours(few, device, chosen_effects([effect]), check=0)
        rows.append({"effect": effect, "positions": positions, **row})
    return rows


def reset_peak(device: str) -> int:
    """Reset the peak memory, and return what is in use now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
    return peak_bytes(device)


def peak_bytes(device: str) -> int:
    """Peak memory since `reset_peak`, of the process or the GPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
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
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def measure(name: str, layer: Layer, shape: Shape, device: str, seconds: float) -> list[dict[str, Any]]:
    """One row per method, smallest first."""
    T = len(layer.residual)
    rows = []
    for method, run in (
        ("ours", lambda: ours(layer, device)),
        ("forward", lambda: forward(shape, device, T)),
        ("published", lambda: published(layer, device, seconds)),
        ("hooked", lambda: hooked(shape, device, T, seconds / 2)),
    ):
        found = run()
        if found is not None:
            common = {"shape": name, "device": device, "threads": torch.get_num_threads(), "method": method}
            rows.append({**common, "positions": T, "neurons": shape.neurons, **found})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=15, help="for `published`; half as much for `hooked`")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RARE_TOKENS_TEST_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    real = captured(options.data, 8192)
    result: dict[str, Any] = {"machine": machine(device), "rows": [], "match": {"novella": real.quantiles()}}
    for name in options.shapes:
        shape = SHAPES[name]
        T = min(options.positions, POSITIONS.get(name, options.positions), len(real.residual))
        if name == "novella":
            layer = Layer(real.head, real.w_out, real.residual[:T], real.activations[:T], real.targets[:T])
        else:
            layer = synthetic(real, shape.vocabulary, shape.width, shape.neurons, T)
            result["match"][name] = layer.quantiles(16)
            print(name, json.dumps(result["match"][name]), "against novella", json.dumps(result["match"]["novella"]))
        result["rows"] += measure(name, layer, shape, device, options.seconds)
        if name in ("gpt2-small", "novella"):
            result.setdefault("effects", {})[name] = effects_cost(layer, device, min(T, 256))
        if name == "gpt2-small":
            result["exponents"] = exponents(layer, device)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
        if options.out.resolve() == RESULT.resolve():
            write()


if __name__ == "__main__":
    main()
