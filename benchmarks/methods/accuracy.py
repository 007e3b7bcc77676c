"""How far ablated losses are from float64's, over many pairs."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.layers.layers import Layer
from rare_tokens.ingest.ablation.numerics.rounding import RELATIVE_TOLERANCE
from rare_tokens.ingest.ablation.reference import reference_effects
from rare_tokens.ingest.model.head import Head

TOLERANCE = 1e-6
_ROWS, _PAIRS, _EDITED = 1024, 128, 8192  # vocabulary entries, pairs, and pairs without the vocabulary at a time
_DIFFERENCE = 1e-8  # that float64's own rounding may make, nats, and times the loss where it is above 1


def errors(layer: Layer, reference: Tensor, found: Tensor, pairs: Tensor) -> dict[str, Any]:
    """Largest error, and largest error over tolerance, of some of the T x N losses `found`.

    The float64 losses come from the exact change of the logits; 32 of them are compared with the definition.
    """
    wanted = exact_losses(layer, reference, pairs)
    some = torch.linspace(0, len(pairs) - 1, 32).long()
    rows, t = pairs[some, 0].unique(return_inverse=True)
    few = (layer.residual[rows], layer.activations[rows], layer.targets[rows])
    defined = reference_effects(layer.head, layer.w_out, reference, *few, torch.stack([t, pairs[some, 1]], 1))["loss"]
    difference = float(((defined - wanted[some]).abs() / wanted[some].abs().clamp_min(1)).max())
    if not difference <= _DIFFERENCE:
        raise ArithmeticError(f"float64 losses differ from their definition by {difference:.2g}")
    error = (found[pairs[:, 0], pairs[:, 1]].double() - wanted).abs().nan_to_num(nan=torch.inf)
    share = error / (TOLERANCE + RELATIVE_TOLERANCE * wanted.abs())
    levels = torch.tensor([0.5, 0.9, 0.99, 0.999], dtype=torch.float64)
    return {
        "max_error": float(error.max()),
        "worst_over_tolerance": float(share.max()),
        "checked_pairs": len(pairs),
        "error_quantiles": [float(f"{q:.3g}") for q in share.quantile(levels)],
    }


def telling_pairs(found: Tensor, bounds: Tensor | None, count: int) -> Tensor:
    """`count` pairs (t, i), sorted; all where there are no more.

    A third are uniform, a third those with the largest |Δ|, a third those with the largest finite bound; where these
    overlap, more are drawn.
    """
    T, N = found.shape
    generator = torch.Generator().manual_seed(0)
    each = min(count // 3, T * N)
    flat = [torch.randint(T * N, (each,), generator=generator), found.abs().flatten().topk(each).indices]
    if bounds is not None:
        flat.append(bounds.masked_fill(bounds.isinf(), -1).flatten().topk(each).indices)
    is_chosen = torch.zeros(T * N, dtype=torch.bool)
    is_chosen[torch.cat(flat)] = True
    others = (~is_chosen).nonzero()[:, 0]
    lacking = max(0, min(count, T * N) - int(is_chosen.sum()))
    is_chosen[others[torch.randperm(len(others), generator=generator)[:lacking]]] = True
    chosen = is_chosen.nonzero()[:, 0]
    return torch.stack([chosen // N, chosen % N], 1)


def exact_losses(layer: Layer, reference: Tensor, pairs: Tensor) -> Tensor:
    """Δ loss of P pairs, sorted by position, in float64: log Σ p exp(δ − δ_y) over the whole vocabulary.

    In float64 a plain logarithm of a sum is good to 1e-12 nats, and holds what expm1 cannot: edits that raise a logit
    by hundreds, or the target's.
    """
    head, W_U, target = layer.head, layer.head.unembedding, layer.targets
    rows, t = pairs[:, 0].unique(return_inverse=True)
    neurons, i = pairs[:, 1].unique(return_inverse=True)
    x, w = (head.norm.centre(values.double()) for values in (layer.residual[rows], layer.w_out[neurons]))
    before = head.norm.scale_of_centred(x)
    a = reference[neurons].double()[i] - layer.activations[rows][t, neurons[i]].double()
    after = torch.cat(
        [
            head.norm.scale_of_centred(x[t[k]] + a[k, None] * w[i[k]])[:, 0]
            for k in torch.arange(len(pairs)).split(_EDITED)
        ]
    )
    u, c = before[t, 0] / after - 1, a / after
    normed, gain = x / before, head.norm.gain.double()
    U_y = W_U[target[rows]].double() * gain
    shift = u * (normed * U_y).sum(1)[t] + c * torch.cat(
        [(w[i[k]] * U_y[t[k]]).sum(1) for k in torch.arange(len(pairs)).split(_EDITED)]
    )
    bias = _bias(head)
    pieces = [slice(start, start + _ROWS) for start in range(0, len(W_U), _ROWS)]
    normaliser = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
    for at in pieces:
        logits = normed @ (W_U[at].double() * gain).T + bias[at]
        normaliser = torch.logaddexp(normaliser, logits.logsumexp(1))
    total = torch.full((len(pairs),), -torch.inf, dtype=torch.float64)

    def add(z: Tensor, m: Tensor, log_p: Tensor, k: Tensor) -> None:
        change = m[i[k]].mul_(c[k, None]).addcmul_(z[t[k]], u[k, None]).sub_(shift[k, None]).add_(log_p[t[k]])
        total[k] = torch.logaddexp(total[k], change.logsumexp(1))

    # Each thread takes its own pairs: torch's threads would meet after each of these short steps
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for at in pieces:
            U = W_U[at].double() * gain
            z, m = normed @ U.T, w @ U.T
            log_p = z + bias[at] - normaliser[:, None]
            list(pool.map(partial(add, z, m, log_p), torch.arange(len(pairs)).split(_PAIRS)))
    torch.set_num_threads(threads)
    return total


def _bias(head: Head) -> Tensor:
    """V: the unembedding's own, and what the norm's makes of it."""
    W_U, beta = head.unembedding, head.norm.bias
    bias = torch.zeros(len(W_U), dtype=torch.float64) if head.logit_bias is None else head.logit_bias.double()
    if beta is not None:
        bias = bias + torch.cat([part.double() @ beta.double() for part in W_U.split(_ROWS)])
    return bias
