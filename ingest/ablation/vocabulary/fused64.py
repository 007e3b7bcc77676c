"""The exact path in float64 on a processor: O(V) a pair, once z of its position and m of its neuron are made."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.ingest.ablation.layer.edits import BlockEdits
from rare_tokens.ingest.ablation.layer.folded_head import FoldedHead
from rare_tokens.ingest.ablation.layer.unablated import Positions
from rare_tokens.ingest.ablation.numerics.row_threads import Stripes

_TOKENS = 256  # at a time


def fused64_losses(folded: FoldedHead, positions: Positions, edits: BlockEdits, t: Tensor, i: Tensor) -> Tensor:
    """Δ loss of P pairs (t, i), float64.

    Log Σ p e^(δ−δ_y) less log Σ p, with p from the float32 normaliser: what that is off by cancels.
    """
    from rare_tokens.ingest.ablation.vocabulary import kernel64  # loads the compiler

    order = torch.argsort(t * (int(i.max()) + 1) + i)
    t, i = t[order], i[order]
    factors, w = edits.exact_factors(t, i)
    change = factors.change
    places, t_of = torch.unique(t, return_inverse=True)
    neurons, i_of = torch.unique(i, return_inverse=True)
    rows, w = edits.exact_rows[:, places], _first(w, i_of, len(neurons))
    targets = positions.targets[places]
    target_rows = folded.gather(targets, torch.float64)
    at_target = change.c * vecdot(w[i_of], target_rows[t_of])
    for u, row in zip(change.u, rows, strict=True):
        at_target += u * vecdot(row, target_rows)[t_of]
    base = positions.log_normaliser[places].double()
    before = torch.zeros(len(places), dtype=torch.float64)
    sums = np.zeros((2, len(t)))
    sums[0] = -1e300
    run = kernel64.compiled(len(rows) > 1)
    given = [value.numpy() for value in (t_of.int(), i_of.int(), change.u.contiguous(), change.c, at_target)]
    with Stripes(w.device) as stripes:
        for ids, U, _ in folded.pieces(torch.float64):
            for few, V in zip(ids.split(_TOKENS), U.split(_TOKENS), strict=True):
                bias = folded.bias_of(few, torch.float64)
                bias = torch.zeros(len(few), dtype=torch.float64) if bias is None else bias
                z, m = torch.stack([row @ V.T for row in rows]), w @ V.T
                before += (z[0] + bias - base[:, None]).exp().sum(1)
                tile = [value.numpy() for value in (z, bias, base, m)]
                add = functools.partial(_add, run, (*tile, *given), sums)
                stripes.map(add, stripes.split(len(t), len(t)))
    largest, after = torch.from_numpy(sums)
    found = torch.empty_like(after)
    found[order] = after.log() + largest * math.log(2) - before.log()[t_of]
    return found


def _add(run: Callable[..., None], given: tuple[Any, ...], sums: NDArray[np.float64], some: slice) -> None:
    run(*given, some.start, some.stop, sums)


def _first(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Of rows in groups, one of each group (they are alike)."""
    found = values.new_empty(groups, values.shape[1])
    found[group] = values
    return found
