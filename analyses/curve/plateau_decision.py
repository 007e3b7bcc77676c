"""Is there a plateau? The decision per token group, by parametric bootstrap of the curve without one.

The null is the simpler model: power law and tail (and another slope at the head where BIC wants one), its neurons
independent draws (Pareto order statistics), each with its measured standard error. The statistic is the most
surprising step of the head (`analyses.curve.spacings.find_steps`).

* *present*: p < 0.01.
* *absent*: p ≥ 0.05, no head that is raised without a step, and a plateau of 1 % of the layer raised by δ = 0.5 (what
  DS and NC report) would have been found at p < 0.01 with a probability of at least 0.8.
* *undecided*: everything else; the reason says what.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from rare_tokens.analyses.curve.piecewise import LEAST_HEAD
from rare_tokens.analyses.curve.slope_break import SlopeBreak, slope_break
from rare_tokens.analyses.curve.spacings import (
    LEAST_NEURONS,
    SlopeModel,
    SlopeRatio,
    bent,
    compare_slopes,
    draw_curves,
    find_steps,
    fit_slopes,
    head_gains,
    normalised_spacings,
    ranks_needed,
    tail_gains,
    without_step,
)
from rare_tokens.analyses.result_table import FloatArray, IntArray

Verdict = Literal["present", "absent", "undecided"]
LEVEL = 0.01
DOUBT = 0.05  # below it a plateau is not called absent
REFERENCE_SHARE = 0.01  # of the layer; DS
REFERENCE_STEP = 0.5  # NC's deviation of plateau neurons
POWER = 0.8
FEWEST_DRAWS = 100
NEAR = 0.15  # in ln rank: found at the same place
UNBLURRING, UNBLURRING_DRAWS = 6, 200
BATCH = 4_000_000  # numbers drawn at once


@dataclass(frozen=True)
class Decision:
    """What is decided about one curve, and on what grounds.

    Attributes:
        verdict: `present`, `absent` or `undecided`.
        p_value: of the step, allowing for the search.
        power: probability of finding the reference plateau at p < 0.01.
        rank: last rank above the step: the plateau's neurons are 1 … `rank`.
        rank_low: lower end of its 95 % interval (parametric bootstrap of the curve with the step).
        rank_high: upper end.
        step: δ, how far the head is raised before the neurons were measured with their errors, in log influence.
        step_low: lower end of its 95 % interval.
        step_high: upper end.
        law: the power law with its tail, and with another slope at the head if it needs one; the step left out.
        tail_p_value: of the tail against the pure power law.
        hinge_p_value: of a head with another slope against none.
        free_p_value: of a head with another slope and a step against none.
        slopes: slope of the head against that of the power law; None where the head is too small.
        bend: the break of the slope (ES §4.1), or why it was not tested.
        reason: why undecided; None otherwise.
    """

    verdict: Verdict
    p_value: float
    power: float
    rank: int
    rank_low: int
    rank_high: int
    step: float
    step_low: float
    step_high: float
    law: SlopeModel
    tail_p_value: float
    hinge_p_value: float
    free_p_value: float
    slopes: SlopeRatio | None
    bend: SlopeBreak | str
    reason: str | None


def decide(
    curve: FloatArray,
    error: FloatArray | None = None,
    *,
    draws: int = 1_000,
    seed: int = 0,
    scattered: bool = True,
    bend: bool = True,
) -> Decision | str:
    """Decide whether a curve of influence has a plateau.

    Args:
        curve: log influence in descending order, shape (n,).
        error: standard error of each neuron's log influence, in the same order, shape (n,); None: taken as 0.
        draws: of each bootstrap.
        seed: of the bootstraps (but the tail's, which is the same for all curves of n).
        scattered: the null's neurons are independent draws. False: a fixed population on a smooth curve, moved
            by nothing but `error`; a sharper null, right only where the curve is known to be as smooth as that.
        bend: test the break of the slope too.

    Returns:
        The decision, or in words why there can be none.

    Raises:
        ValueError: so few draws that no p can be below 0.01.
    """
    if draws < FEWEST_DRAWS:
        raise ValueError(f"{draws} draws cannot give a p below {LEVEL}: use {FEWEST_DRAWS} or more")
    n = len(curve)
    if n < LEAST_NEURONS:
        return f"{n} neurons with an influence above 0; a decision needs {LEAST_NEURONS}"
    spacings = normalised_spacings(curve)
    ranks = ranks_needed(n)
    found = find_steps(spacings[None, : ranks - 1], n)
    first, last = int(found.first[0]), int(found.last[0])
    if not spacings[: 2 * ranks].any():
        return "the most influential neurons all have the same influence"
    law = _smooth_law(spacings, first, last)
    bootstrap = _Bootstrap(law, n, ranks, None if error is None else error[:ranks], draws, seed, scattered)

    under_null = bootstrap.surprise(None, stream=0)
    p_value = _p(float(found.surprise[0]), under_null)
    threshold = float(np.quantile(under_null, 1 - LEVEL))
    raised = bootstrap.surprise((reference_plateau(n), REFERENCE_STEP), stream=1)
    power = float(np.mean(raised > threshold))
    rank, seen = int(found.rank[0]), float(found.size[0])
    step = bootstrap.unblurred(rank, seen)
    ranks_again, steps_again = bootstrap.around(rank, step, first, last)
    low, high = np.quantile(ranks_again, [0.025, 0.975], method="inverted_cdf").tolist()
    step_ends = step + seen - np.quantile(steps_again, [0.975, 0.025])

    own = head_gains(spacings[None, : bootstrap.law_ranks], n)
    head_p = {name: _p(float(own[name][0]), values) for name, values in bootstrap.gains().items()}
    slopes = compare_slopes(spacings, first, last, law.tail_rank)
    reason = _doubt(p_value, power, head_p["hinge"], slopes)
    verdict: Verdict = "present" if p_value < LEVEL else "absent" if reason is None else "undecided"
    return Decision(
        verdict=verdict,
        p_value=p_value,
        power=power,
        rank=rank,
        rank_low=int(low),
        rank_high=int(high),
        step=step,
        step_low=float(step_ends[0]),
        step_high=float(step_ends[1]),
        law=law,
        tail_p_value=_tail_p(spacings, law, draws),
        hinge_p_value=head_p["hinge"],
        free_p_value=head_p["free"],
        slopes=slopes,
        bend=slope_break(curve, np.random.default_rng([seed, 4]), draws=draws) if bend else "not asked for",
        reason=reason if verdict == "undecided" else None,
    )


def reference_plateau(n: int) -> int:
    """Neurons of the plateau that a curve of n must be able to show: 1 %, at least three."""
    return max(LEAST_HEAD, round(REFERENCE_SHARE * n))


def _doubt(p_value: float, power: float, hinge_p: float, slopes: SlopeRatio | None) -> str | None:
    """Why a curve without a step at p < 0.01 is not one without a plateau."""
    if p_value < DOUBT:
        return f"a step with p = {p_value:.3f}, between {LEVEL} and {DOUBT}"
    if power < POWER:
        return f"a plateau of 1 % of the neurons raised by {REFERENCE_STEP} would be found with probability {power:.2f}"
    if hinge_p < LEVEL and slopes is not None and slopes.ratio > 1:
        return "the head rises above the power law without a step"
    return None


def _p(value: float, under_null: FloatArray) -> float:
    return (1 + int(np.sum(under_null >= value))) / (1 + len(under_null))


def _smooth_law(spacings: FloatArray, first: int, last: int) -> SlopeModel:
    """The likeliest power law with tail, the run of the step replaced by the mean around it."""
    smooth = without_step(spacings, first, last)
    return bent(max(fit_slopes(smooth, last), key=lambda fit: fit.log_likelihood), smooth)


def _tail_p(spacings: FloatArray, law: SlopeModel, draws: int) -> float:
    """p of the tail: how much it gains over a pure power law, against what it gains on Pareto draws."""
    if law.tail == "none":
        return 1.0
    value = max(float(gain[0]) for gain in tail_gains(spacings[None, :]).values())
    return _p(value, _tail_null(len(spacings), draws))


@lru_cache(maxsize=32)
def _tail_null(size: int, draws: int) -> FloatArray:
    """What a tail gains on Pareto draws, whatever their κ: the same for every curve of so many spacings."""
    rng = np.random.default_rng([size, draws])
    found = [tail_gains(rng.standard_exponential((batch, size))) for batch in _batches(draws, size)]
    return np.concatenate([np.maximum.reduce(list(gains.values())) for gains in found])


def _batches(draws: int, size: int) -> list[int]:
    step = max(1, BATCH // size)
    return [min(step, draws - start) for start in range(0, draws, step)]


@dataclass(frozen=True)
class _Bootstrap:
    """Curves drawn again from a fitted law; only the ranks that the search for a step looks at."""

    law: SlopeModel
    n: int
    ranks: int
    error: FloatArray | None
    draws: int
    seed: int
    scattered: bool

    @property
    def law_ranks(self) -> int:
        """Spacings of the power law that are drawn."""
        return min(self.ranks, self.law.tail_rank) - 1

    def curves(self, batch: int, rng: np.random.Generator, step: tuple[int, float] | None) -> FloatArray:
        slopes = self.law.slopes(self.n, self.ranks)
        return draw_curves(slopes, batch, rng, error=self.error, scattered=self.scattered, step=step)

    def surprise(self, step: tuple[int, float] | None, stream: int) -> FloatArray:
        """How surprising the most surprising step is, where there is this one or none."""
        rng = np.random.default_rng([self.seed, stream])
        return np.concatenate(
            [
                find_steps(normalised_spacings(self.curves(batch, rng, step)), self.n).surprise
                for batch in _batches(self.draws, self.ranks)
            ]
        )

    def unblurred(self, rank: int, seen: float) -> float:
        """The step that looks as large as `seen` once the neurons are measured with their errors and sorted again.

        Errors carry neurons over the edge of the head and so spread its step over more spacings than the run that it is
        read from. Solved on the same draws by fixed-point iteration; `seen` itself where there are no errors, and where
        most draws find their step elsewhere.
        """
        if self.error is None:
            return seen
        step = seen
        for _ in range(UNBLURRING):
            curves = self.curves(UNBLURRING_DRAWS, np.random.default_rng([self.seed, 5]), (rank, step))
            again = find_steps(normalised_spacings(curves), self.n)
            there = np.abs(np.log(again.rank / rank)) <= NEAR
            if there.mean() <= 0.5:
                break
            step = max(seen, step + seen - float(np.median(again.size[there])))
        return step

    def around(self, rank: int, step: float, first: int, last: int) -> tuple[IntArray, FloatArray]:
        """Where a step is found when it is at `rank`, and its size where it is found there (within two ranks).

        A step that most draws find elsewhere is no step: its size is then taken in the run `first` … `last` as it is.
        """
        rng = np.random.default_rng([self.seed, 2])
        expected = self.law.slopes(self.n, self.ranks)[first - 1 : last]
        ranks, found, fixed = [], [], []
        for batch in _batches(self.draws, self.ranks):
            spacings = normalised_spacings(self.curves(batch, rng, (rank, step)))
            again = find_steps(spacings, self.n)
            ranks.append(again.rank)
            found.append(again.size)
            fixed.append(((spacings[:, first - 1 : last] - expected) / np.arange(first, last + 1)).sum(axis=1))
        places, sizes = np.concatenate(ranks), np.concatenate(found)
        there = np.abs(places - rank) <= 2
        return places, sizes[there] if there.mean() > 0.5 else np.concatenate(fixed)

    def gains(self) -> dict[str, FloatArray]:
        """What another head gains where there is none: the spacings of a power law alone, whatever its κ."""
        rng = np.random.default_rng([self.seed, 5])
        parts = [
            head_gains(rng.standard_exponential((batch, self.law_ranks)), self.n)
            for batch in _batches(self.draws, self.ranks)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
