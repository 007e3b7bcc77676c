"""What replaces an activation: the reference values n* of an ablation (docs/references.md).

mean          n̄_i, its mean over the run's positions (Liu et al. 2025)
zero          0
resample[:R]  its value at another position: R draws, each a seeded permutation of the positions
optimal       the constant that minimises the mean loss over the run's positions (Li and Janson 2024): `optimum`
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rare_tokens.common.errors import OptionError
from rare_tokens.ingest.ablation.block import BlockEffects

MEAN, ZERO, RESAMPLE, OPTIMAL = "mean", "zero", "resample", "optimal"
KINDS = (MEAN, ZERO, RESAMPLE, OPTIMAL)
MOST_DRAWS = 100
_SEED = 0x5E5A


@dataclass(frozen=True)
class Choice:
    """A reference as it is asked for: one of `KINDS`, and how many draws of it."""

    kind: str
    draws: int = 1

    @property
    def name(self) -> str:
        """As `--ablation` takes it and `dim_run.ablation` shows it."""
        return f"{self.kind}:{self.draws}" if self.draws > 1 else self.kind

    @property
    def is_constant(self) -> bool:
        """Whether each neuron has one value that needs no search."""
        return self.kind in (MEAN, ZERO)


def choices(asked: str) -> tuple[Choice, ...]:
    """The references in the value of `--ablation`, in its order.

    Raises:
        OptionError: one is unknown, is named twice, or has no draws.
    """
    found = tuple(_choice(asked, text.strip()) for text in asked.split(","))
    kinds = [one.kind for one in found]
    if twice := [kind for kind in dict.fromkeys(kinds) if kinds.count(kind) > 1]:
        raise OptionError(f"--ablation {asked}: {twice[0]} is named twice. Name each reference once.")
    return found


def _choice(asked: str, text: str) -> Choice:
    kind, colon, draws = text.partition(":")
    if kind not in KINDS or (colon and kind != RESAMPLE):
        raise OptionError(
            f"--ablation {asked}: there is no reference {text!r}. Choose from mean, zero, resample, resample:R (R "
            "draws) and optimal; separate several by commas."
        )
    if not colon:
        return Choice(kind)
    if not (draws.isascii() and draws.isdecimal() and 1 <= int(draws) <= MOST_DRAWS):
        raise OptionError(f"--ablation {asked}: {text} asks for no number of draws from 1 to {MOST_DRAWS}.")
    return Choice(kind, int(draws))


class Rows(Protocol):
    """Captured activations, T × N, of which slices of rows are read."""

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """Those rows."""


class Reference(Protocol):
    """What replaces the activations of a run's layer."""

    @property
    def constant(self) -> NDArray[np.float64] | None:
        """Its value for each neuron, N; None where it differs from position to position."""

    def draws(self, activations: Rows, positions: NDArray[np.int64]) -> list[Tensor]:
        """What replaces the activations at P positions: for each draw N or P × N, float32."""


@dataclass(frozen=True)
class Constant:
    """One value for each neuron."""

    values: NDArray[np.float64]  # N

    @property
    def constant(self) -> NDArray[np.float64]:
        """N, as they are used: rounded to float32."""
        return self.values.astype(np.float32).astype(np.float64)

    def draws(self, activations: Rows, positions: NDArray[np.int64]) -> list[Tensor]:  # noqa: ARG002
        """The values, the same at every position."""
        return [torch.from_numpy(self.values.astype(np.float32))]


@dataclass(frozen=True)
class Resampled:
    """The activations at other positions of the run: of another window, at any of its positions."""

    sources: tuple[NDArray[np.int64], ...]  # for each draw T: the position whose activations replace those here
    window: int  # predicted positions of a window

    @property
    def constant(self) -> None:
        """None."""
        return

    def draws(self, activations: Rows, positions: NDArray[np.int64]) -> list[Tensor]:
        """Each draw's activations, P × N, read window by window."""
        return [torch.from_numpy(self._rows(activations, source[positions])) for source in self.sources]

    def _rows(self, activations: Rows, source: NDArray[np.int64]) -> NDArray[np.float32]:
        windows = source // self.window
        parts: dict[int, NDArray[np.float32]] = {}
        for window in np.unique(windows).tolist():
            first = window * self.window
            stretch = np.asarray(activations[first : first + self.window])
            parts[window] = stretch[source[windows == window] - first]
        width = next(iter(parts.values())).shape[1]
        found = np.empty((len(source), width), dtype=np.float32)
        for window, rows in parts.items():
            found[windows == window] = rows
        return found


@dataclass(frozen=True)
class ReferenceValues:
    """A run's reference, and what is known of it.

    Attributes:
        reference: it.
        error: of optimal ones the most by which the mean loss may exceed its minimum, N, nats; NaN where unknown.
        is_outside: of optimal ones whether it is far from every activation, N.
    """

    reference: Reference
    error: NDArray[np.float64] | None = None
    is_outside: NDArray[np.bool_] | None = None


def resampled(choice: Choice, windows: int, window: int, seed: int) -> Resampled:
    """The draws of a run of some windows of so many predicted positions.

    A draw takes the windows round one random circle, so that each gets the activations of another one, and shuffles
    the positions within each: a permutation, in which no text replaces itself.

    Raises:
        OptionError: there is a single window.
    """
    if windows < 2:
        raise OptionError(
            f"--ablation {choice.name}: a single window has no other one to take activations from. Use more --tokens."
        )
    sources = []
    for draw in range(choice.draws):
        generator = np.random.default_rng([seed, _SEED, draw])
        circle = generator.permutation(windows)
        other = np.empty(windows, dtype=np.int64)
        other[circle] = np.roll(circle, -1)
        within = generator.permuted(np.tile(np.arange(window), (windows, 1)), axis=1)
        sources.append((other[:, None] * window + within).reshape(-1))
    return Resampled(tuple(sources), window)


def averaged(draws: Sequence[BlockEffects]) -> BlockEffects:
    """One effect for each pair from those of several draws: their mean magnitude, with the sign of their mean.

    So the mean magnitude over positions is that over positions and draws, which is what influence is made of.
    """
    if len(draws) == 1:
        return draws[0]
    values = {name: averaged_values([one.values[name] for one in draws]) for name in draws[0].values}
    return replace(draws[0], values=values, exact_pairs=sum(one.exact_pairs for one in draws), report=None)


def averaged_values(draws: Sequence[Tensor]) -> Tensor:
    """Mean magnitude over the draws, with the sign of the mean."""
    each = torch.stack(list(draws))
    return draws[0] if len(draws) == 1 else each.abs().mean(0).copysign(each.mean(0))
