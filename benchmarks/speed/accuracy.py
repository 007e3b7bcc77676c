"""How far ablated losses are from float64's, over many pairs."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.speed.layers import Layer
from rare_tokens.ingest.ablation.reference import reference_effects
from rare_tokens.ingest.ablation.rounding import RELATIVE_TOLERANCE

TOLERANCE = 1e-6
_ROWS, _PAIRS = 1024, 128  # vocabulary entries and pairs at a time


def errors(layer: Layer, reference: Tensor, found: Tensor, pairs: Tensor) -> dict[str, Any]:
    """Largest error, and largest error over tolerance, of some of the T x N losses `found`.

    The float64 losses come from the exact change of the logits; 32 of them are compared with the definition.
    """
    wanted = exact_losses(layer, reference, pairs)
    some = torch.linspace(0, len(pairs) - 1, 32).long()
    rows, t = pairs[some, 0].unique(return_inverse=True)
    few = (layer.residual[rows], layer.activations[rows], layer.targets[rows])
    defined = reference_effects(layer.head, layer.w_out, reference, *few, torch.stack([t, pairs[some, 1]], 1))["loss"]
    difference = float((defined - wanted[some]).abs().max())
    if difference > TOLERANCE / 100:
        raise ArithmeticError(f"float64 losses differ from their definition by {difference:.2g} nats")
    error = (found[pairs[:, 0], pairs[:, 1]].double() - wanted).abs()
    share = error / (TOLERANCE + RELATIVE_TOLERANCE * wanted.abs())
    levels = torch.tensor([0.5, 0.9, 0.99, 0.999], dtype=torch.float64)
    return {
        "max_error": float(error.max()),
        "worst_over_tolerance": float(share.max()),
        "checked_pairs": len(pairs),
        "error_quantiles": [float(f"{q:.3g}") for q in share.quantile(levels)],
    }


def telling_pairs(found: Tensor, bounds: Tensor | None, count: int) -> Tensor:
    """Pairs (t, i): a third uniform, a third with the largest |Δ|, a third with the largest finite bound."""
    T, N = found.shape
    generator = torch.Generator().manual_seed(0)
    each = min(count // 3, T * N)
    flat = [torch.randint(T * N, (each,), generator=generator), found.abs().flatten().topk(each).indices]
    if bounds is not None:
        flat.append(bounds.masked_fill(bounds.isinf(), -1).flatten().topk(each).indices)
    chosen = torch.cat(flat).unique()
    return torch.stack([chosen // N, chosen % N], 1)


def exact_losses(layer: Layer, reference: Tensor, pairs: Tensor) -> Tensor:
    """Δ loss of P pairs, sorted by position, in float64: log Σ p exp(δ − δ_y) over the whole vocabulary."""
    head = layer.head
    rows, t = pairs[:, 0].unique(return_inverse=True)
    neurons, i = pairs[:, 1].unique(return_inverse=True)
    x, w = (head.norm.centre(values.double()) for values in (layer.residual[rows], layer.w_out[neurons]))
    before = head.norm.scale_of_centred(x)[:, 0]
    a = reference[neurons].double()[i] - layer.activations[rows][t, neurons[i]].double()
    growth = (2 * a * (x[t] * w[i]).sum(1) + a * a * w[i].square().sum(1)) / x.shape[1]
    after = (before[t].square() + growth).sqrt()
    u, c = -growth / (after * (before[t] + after)), a / after
    normed = x / before[:, None]
    gain, beta, W_U = head.norm.gain.double(), head.norm.bias, head.unembedding
    bias = torch.zeros(len(W_U), dtype=torch.float64) if head.logit_bias is None else head.logit_bias.double()
    if beta is not None:
        bias = bias + torch.cat([part.double() @ beta.double() for part in W_U.split(_ROWS)])
    target = layer.targets[rows]
    U_y = W_U[target].double() * gain
    shift = u * (normed * U_y).sum(1)[t] + c * (w[i] * U_y[t]).sum(1)
    normaliser = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
    for start in range(0, len(W_U), _ROWS):
        logits = normed @ (W_U[start : start + _ROWS].double() * gain).T + bias[start : start + _ROWS]
        normaliser = torch.logaddexp(normaliser, logits.logsumexp(1))
    total = torch.zeros(len(pairs), dtype=torch.float64)
    for start in range(0, len(W_U), _ROWS):
        U = W_U[start : start + _ROWS].double() * gain
        z, m = normed @ U.T, w @ U.T
        p = (z + bias[start : start + _ROWS] - normaliser[:, None]).exp()
        for first in range(0, len(pairs), _PAIRS):
            k = slice(first, first + _PAIRS)
            change = m[i[k]].mul_(c[k, None]).addcmul_(z[t[k]], u[k, None]).sub_(shift[k, None]).expm1_()
            total[k] += change.mul_(p[t[k]]).sum(1)
    return total.log1p()
