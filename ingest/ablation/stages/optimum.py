"""The optimal reference: for each neuron the constant n* that minimises the mean loss over the run's positions.

Li and Janson (2024), "Optimal ablation for interpretability". The mean of Δ is a smooth function of n*, and its minimum
may lie far from the activations: then the constant acts as a bias of the logits that the model would gain by.

Exact effects of all neurons at all positions for every constant that is tried would cost many ingests. Instead

    mean over the run  ≈  second order over S positions  +  q
    q = (second order over the run − over the S positions) + (exact − second order, over the S positions)

q is a control variate's correction, small and smooth. It is measured at three constants of each neuron and interpolated
by a parabola: about a first minimum, and then about a better one.

What is stated as the error is how far the mean loss may lie above its minimum: s²/2H, H its curvature and s the slope
that is still possible at the constant found, twice the standard error over the S positions (0 where they are all) plus
what the interpolation may be off by.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import elementwise
from torch import Tensor

from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.stages.capture import Captured

SAMPLED = 512  # positions at which effects are exact in the search
_FIRST, _FARTHEST = 0.01, 8.0  # steps of the search from the mean; its unit is the length of the residual stream
_WIDTH, _LEAST_WIDTH = 0.15, 1e-3  # of the nodes: a share of the distance from the mean; and in these units
_CLOSER = 0.25  # of that width, at most, the second time
_PRECISION = 1e-4  # of a minimum's place
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Optimum:
    """The optimal constants of N neurons.

    Attributes:
        values: the constants.
        error: the most by which the mean loss may lie above its minimum, nats.
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
    search = _Search(ablation, captured, targets, mean, seed)
    first = search.minimum(None, np.zeros_like(mean), np.full_like(mean, _FIRST))
    nodes = search.nodes(first, np.maximum(_WIDTH * np.abs(first), _LEAST_WIDTH), None)
    better = search.minimum(nodes, first, nodes.width)
    closer = search.nodes(
        better, np.clip(np.abs(better - first), _CLOSER / 5 * nodes.width, _CLOSER * nodes.width), nodes
    )
    best = search.minimum(closer, better, closer.width)
    return search.told(best, nodes, closer)


@dataclass(frozen=True)
class _Parabola:
    """A function of each neuron's constant through three points, N each."""

    centre: FloatArray
    width: FloatArray
    values: FloatArray  # 3 x N: at centre − width, centre, centre + width

    def at(self, y: FloatArray, i: NDArray[np.int64]) -> FloatArray:
        """Values of the neurons i."""
        below, middle, above = self.values[:, i]
        x = (y - self.centre[i]) / self.width[i]
        return middle + x * (above - below) / 2 + x**2 * (above - 2 * middle + below) / 2

    def slope(self, y: FloatArray) -> FloatArray:
        """Of all neurons."""
        below, middle, above = self.values
        x = (y - self.centre) / self.width
        return ((above - below) / 2 + x * (above - 2 * middle + below)) / self.width


@dataclass(frozen=True)
class _Nodes:
    """What is measured at three constants of each neuron: q in two parts."""

    run: _Parabola  # second order over the run − over the sample
    exact: _Parabola  # exact − second order, over the sample
    slope_error: FloatArray  # N: standard error of the latter's slope

    @property
    def width(self) -> FloatArray:
        """Between the constants."""
        return self.exact.width


class _Search:
    """Constants are counted from the mean, in units of the edit that is as long as the residual stream."""

    def __init__(
        self, ablation: Ablation, captured: Captured, targets: NDArray[np.int64], mean: FloatArray, seed: int
    ) -> None:
        self.ablation, self.captured, self.targets, self.mean = ablation, captured, targets, mean
        T = len(targets)
        chosen = np.sort(np.random.default_rng([seed, 0x0B7]).choice(T, min(SAMPLED, T), replace=False))
        self.is_whole = len(chosen) == T
        self.sample = tuple(
            torch.from_numpy(np.stack([array[position] for position in chosen.tolist()]))
            for array in (captured.residual, captured.activations, targets)
        )
        length = self.sample[0].double().norm(dim=1).mean().item()
        w_norm = ablation.layer.w_norm.double().cpu().numpy()
        self.moves = w_norm > 0
        self.unit = np.divide(length, w_norm, out=np.ones_like(w_norm), where=self.moves)
        self.second_order = ablation.second_order(*self.sample, keep=True)

    def minimum(self, nodes: _Nodes | None, start: FloatArray, step: FloatArray) -> FloatArray:
        """Where the second order over the sample, corrected as the nodes say, is least; N."""

        def mean_loss(y: FloatArray, i: NDArray[np.float64]) -> FloatArray:
            number = i.astype(np.int64)
            constants = start.copy()
            constants[number] = y
            found = self._of_sample([constants])[0][number]
            return found if nodes is None else found + nodes.run.at(y, number) + nodes.exact.at(y, number)

        neurons = np.arange(len(start), dtype=np.float64)
        limits = {"xmin": np.full_like(start, -_FARTHEST), "xmax": np.full_like(start, _FARTHEST)}
        around = {"xl0": start - step, "xr0": start + step}
        bracket = elementwise.bracket_minimum(mean_loss, start, **around, **limits, args=(neurons,), maxiter=40)
        tolerances = {"xatol": _PRECISION * _LEAST_WIDTH, "xrtol": _PRECISION}
        found = elementwise.find_minimum(mean_loss, bracket.bracket, args=(neurons,), tolerances=tolerances, maxiter=40)
        known = self.moves & np.isfinite(found.x) & (bracket.status == 0)
        return np.where(known, found.x, np.where(self.moves & (bracket.status == -1), bracket.bracket[1], start))

    def nodes(self, centre: FloatArray, width: FloatArray, before: _Nodes | None) -> _Nodes:
        """Measure q about a constant of each neuron; what is known of the run is taken from the nodes `before`."""
        constants = [centre - width, centre, centre + width]
        references = [self._reference(y) for y in constants]
        approximate = [torch.cat(stretches) for stretches in zip(*self.second_order.losses(references), strict=True)]
        exact = [found.delta_loss for found in self.ablation.ablate_by(*self.sample, references)]
        off = [(one - other).cpu().double().numpy() for one, other in zip(exact, approximate, strict=True)]
        corrections = _Parabola(centre, width, np.stack([one.mean(0) for one in off]))
        slope_error = np.zeros_like(centre)
        if not self.is_whole:
            slope_error = ((off[2] - off[0]) / (2 * width)).std(0, ddof=1) / np.sqrt(len(off[0]))
        return _Nodes(self._of_run(constants) if before is None else before.run, corrections, slope_error)

    def told(self, best: FloatArray, nodes: _Nodes, closer: _Nodes) -> Optimum:
        """The constants found, and what their error is."""
        steps = [best - closer.width, best, best + closer.width]
        numbers = np.arange(len(best))
        below, middle, above = (
            value + closer.run.at(y, numbers) + closer.exact.at(y, numbers)
            for y, value in zip(steps, self._of_sample(steps), strict=True)
        )
        curvature = (above - 2 * middle + below) / closer.width**2
        bent = np.abs(nodes.exact.slope(best) - closer.exact.slope(best)) * (closer.width / nodes.width) ** 2
        slope = bent + 2 * closer.slope_error
        is_found = (curvature > 0) & (np.abs(best) < _FARTHEST)
        error = np.divide(slope**2, 2 * curvature, out=np.full_like(best, np.nan), where=is_found)
        values = np.where(self.moves, self.mean + best * self.unit, self.mean)
        return Optimum(values, np.where(self.moves, error, 0.0), self._is_outside(values))

    def _reference(self, y: FloatArray) -> Tensor:
        return torch.from_numpy((self.mean + y * self.unit).astype(np.float32))

    def _of_sample(self, constants: list[FloatArray]) -> FloatArray:
        """Mean over the sample of Δ by the second order, for each of R constants per neuron: R x N."""
        totals = self.second_order.totals([self._reference(y) for y in constants])
        return (totals / len(self.sample[2])).numpy()

    def _of_run(self, constants: list[FloatArray]) -> _Parabola:
        """How far the same over the run lies above it."""
        _, centre, above = constants
        nothing = np.zeros((3, len(centre)))
        if self.is_whole:
            return _Parabola(centre, above - centre, nothing)
        references, total = [self._reference(y) for y in constants], torch.zeros(3, len(centre), dtype=torch.float64)
        for rows in self._blocks():
            total += self.ablation.second_order(*rows).totals(references)
        return _Parabola(centre, above - centre, (total / len(self.targets)).numpy() - self._of_sample(constants))

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Residual stream, activations and targets of all positions, as many at a time as the memory allows."""
        T = len(self.targets)
        size = self.ablation.preferred_positions(T)
        for start in range(0, T, size):
            arrays = (self.captured.residual, self.captured.activations, self.targets)
            residual, activations, targets = (torch.from_numpy(np.array(one[start : start + size])) for one in arrays)
            yield residual, activations, targets

    def _is_outside(self, values: FloatArray) -> NDArray[np.bool_]:
        least, most = np.full_like(values, np.inf), np.full_like(values, -np.inf)
        for _, activations, _ in self._blocks():
            least = np.minimum(least, activations.amin(0).numpy())
            most = np.maximum(most, activations.amax(0).numpy())
        spread = most - least
        return (values < least - spread) | (values > most + spread)
