"""What float32 rounding can do to an effect: a model of its errors, and every constant that was calibrated.

How the constants were calibrated, and by how much they hold: docs/definitions.md, "What is proven and what is
calibrated". The tolerance is defined here too.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.layer.changes import Pairs

# The tolerance: |error| ≤ absolute + RELATIVE_TOLERANCE · |effect|. The smallest absolute term is what float32 can
# hold of a loss difference of order 1; below it no error can be promised.
SMALLEST_TOLERANCE = 1e-7  # nats
RELATIVE_TOLERANCE = 1e-4

FLOAT32 = 2.0**-24  # unit roundoff
# Calibrated, with room to spare, on trained and made-up heads: how many independent float32 roundings an error counts
# as, the error relative to the effect, and what sums over the vocabulary lose anyway (nats)
ROUNDINGS = 0.5
DERIVATIVE_ROUNDINGS = 0.625  # as `ROUNDINGS`, of the attribution: a pair that fails is settled in float64 at once
RELATIVE_ROUNDING = 2e-5
FLOOR = 5e-8
SUMMED = 32 * FLOAT32  # relative error of a float32 sum over the vocabulary
# Relative error of E U as a neuron's row sees it, times d: a float32 sum over the vocabulary, which libraries add in
# longer runs where d is small
MEAN_ROW = 16 * SUMMED
# Relative error of a product over the vocabulary by the dtype of its factors. bfloat16 rounds three times (two factors
# and the result), proven.
PRODUCT = {torch.float32: SUMMED, torch.bfloat16: 3 * 2.0**-8 + SUMMED}
ENTROPY_ROUNDINGS, KL_ROUNDINGS = 10, 3  # roundings of these effects per rounding of the loss
LOG_P_ROUNDINGS = 3  # and per rounding of log p, of as much of the prediction as moves
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
    other_focus: Tensor  # the same without the target

    def target_rounding(self, size: Tensor) -> Tensor:
        """Error of δ_y where it is found in float32 from a residual that moves by `size`."""
        return size * self.target_length * (ROUNDINGS * FLOAT32)

    def rounding(self, size: Tensor, spread: Tensor, width: int, target: Tensor) -> Tensor:
        """Error of Δ loss in nats, besides `RELATIVE_ROUNDING`; `target` is that of δ_y.

        The edit moves the normed residual by `size` and the logits by about `spread`; `width` is d.
        """
        error = self.edited_row(self.focus, spread) * (size + spread * width**0.5)
        return error * (ROUNDINGS * FLOAT32) + target + FLOOR

    def derivative_rounding(self, size: Tensor, spread: Tensor, width: int, along_mean: Tensor) -> Tensor:
        """Error of E δ − δ_y in nats for a δ of first order, besides `RELATIVE_ROUNDING`.

        As `rounding`, with the prediction as it is; `along_mean` is the most that E m can be, |c| ‖w‖ ‖E U‖.
        """
        error = self.focus * self.row_length * (size + spread * width**0.5)
        summed = along_mean * (MEAN_ROW / width)
        return error * (DERIVATIVE_ROUNDINGS * FLOAT32) + summed + self.target_rounding(size) + FLOOR

    def edited_row(self, focus: Tensor, spread: Tensor) -> Tensor:
        """E ‖U_v‖ times the focus of the edited prediction, to which independent errors of logits add up."""
        return (focus * (2 * spread).exp()).clamp_max(1) * self.row_length


@dataclass(frozen=True)
class Spans:
    """Largest less smallest value over the vocabulary."""

    z: Tensor  # F x B: of each function at each position
    m: Tensor  # N: of m of each neuron


def reach(spans: Spans, pairs: Pairs) -> Tensor:
    """The most that any |δ_v − δ_y| of P pairs can be: Σ_f |u_f| times the span of z_f plus |c| times that of m."""
    t, i, change = pairs.t, pairs.i, pairs.change
    total = torch.maximum(change.c.abs(), pairs.direct.c.abs()) * spans.m[i]
    for f, u in enumerate(change.u):
        total += torch.maximum(u.abs(), pairs.direct.u[f].abs()) * spans.z[f, t]
    return total


@dataclass(frozen=True)
class ExactRounding:
    """What float32 rounding can do to each of P pairs over the whole vocabulary, nats."""

    loss: Tensor  # to Δ loss
    log_p: Tensor  # to the log-probabilities, averaged by the edited prediction
    moved: Tensor  # to the change of one logit that is found in float32

    @staticmethod
    def of(width: int, sizes: Sizes, pairs: Pairs, target_z: Tensor, loss: Tensor) -> "ExactRounding":
        """Model it.

        Args:
            width: d.
            sizes: for all B positions.
            pairs: P of them.
            target_z: F x B, the functions at the targets; they and `pairs.target_m` come from float64.
            loss: P, Δ loss. It tells log E exp(δ̃), half the variance for a normal δ: more where tokens that p hardly
                holds gain most of the edited prediction.
        """
        t, change = pairs.t, pairs.change
        target = (change.c * pairs.target_m).abs()
        for f, u in enumerate(change.u):
            target += (u * target_z[f, t]).abs()
        spread = torch.maximum(pairs.spread, (2 * (loss - pairs.first_order)).clamp_(min=0).sqrt())
        here = Sizes(*(value[t] for value in vars(sizes).values()))
        # The target's own term is left out, so m errs only at other tokens
        rounding = here.edited_row(here.other_focus, spread) * pairs.size
        rounding += here.edited_row(here.focus, spread) * spread * width**0.5
        return ExactRounding(
            rounding * (ROUNDINGS * FLOAT32) + FLOAT32 * target + FLOOR,
            here.edited_row(here.focus, spread) * (width**0.5 * ROUNDINGS * FLOAT32),
            here.target_rounding(pairs.size),
        )
