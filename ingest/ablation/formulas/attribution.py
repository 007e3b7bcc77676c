"""The attribution a·∂loss/∂n: the effect to first order in the edit, taken at the unablated model.

With δ to first order in a, `Factors.linear`, it is E_p δ − δ_y, which the moments give for every pair: nothing is left
out, whatever the size of the edit, and only float32's rounding counts. Pairs for which that is too much are computed
again from E_p U in float64, which is found once for each of their positions (docs/ablation/derivation.md, "Other
effects").
"""

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.ingest.ablation.formulas.paths import Expansion
from rare_tokens.ingest.ablation.layer.edits import BlockEdits
from rare_tokens.ingest.ablation.layer.folded_head import FoldedHead
from rare_tokens.ingest.ablation.layer.unablated import Positions
from rare_tokens.ingest.ablation.numerics.rounding import RELATIVE_ROUNDING
from rare_tokens.ingest.ablation.series.series import Estimate

_POSITIONS = 512  # whose prediction is made in float64 at a time
_VALUES = 1 << 23  # of the rows of pairs, in float64 at a time: 64 MB


def attribution(expansion: Expansion) -> Estimate:
    """The attribution of b x N pairs in float32, and what rounding can do to it."""
    change, moments = expansion.factors.linear, expansion.moments
    size = change.c.abs() * expansion.w.norm(dim=1)
    along_mean = size * moments.mean_length
    for u, rows in zip(change.u, expansion.positions.rows, strict=True):
        size += u.abs() * rows.norm(dim=1, keepdim=True)
    value = moments.first_order(change)
    rounding = moments.sizes.derivative_rounding(size, moments.spread(change), moments.width, along_mean)
    return Estimate(value, torch.zeros_like(value), rounding + RELATIVE_ROUNDING * value.abs())


def attribution64(folded: FoldedHead, positions: Positions, edits: BlockEdits, t: Tensor, i: Tensor) -> Tensor:
    """The attribution of P pairs (position, neuron) in float64, all on the CPU: O(d V) a position and O(d) a pair."""
    places, place_of = torch.unique(t, return_inverse=True)
    # MPS has no float64
    head = folded.on(torch.device("cpu")) if folded.device.type == "mps" else folded
    targets = positions.targets.to(head.device)[places.to(head.device)]
    target_rows = head.gather(targets, torch.float64).cpu()
    above = torch.cat([_expected_row(head, rows) for rows in edits.exact_rows[0, places].split(_POSITIONS)])
    above -= target_rows  # E_p U − U_y
    values = []
    for few in torch.arange(len(t)).split(max(1, _VALUES // folded.width)):
        factors, w = edits.exact_factors(t[few], i[few])
        here = above[place_of[few]]
        value = factors.linear.c * vecdot(w, here)
        for u, rows in zip(factors.linear.u, edits.exact_rows, strict=True):
            value += u * vecdot(rows[t[few]], here)
        values.append(value)
    return torch.cat(values)


def _expected_row(folded: FoldedHead, normed: Tensor) -> Tensor:
    """E_p U at B positions, B x d in float64 on the CPU; `normed` is x / σ0, B x d."""
    normed = normed.to(folded.device)
    largest = torch.full_like(normed[:, :1], -torch.inf)
    weight, row = torch.zeros_like(largest), torch.zeros_like(normed)
    for ids, U, _ in folded.pieces(torch.float64):
        logits = folded.add_bias(ids, normed @ U.T)
        new = torch.maximum(largest, logits.amax(1, keepdim=True))
        kept, e = (largest - new).exp(), (logits - new).exp()
        weight, row = weight * kept + e.sum(1, keepdim=True), row * kept + e @ U
        largest = new
    return (row / weight).cpu()
