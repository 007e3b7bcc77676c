"""What float32 rounding can do to an effect: a model of its errors, and every constant that was calibrated.

How the constants were calibrated, and by how much they hold: docs/definitions.md, "What is proven and what is
calibrated". The tolerance is defined here too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.factors import Pairs

# The tolerance: |error| ≤ absolute + RELATIVE_TOLERANCE · |effect|. The smallest absolute term is what float32 can
# hold of a loss difference of order 1; below it no error can be promised.
SMALLEST_TOLERANCE = 1e-7  # nats
RELATIVE_TOLERANCE = 1e-4

FLOAT32 = 2.0**-24  # unit roundoff
# Calibrated, with room to spare, on trained and made-up heads: how many independent float32 roundings an error counts
# as, the error relative to the effect, and what sums over the vocabulary lose anyway (nats)
ROUNDINGS = 0.5
RELATIVE_ROUNDING = 2e-5
FLOOR = 5e-8
SUMMED = 32 * FLOAT32  # relative error of a float32 sum over the vocabulary
# Relative error of a product over the vocabulary by the dtype of its factors. bfloat16 rounds three times (two factors
# and the result), proven.
PRODUCT = {torch.float32: SUMMED, torch.bfloat16: 3 * 2.0**-8 + SUMMED}
ENTROPY_ROUNDINGS = 4  # roundings of the entropy per rounding of the loss
# Where float32 may not hold a pair at all
# |δ_v − δ_y|, of which exp is taken. Far below overflow (88), for a probability under 2^-126 may count as none, and
# what 262,144 such tokens could add, 2^18 · 2^-126 · e^50, is then under 2e-11
LARGEST_EXPONENT = 50.0
LARGEST_RISE, LARGEST_RISE_FOR_ENTROPY = -4.0, -1.0  # nats of Δ loss, and below
SMALLEST_RATIO = 0.1  # of σ1/σ0: below it the norm of the edited residual is lost


def require_tolerance(tolerance: float) -> None:
    """Refuse an absolute tolerance that is not above 0, or that float32 cannot hold.

    Raises:
        UserError: it is refused; the message names the smallest.
    """
    if not tolerance > 0:
        raise UserError(f"--tolerance {tolerance:g} is not above 0. Leave it out for 1e-6.")
    if tolerance < SMALLEST_TOLERANCE:
        raise UserError(
            f"--tolerance {tolerance:g} is below what float32 can hold. Use at least {SMALLEST_TOLERANCE:g}."
        )


@dataclass(frozen=True)
class Sizes:
    """What float32 rounding errors at each of B positions are proportional to."""

    row_length: Tensor  # E ‖U_v‖
    target_length: Tensor  # ‖U_y‖
    focus: Tensor  # (Σ p²)^½: independent errors of the logits average out by this factor

    def rounding(self, size: Tensor, spread: Tensor, width: int) -> Tensor:
        """Error of Δ loss in nats, besides `RELATIVE_ROUNDING`.

        The edit moves the normed residual by `size` and the logits by about `spread`; `width` is d.
        """
        edited_focus = (self.focus * (2 * spread).exp()).clamp_max(1)
        error = size * (self.target_length + edited_focus * self.row_length)
        error += edited_focus * spread * (width**0.5 * self.row_length)
        return error * (ROUNDINGS * FLOAT32) + FLOOR


@dataclass(frozen=True)
class Spans:
    """Largest less smallest value over the vocabulary."""

    z: Tensor  # of z at each of B positions
    m: Tensor  # of m of each of N neurons


def exact_rounding(width: int, sizes: Sizes, spans: Spans, w_norm: Tensor, pairs: Pairs) -> Tensor:
    """What float32 rounding can do to each pair's Δ loss over the whole vocabulary, nats; inf if exp(δ) may overflow.

    `width` is d, `sizes` are for all B positions, `w_norm` holds the N norms ‖w_i‖. No |δ_v − δ_y| exceeds |u| times
    the span of z plus |c| times that of m.
    """
    t, i = pairs.t, pairs.i
    largest_c = torch.maximum(pairs.c.abs(), pairs.frozen_c.abs())
    size = largest_c * w_norm[i] + pairs.u.abs() * width**0.5
    exponent = pairs.u.abs() * spans.z[t] + largest_c * spans.m[i]
    here = Sizes(sizes.row_length[t], sizes.target_length[t], sizes.focus[t])
    rounding = here.rounding(size, size * here.row_length / width**0.5, width)
    return torch.where(exponent <= LARGEST_EXPONENT, rounding, torch.inf)
