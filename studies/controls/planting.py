"""Makes the ranked influence of a model's last MLP a chosen curve, by scaling the neurons' output weights.

Replacing neuron i's activation by its mean moves the residual stream by (n̄_i − n_i) w_i. For small moves Δ is linear
in them, so the mean of |Δ| grows in proportion to ‖w_i‖. So a neuron's influence is measured, w_i is multiplied by
wanted over measured, and since every edit also moves the residual stream for all neurons, that is repeated until what
is measured is what is wanted. The wanted curve keeps the mean log influence of the model, so that the MLP as a whole
grows little.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from rare_tokens.analyses.result_table import FloatArray, IntArray
from studies.controls.last_mlp import LastMlp

Measure = Callable[[LastMlp], FloatArray]


@dataclass(frozen=True)
class Planted:
    """What was planted.

    Attributes:
        first: the neurons that were given the first ranks, ascending, shape (b,).
        wanted: log influence asked of each neuron, shape (N,), nats.
        measured: log influence of each neuron in the saved model, on the text that it was planted with, shape (N,).
    """

    first: IntArray
    wanted: FloatArray
    measured: FloatArray

    @property
    def error(self) -> float:
        """Root mean square of measured − wanted."""
        return float(np.sqrt(np.mean((self.measured - self.wanted) ** 2)))


def plant(
    mlp: LastMlp,
    curve: FloatArray,
    first: IntArray,
    measure: Measure,
    *,
    edits: int = 3,
    start: FloatArray | None = None,
) -> Planted:
    """Edit `mlp` until its ranked influence is `curve`, up to a constant.

    Args:
        mlp: edited in place.
        curve: log influence by rank, descending, shape (N,).
        first: neurons that get the first ranks, in any order; the others keep their order.
        measure: influence of each neuron of an edited model, shape (N,), nats.
        edits: how often to edit; the model is measured once more after the last.
        start: what `measure` says of `mlp` as it is, where that is known.
    """
    influence = measure(mlp) if start is None else start
    wanted = np.empty(mlp.neurons)
    wanted[plant_order(influence, first)] = curve + np.mean(np.log(influence)) - np.mean(curve)
    for _ in range(edits):
        mlp.output *= torch.from_numpy(np.exp(wanted) / influence).float()[:, None]
        influence = measure(mlp)
    return Planted(np.sort(first), wanted, np.log(influence))


def plant_order(influence: FloatArray, first: IntArray) -> IntArray:
    """The neurons by the rank they are given: `first`, then the others, both by their own influence; shape (N,)."""
    return np.lexsort((-influence, ~np.isin(np.arange(len(influence)), first)))


def share_driver(mlp: LastMlp, members: IntArray, share: float, rng: np.random.Generator) -> None:
    """Let these neurons read one direction in common, beside what each reads by itself.

    The input row of each becomes share · driver + √(1 − share²) · its own, at its own norm. The driver is the direction
    of the row of one more neuron, so that it is one that the model's residual stream does vary along.

    Args:
        mlp: edited in place.
        members: neurons, shape (k,).
        share: of the driver in each row, 0 … 1.
        rng: draws the neuron whose row is the driver.
    """
    others = np.setdiff1d(np.arange(mlp.neurons), members)
    driver = torch.nn.functional.normalize(mlp.input[int(rng.choice(others))], dim=0)
    own = mlp.input[torch.from_numpy(members)]
    norm = own.norm(dim=1, keepdim=True)
    mixed = share * driver + (1 - share**2) ** 0.5 * own / norm
    mlp.input[torch.from_numpy(members)] = norm * torch.nn.functional.normalize(mixed, dim=1)
