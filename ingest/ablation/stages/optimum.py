"""The optimal reference: for each neuron the constant n* that minimises the mean loss over the run's positions.

Li and Janson (2024), "Optimal ablation for interpretability". The mean of Δ is a smooth function of n*, and its minimum
may lie far from the activations: then the constant acts as a bias of the logits that the model would gain by.

Exact effects of all neurons at all positions for every constant that is tried would cost many ingests. Instead

    mean over the run  ≈  second order over the run  +  (exact − second order) over S of its positions

The first term is measured at Chebyshev points of each neuron's interval, in one pass over the run; the second, the
correction of a control variate, is small and smooth, and measured at three constants about a first minimum. About the
better one that both give they are measured again, on a narrower interval. Neurons for which that does not settle the
minimum, because the second order says too little of them, are searched by exact effects at the S positions alone.

What is stated as the error is how far the mean loss may lie above its minimum: s²/2H, H its curvature and s the slope
that is still possible at the constant found: twice its standard error over the S positions, and what the polynomials
may be off by.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import elementwise
from torch import Tensor

from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.at_positions import AtPositions
from rare_tokens.ingest.ablation.second_order import SecondOrder
from rare_tokens.ingest.ablation.stages.capture import Captured
from rare_tokens.ingest.ablation.stages.curves import Parabola, Polynomial, least

SAMPLED, ROUGHLY = 512, 128  # positions at which effects are exact, about the second minimum and about the first
# Constants are counted from the mean, in units of the edit that is as long as the residual stream
_FIRST, FARTHEST = 0.01, 8.0  # steps of the search
_MARGIN, _LEAST_MARGIN = 0.5, 0.01  # of the interval beyond the first minimum: a share of its distance from the mean
_WIDTH, _LEAST_WIDTH = 0.3, 3e-3  # of the nodes, likewise
_NEAR = 3.0  # widths of the nodes to either side, on which the last minimum is looked for
_PRECISION, _EXACT_PRECISION = 1e-3, 1e-4  # of a minimum's place, by the second order and by exact effects
_GRID = np.geomspace(0.03, 3, 8)  # constants to either side of the mean at which the exact search first looks
SETTLED = 1e-6  # nats that the polynomials may cost
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Optimum:
    """The optimal constants of N neurons.

    Attributes:
        values: the constants.
        error: the most by which the mean loss may lie above its minimum, nats; NaN where no minimum was found.
        is_outside: whether a constant lies farther from all activations than these do from each other.
    """

    values: FloatArray
    error: FloatArray
    is_outside: NDArray[np.bool_]


def optimum(
    ablation: Ablation, captured: Captured, targets: NDArray[np.int64], mean: FloatArray, *, seed: int = 0
) -> Optimum:
    """Find the optimal constants of all neurons.

    Args:
        ablation: of the loss alone.
        captured: T positions.
        targets: T, token ids.
        mean: N, n̄, where the search begins.
        seed: of the choice of positions.
    """
    return _Search(ablation, captured, targets, mean, seed).found()


@dataclass(frozen=True)
class _Correction:
    """Exact − second order over the sample."""

    curve: Parabola
    slope_error: FloatArray  # N: standard error of its slope


@dataclass(frozen=True)
class _Sample:
    """Some positions of the run, with their moments."""

    rows: tuple[Tensor, Tensor, Tensor]  # residual stream, activations, targets
    there: AtPositions
    second_order: SecondOrder

    @staticmethod
    def of(ablation: Ablation, captured: Captured, targets: NDArray[np.int64], chosen: NDArray[np.int64]) -> "_Sample":
        residual, activations, tokens = (
            torch.from_numpy(np.stack([array[position] for position in chosen.tolist()]))
            for array in (captured.residual, captured.activations, targets)
        )
        rows = residual, activations, tokens
        there = ablation.at(*rows)
        return _Sample(rows, there, there.second_order(keep=True))

    def approximate(self, references: Sequence[Tensor]) -> list[Tensor]:
        """Δ by the second order for each reference, S x N."""
        return [torch.cat(stretches) for stretches in zip(*self.second_order.losses(references), strict=True)]


class _Exact:
    """Exact Δ of K neurons at the positions of a sample, for any constants."""

    def __init__(self, search: "_Search", sample: _Sample, neurons: NDArray[np.int64]) -> None:
        """All other neurons are left out, or (where a norm after the MLP needs them) left as they are."""
        residual, self.activations, targets = sample.rows
        self.there, self.columns = sample.there, neurons
        self.mean_activation, self.unit = search.mean[neurons], search.unit[neurons]
        if search.ablation.layer.post is None:
            few, self.columns = torch.from_numpy(neurons), np.arange(len(neurons))
            self.activations = self.activations[:, few]
            self.there = search.ablation.of(few).at(residual, self.activations, targets)

    def losses(self, y: FloatArray, i: FloatArray) -> FloatArray:
        """Δ for the constants y of those of the K with the numbers i: S x len(i)."""
        chosen = i.astype(np.int64)
        columns, constants = self.columns[chosen], self.mean_activation[chosen] + y * self.unit[chosen]
        reference = self.activations.clone()
        reference[:, columns] = torch.from_numpy(constants.astype(np.float32))
        return np.asarray(self.there.ablate(reference).delta_loss[:, columns].cpu().double().numpy())

    def mean(self, y: FloatArray, i: FloatArray) -> FloatArray:
        """Their mean over the sample."""
        return np.asarray(self.losses(y, i).mean(0))


class _Search:
    """Constants are counted from the mean, in units of the edit that is as long as the residual stream."""

    def __init__(
        self, ablation: Ablation, captured: Captured, targets: NDArray[np.int64], mean: FloatArray, seed: int
    ) -> None:
        self.ablation, self.captured, self.targets, self.mean = ablation, captured, targets, mean
        T = len(targets)
        chosen = np.sort(np.random.default_rng([seed, 0x0B7]).choice(T, min(SAMPLED, T), replace=False))
        self.is_whole = len(chosen) == T
        self.sample = _Sample.of(ablation, captured, targets, chosen)
        self.few = self.sample
        if not self.is_whole:
            self.few = _Sample.of(ablation, captured, targets, chosen[:: SAMPLED // ROUGHLY])
        length = self.sample.rows[0].double().norm(dim=1).mean().item()
        w_norm = ablation.layer.w_norm.double().cpu().numpy()
        self.moves = w_norm > 0
        self.unit = np.divide(length, w_norm, out=np.ones_like(w_norm), where=self.moves)

    def found(self) -> Optimum:
        """The search, in its order."""
        first, uncertainty = self.first_minimum()
        ends = self.interval(first, uncertainty)
        run = self.of_run(ends)
        start = least([run], *ends)
        width = np.maximum(_WIDTH * np.abs(start), _LEAST_WIDTH)
        wide = self.correction(self.few, start, width)
        better = least([run, wide.curve], *ends)
        width = np.clip(np.abs(better - start), width / 8, width / 2)
        closer = self.correction(self.sample, better, width)
        near = better - _NEAR * width, better + _NEAR * width
        run = self.of_run(near)
        best = least([run, closer.curve], *near)
        slope = self._slope_by_polynomials(best, run, wide, closer)
        error = self._error(slope, closer.slope_error, run.curvature(best) + closer.curve.curvature(best))
        settled = self._error(slope, 0, run.curvature(best) + closer.curve.curvature(best)) <= SETTLED
        edge = 0.01 * (near[1] - near[0])
        settled &= (best > near[0] + edge) & (best < near[1] - edge)
        left = np.flatnonzero(self.moves & ~settled)
        if len(left):
            best[left], error[left] = self.by_exact_effects(left, np.stack([start, better, best]))
        values = np.where(self.moves, self.mean + best * self.unit, self.mean)
        return Optimum(values, np.where(self.moves, error, 0.0), self._is_outside(values))

    def first_minimum(self) -> tuple[FloatArray, FloatArray]:
        """Where the second order over the sample is least, and the standard error of that place over the run; N."""

        def mean_loss(y: FloatArray, i: FloatArray) -> FloatArray:
            number = i.astype(np.int64)
            constants = np.zeros_like(self.mean)
            constants[number] = y
            return self._of_sample([constants])[0][number]

        neurons, start = np.arange(len(self.mean), dtype=np.float64), np.zeros_like(self.mean)
        place, _ = _minimum(mean_loss, start, neurons, np.full_like(start, _FIRST), _PRECISION)
        place = np.where(self.moves, place, 0.0)
        return place, self._uncertainty(place)

    def interval(self, first: FloatArray, uncertainty: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where the minimum is looked for: from below the mean and the first minimum to above both."""
        margin = _MARGIN * np.abs(first) + 4 * uncertainty + _LEAST_MARGIN
        low, high = np.minimum(first, 0) - margin, np.maximum(first, 0) + margin
        return np.maximum(low, -FARTHEST), np.minimum(high, FARTHEST)

    def of_run(self, ends: tuple[FloatArray, FloatArray]) -> Polynomial:
        """The second order over all positions of the run."""
        constants = Polynomial.points(*ends)
        if self.is_whole:
            return Polynomial.through(*ends, self._of_sample(constants))
        references, total = [self._reference(y) for y in constants], torch.zeros(1)
        for rows in self._blocks():
            total = total + self.ablation.at(*rows).second_order().totals(references)
        return Polynomial.through(*ends, (total / len(self.targets)).numpy())

    def correction(self, sample: "_Sample", centre: FloatArray, width: FloatArray) -> _Correction:
        """Exact − second order, at three constants of each neuron."""
        references = [self._reference(y) for y in (centre - width, centre, centre + width)]
        approximate = sample.approximate(references)
        exact = [sample.there.ablate(reference).delta_loss for reference in references]
        off = [(one - other).cpu().double().numpy() for one, other in zip(exact, approximate, strict=True)]
        curve = Parabola(centre, width, np.stack([one.mean(0) for one in off]))
        if self.is_whole:
            return _Correction(curve, np.zeros_like(centre))
        return _Correction(curve, ((off[2] - off[0]) / (2 * width)).std(0, ddof=1) / np.sqrt(len(off[0])))

    def by_exact_effects(self, neurons: NDArray[np.int64], guesses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The minima of some neurons by exact effects over the sample, from the best of R guesses (R x N), and errors.

        Where to begin is looked for at fewer of its positions.
        """
        number = np.arange(len(neurons), dtype=np.float64)
        roughly, exact = (_Exact(self, sample, neurons) for sample in (self.few, self.sample))
        grid = np.concatenate([-_GRID[::-1], [0.0], _GRID])[:, None]
        tried = np.concatenate([np.broadcast_to(grid, (len(grid), len(neurons))), guesses[:, neurons]])
        tried = tried.clip(-_GRID[-1], _GRID[-1])
        start = np.take_along_axis(tried, np.stack([roughly.mean(y, number) for y in tried]).argmin(0)[None], 0)[0]
        place, is_inside = _minimum(exact.mean, start, number, 0.1 * np.abs(start) + _FIRST, _EXACT_PRECISION)
        step = 0.01 * np.abs(place) + _LEAST_WIDTH
        below, middle, above = (exact.losses(y, number) for y in (place - step, place, place + step))
        curvature = (above - 2 * middle + below).mean(0) / step**2
        slope = (above - below) / (2 * step)
        chance = 0.0 if self.is_whole else slope.std(0, ddof=1) / np.sqrt(len(slope))
        return place, np.where(is_inside, self._error(np.abs(slope.mean(0)), chance, curvature), np.nan)

    def _slope_by_polynomials(
        self, best: FloatArray, run: Polynomial, wide: _Correction, closer: _Correction
    ) -> FloatArray:
        """The slope that interpolation may have missed."""
        bent = np.abs(wide.curve.slope(best) - closer.curve.slope(best))
        return np.asarray(bent * (closer.curve.width / wide.curve.width) ** 2 + run.slope_error())

    @staticmethod
    def _error(slope: FloatArray, chance: FloatArray | float, curvature: FloatArray) -> FloatArray:
        """How far above its minimum the mean loss may be."""
        possible = (slope + 2 * chance) ** 2
        return np.divide(possible, 2 * curvature, out=np.full_like(slope, np.nan), where=curvature > 0)

    def _uncertainty(self, place: FloatArray) -> FloatArray:
        """Standard error of a minimum of the second order over the sample, as an estimate of the run's."""
        if self.is_whole:
            return np.zeros_like(place)
        step = np.maximum(0.05 * np.abs(place), _LEAST_WIDTH)
        references = [self._reference(y) for y in (place - step, place, place + step)]
        below, middle, above = (one.cpu().double().numpy() for one in self.sample.approximate(references))
        slope_error = ((above - below) / (2 * step)).std(0, ddof=1) / np.sqrt(len(below))
        curvature = (above - 2 * middle + below).mean(0) / step**2
        return np.divide(slope_error, curvature, out=np.zeros_like(place), where=curvature > 0).clip(max=FARTHEST)

    def _reference(self, y: FloatArray) -> Tensor:
        return torch.from_numpy((self.mean + y * self.unit).astype(np.float32))

    def _of_sample(self, constants: Sequence[FloatArray]) -> FloatArray:
        """Mean over the sample of Δ by the second order, for each of R constants per neuron: R x N."""
        totals = self.sample.second_order.totals([self._reference(y) for y in constants])
        return np.asarray((totals / len(self.sample.rows[2])).numpy())

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Residual stream, activations and targets of all positions, as many at a time as the memory allows."""
        T = len(self.targets)
        size = self.ablation.preferred_positions(T)
        for start in range(0, T, size):
            arrays = (self.captured.residual, self.captured.activations, self.targets)
            residual, activations, targets = (torch.from_numpy(np.array(one[start : start + size])) for one in arrays)
            yield residual, activations, targets

    def _is_outside(self, values: FloatArray) -> NDArray[np.bool_]:
        least_n, most_n = np.full_like(values, np.inf), np.full_like(values, -np.inf)
        for _, activations, _ in self._blocks():
            least_n = np.minimum(least_n, activations.amin(0).numpy())
            most_n = np.maximum(most_n, activations.amax(0).numpy())
        spread = most_n - least_n
        return np.asarray((values < least_n - spread) | (values > most_n + spread))


def _minimum(
    function: Callable[[FloatArray, FloatArray], FloatArray],
    start: FloatArray,
    numbers: FloatArray,
    step: FloatArray,
    precision: float,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Minima of some functions, called with places and the functions' numbers; and which lie within the limits."""
    around = {"xl0": start - step, "xr0": start + step, "xmin": -FARTHEST, "xmax": FARTHEST}
    bracket = elementwise.bracket_minimum(function, start, **around, args=(numbers,), maxiter=30)
    tolerances = {"xatol": precision * _LEAST_WIDTH, "xrtol": precision}
    found = elementwise.find_minimum(function, bracket.bracket, args=(numbers,), tolerances=tolerances, maxiter=40)
    is_inside = np.asarray((bracket.status == 0) & (np.abs(found.x) < 0.999 * FARTHEST))  # false where it is NaN
    return np.where(is_inside, found.x, np.nan_to_num(bracket.bracket[1])), is_inside
