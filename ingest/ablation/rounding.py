"""What float32 rounding can do to an effect: a model of its errors, and every constant that was calibrated.

How they were calibrated, and by how much they hold: docs/ablation/accuracy.md.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.exact import Pairs
from rare_tokens.ingest.ablation.folded_head import FoldedHead

FLOAT32 = 2.0**-24  # unit roundoff
# Calibrated, with room to spare, on trained and made-up heads (docs/ablation.md): how many independent float32
# roundings an error counts as, the error relative to the effect, and what sums over the vocabulary lose anyway (nats)
ROUNDINGS = 0.5
RELATIVE_ROUNDING = 2e-5
FLOOR = 5e-8
_LARGEST_EXPONENT = 80.0


@dataclass(frozen=True)
class Sizes:
    """What float32 rounding errors at each of B positions are proportional to (docs/ablation.md)."""

    row: Tensor  # E ‖U_v‖
    target_row: Tensor  # ‖U_y‖
    focus: Tensor  # (Σ p²)^½: independent errors of the logits average out by this factor

    def rounding(self, size: Tensor, spread: Tensor, width: int) -> Tensor:
        """Error of Δ loss, beside `RELATIVE_ROUNDING`.

        The edit moves the normed residual by `size` and the logits by about `spread`.
        """
        focus = (self.focus * (2 * spread).exp()).clamp_max(1)
        error = size * (self.target_row + focus * self.row) + focus * spread * (width**0.5 * self.row)
        return error * (ROUNDINGS * FLOAT32) + FLOOR


def exact_rounding(folded: FoldedHead, sizes: Sizes, norms: Tensor, pairs: Pairs) -> Tensor:
    """What float32 rounding can do to each pair's Δ loss on the exact path; infinite where exp(δ) may overflow.

    `sizes` are of the B positions, `norms` the N ‖w_i‖.
    """
    size = torch.maximum(pairs.c.abs(), pairs.frozen_c.abs()) * norms[pairs.i] + pairs.u.abs() * folded.width**0.5
    t = pairs.t
    here = Sizes(sizes.row[t], sizes.target_row[t], sizes.focus[t])
    rounding = here.rounding(size, size * here.row / folded.width**0.5, folded.width)
    return torch.where(2 * size * folded.largest_row <= _LARGEST_EXPONENT, rounding, torch.inf)
