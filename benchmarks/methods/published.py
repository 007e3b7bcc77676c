"""Published code's way to ablate neurons, as fast as its method allows: what `ours` is compared with."""

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.layers.layers import Layer
from benchmarks.methods.accuracy import errors
from benchmarks.speed.machine import product_rate, timed

PUBLISHED_CHUNKS = (16, 32, 64, 128, 256, 512, 1024)


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
