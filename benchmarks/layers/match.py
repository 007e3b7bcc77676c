"""How alike two layers are to the ablation: quantiles of what decides its cost and its error, side by side."""

import torch
from torch import Tensor

from benchmarks.layers.layers import Layer

LEVELS = (0.1, 0.5, 0.9, 0.99, 0.999)
WITHIN = 1.5  # the factor within which quantiles should agree
LIKELIEST = 2048
_LOGIT_EFFECTS = 400_000_000  # neurons x vocabulary that are looked at
_SMALLEST = 1e-30  # probability
_VALUES = 1_000_000  # of which quantiles are taken

Quantiles = dict[str, list[float]]


def quantiles(layer: Layer, positions: int = 512, seed: int = 0) -> Quantiles:
    """Quantiles at `LEVELS` over some of the positions, and for the largest heads over some neurons.

    Returns:
        By pair: |u|, |c|, R (the most that δ can span: |u| range(z) + |c| range(m)), the standard deviation of δ over
        the vocabulary (`sd_delta`: every token alike; `sd_delta_p`: under the prediction). By position and neuron: |n|.
        By position: p_max, entropy, the probability `outside` the position's own 2,048 likeliest tokens.
    """
    generator = torch.Generator().manual_seed(seed)
    head, T = layer.head, len(layer.residual)
    rows = torch.randperm(T, generator=generator)[:positions]  # never a stride: windows have a period
    most = max(1, _LOGIT_EFFECTS // len(head.unembedding))
    some = torch.randperm(len(layer.w_out), generator=generator)[:most]
    x = head.norm.centre(layer.residual[rows].double())
    w = head.norm.centre(layer.w_out[some].double())
    n = layer.activations[:, some]
    scale = head.norm.scale_of_centred(x)
    x = x / scale
    a = (n.double().mean(0) - n[rows].double()) / scale
    growth = a * (2 * (x @ w.T) + a * w.square().sum(1)) / x.shape[1]
    ratio = (1 + growth).clamp_min(0).sqrt()
    u, c = (-growth / (ratio * (1 + ratio))).float(), (a / ratio).float()
    U = head.unembedding.float() * head.norm.gain.float()
    z = x.float() @ U.T
    log_p = _logits(layer, z).log_softmax(1)
    p = log_p.exp()
    p[p < _SMALLEST] = 0  # products with what float32 holds only as a denormal number take a hundred times as long
    found = {"u": u, "c": c, "n": n[rows], "p_max": p.amax(1), "entropy": -(p * log_p).sum(1)}
    if len(U) > LIKELIEST:
        found["outside"] = 1 - p.topk(LIKELIEST, dim=1).values.sum(1)
    parts = [_of_edits(part.float() @ U.T, z, p, u[:, at], c[:, at]) for part, at in _split(w)]
    found |= {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}
    return {name: _at_levels(value) for name, value in found.items()}


def apart(one: Quantiles, other: Quantiles, within: float = WITHIN) -> list[str]:
    """Where two layers' quantiles differ by more than a factor: ``name at level: value against value``."""
    found = []
    for name in one.keys() & other.keys():
        for level, left, right in zip(LEVELS, one[name], other[name], strict=True):
            low, high = sorted((left, right))
            if high > within * low:
                found.append(f"{name} at {level}: {left:.3g} against {right:.3g}")
    return sorted(found)


def _split(w: Tensor) -> list[tuple[Tensor, slice]]:
    return [(w[start : start + 256], slice(start, start + 256)) for start in range(0, len(w), 256)]


def _logits(layer: Layer, z: Tensor) -> Tensor:
    head = layer.head
    logits = z if head.logit_bias is None else z + head.logit_bias
    return logits if head.norm.bias is None else logits + head.unembedding.float() @ head.norm.bias.float()


def _of_edits(m: Tensor, z: Tensor, p: Tensor, u: Tensor, c: Tensor) -> dict[str, Tensor]:
    """R and the standard deviations of δ = u z + c m, T x N; m is N x V, z and p are T x V."""

    def variance(weight: Tensor) -> Tensor:
        """Of T x V (or 1 x V) weights that sum to 1."""
        mean_z, mean_m = (weight * z).sum(1, keepdim=True), weight @ m.T
        zz = (weight * z.square()).sum(1, keepdim=True) - mean_z.square()
        mm = weight @ m.square().T - mean_m.square()
        zm = (weight * (z - mean_z)) @ m.T
        return u.square() * zz + c.square() * mm + 2 * u * c * zm

    reach = u.abs() * (z.amax(1) - z.amin(1))[:, None] + c.abs() * (m.amax(1) - m.amin(1))
    alike = torch.full((1, z.shape[1]), 1 / z.shape[1])
    return {
        "R": reach,
        "sd_delta": variance(alike).clamp_min(0).sqrt(),
        "sd_delta_p": variance(p).clamp_min(0).sqrt(),
    }


def _at_levels(values: Tensor) -> list[float]:
    flat = values.reshape(-1).abs().double()
    flat = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:_VALUES]]
    return [float(f"{q:.4g}") for q in flat.quantile(torch.tensor(LEVELS, dtype=torch.float64))]
