"""Is there a plateau, how many neurons are on it, how high is it, and is it raised or a shelf?

* *present*: p < 0.01 (`head_step`), the step s is at least 0.3, and the lower 95 % bound of s over
  windows of text is above 0.
* *absent*: p ≥ 0.05, no neuron between ranks 5 and 0.15 N stands 0.5 or more above the power law, no more than 1 % of
  the layer stand more than 0.5 above it, and 1 % of the layer raised by 0.5 (what DS and NC report) would have been
  found with a probability of at least 0.8.
* *undecided*: everything else; the reason says why.

A plateau with the slope of the power law is *raised*; a flatter one is a *shelf*. It counts as flatter if both the text
and the neurons say so: the interval of the head's slope over windows of text lies below κ, and so few neurons from one
law would seldom differ as much (exact F test of normalised spacings). Of scattered heads raised by 0.7 with the power
law's own slope, the first criterion alone calls a third shelves and half steep.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rare_tokens.analyses.curve.effect_cells import WindowSums
from rare_tokens.analyses.curve.head_fits import SMALLEST_HEAD, largest_head
from rare_tokens.analyses.curve.head_step import DRAWS, FEWEST_DRAWS, LEVEL, StepNull, StepTest, step_test
from rare_tokens.analyses.curve.line_intervals import (
    Interval,
    LineSamples,
    head_interval,
    line_samples,
    plain_interval,
    same_head,
    step_interval,
)
from rare_tokens.analyses.curve.power_law import ABOVE, PowerLaw, power_law
from rare_tokens.analyses.curve.ranked_curve import influence_curve
from rare_tokens.analyses.curve.spacings import SlopeRatio, compare_slopes, normalised_spacings
from rare_tokens.analyses.result_table import FloatArray, joined

Verdict = Literal["present", "absent", "undecided"]
HeadForm = Literal["raised", "shelf", "steep"]
DOUBT = 0.05  # at a p below it a plateau is not called absent
LEAST_STEP = 0.3  # in log influence
REFERENCE_SHARE, REFERENCE_STEP = 0.01, 0.5  # DS and NC
POWER = 0.8
RESAMPLES = 1_000
CLIFF = 0.2  # in ln rank, on either side of b: its spacings count for neither head nor power law
SLOPE_LEVEL = 0.05


@dataclass(frozen=True)
class Plateau:
    """What is decided about one curve, and why.

    Attributes:
        verdict: `present`, `absent` or `undecided`; None if nothing can be decided.
        line: the power law with its head; the plateau's neurons are ranks 1 … `line.head_rank`.
        test: the test of the step; None without a verdict.
        power: probability that 1 % of the layer raised by 0.5 would have been found at p < 0.01.
        size: interval of b.
        step: interval of s.
        head_slope: interval of κ + h.
        kappa: interval of κ; None without a power law.
        slopes: slope of the head over slope of the power law, by their spacings; None without a power law, or with
            too few ranks of either.
        head: `shelf` (the interval of κ + h lies below κ, and `slopes` differ at 5 %), `steep` (the same above) or
            `raised`; None without a power law or if the interval is not determined.
        above: neurons with δ > 0.5; None without a power law.
        reason: why it is undecided or cannot be decided; None otherwise.
    """

    verdict: Verdict | None
    line: PowerLaw
    test: StepTest | None = None
    power: float | None = None
    size: Interval | None = None
    step: Interval | None = None
    head_slope: Interval | None = None
    kappa: Interval | None = None
    slopes: SlopeRatio | None = None
    head: HeadForm | None = None
    above: int | None = None
    reason: str | None = None


def plateau(sums: WindowSums | str, *, draws: int = DRAWS, resamples: int = RESAMPLES, seed: int = 0) -> Plateau:
    """Decide whether the influence on one token group has a plateau.

    Args:
        sums: each neuron's effects per window, or why there are none.
        draws: from the test's null distribution.
        resamples: bootstrap samples of windows, for the intervals.
        seed: of both.

    Raises:
        ValueError: fewer than 399 draws.
    """
    if isinstance(sums, str):
        return Plateau(None, PowerLaw(reason=sums), reason=sums)
    influence = sums.influence()
    curve = influence_curve(influence)
    error = sums.log_error()
    if error is None:
        line = power_law(curve)
        return Plateau(None, line, reason=joined(line.reason, "a single window of text: no error is known"))
    order = np.argsort(-influence, kind="stable")[: len(curve)]
    samples = line_samples(sums.resampled(resamples, np.random.default_rng(seed)))
    return plateau_of_curve(curve, error[order], samples, draws=draws, seed=seed)


def plateau_of_curve(
    curve: FloatArray, error: FloatArray, samples: LineSamples, *, draws: int = DRAWS, seed: int = 0
) -> Plateau:
    """The same for a given curve.

    Args:
        curve: log influence in descending order, without neurons that have none, shape (n,).
        error: standard error of each, in the same order, shape (n,).
        samples: the lines of bootstrap samples.
        draws: from the test's null distribution.
        seed: of the draws.

    Raises:
        ValueError: fewer than 399 draws.
    """
    if draws < FEWEST_DRAWS:
        raise ValueError(f"{draws} draws cannot tell a p below {LEVEL}: use {FEWEST_DRAWS} or more")
    line = power_law(curve)
    if line.head_rank is None or line.step is None or line.head_slope is None:
        return Plateau(None, line, reason=line.reason)
    null = StepNull(curve, error, draws=draws, seed=seed)
    test, power = step_test(curve, null), null.power(reference_size(len(curve)), REFERENCE_STEP)
    size = head_interval(line.head_rank, samples.head_rank, len(curve))
    known = size is None or size.determined
    same = same_head(line.head_rank, samples.head_rank)
    step, head_slope = (
        step_interval(value, values, same, determined=known)
        for value, values in ((line.step, samples.step), (line.head_slope, samples.head_slope))
    )
    deviation = line.deviation(curve)
    above = None if deviation is None else int(np.sum(deviation > ABOVE))
    slopes = _slopes(curve, line)
    doubts = _doubts(line, test, step, deviation, power)
    return Plateau(
        verdict="present" if _present(line, test, step) else "undecided" if doubts else "absent",
        line=line,
        test=test,
        power=power,
        size=size,
        step=step,
        head_slope=head_slope,
        kappa=None if line.kappa is None else plain_interval(line.kappa, samples.kappa),
        slopes=slopes,
        head=_form(line.kappa, head_slope, slopes),
        above=above,
        reason=None if _present(line, test, step) else joined(*doubts),
    )


def reference_size(n: int) -> int:
    """Size of the plateau that a curve of n neurons must be able to show before it counts as having none: 1 % of n."""
    return max(1, round(REFERENCE_SHARE * n))


def _present(line: PowerLaw, test: StepTest, step: Interval | None) -> bool:
    high = line.step is not None and line.step >= LEAST_STEP
    return test.p_value < LEVEL and high and step is not None and step.low > 0


def _doubts(
    line: PowerLaw, test: StepTest, step: Interval | None, deviation: FloatArray | None, power: float
) -> list[str]:
    """Why a plateau that is not present is not absent either."""
    doubts = []
    if test.p_value < LEVEL:
        doubts.append(_low_step(line, test, step))
    elif test.p_value < DOUBT:
        doubts.append(f"a step with p = {test.p_value:.3f}, between {LEVEL} and {DOUBT}")
    if deviation is None:
        doubts.append(line.reason or "no power law")
    else:
        head = deviation[SMALLEST_HEAD - 1 : largest_head(len(deviation))]
        if np.any(head >= ABOVE):
            doubts.append(f"a neuron of rank {SMALLEST_HEAD} or later stands {head.max():.2f} above the power law")
        elif np.sum(deviation > ABOVE) > REFERENCE_SHARE * len(deviation):
            doubts.append(f"{np.sum(deviation > ABOVE)} neurons stand more than {ABOVE} above the power law")
    if power < POWER:
        doubts.append(f"1 % of the neurons raised by {REFERENCE_STEP} would be found with probability {power:.2f}")
    return doubts


def _low_step(line: PowerLaw, test: StepTest, step: Interval | None) -> str:
    found = f"a step with p = {test.p_value:.4f}"
    if line.step is not None and line.step < LEAST_STEP:
        return f"{found}, but a height of {line.step:.2f}, below {LEAST_STEP}"
    if step is None:
        return f"{found}, but too few resampled windows of text give a line"
    return f"{found}, but a height whose 95 % interval over windows begins at {step.low:.2f}"


def _slopes(curve: FloatArray, line: PowerLaw) -> SlopeRatio | None:
    """Compare head and power law without the ranks around the head's end, over which errors spread its step."""
    if line.kappa is None or line.head_rank is None or line.last_rank is None:
        return None
    first, last = (round(line.head_rank * float(np.exp(side * CLIFF))) for side in (-1, 1))
    return compare_slopes(normalised_spacings(curve), first, last, line.last_rank)


def _form(kappa: float | None, head_slope: Interval | None, slopes: SlopeRatio | None) -> HeadForm | None:
    if kappa is None or head_slope is None or not head_slope.determined:
        return None
    if slopes is None or slopes.p_value >= SLOPE_LEVEL:
        return "raised"
    if head_slope.high < kappa and slopes.ratio < 1:
        return "shelf"
    return "steep" if head_slope.low > kappa and slopes.ratio > 1 else "raised"
