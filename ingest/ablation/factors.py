"""What ablating a neuron does to the logits: δ_v = u z_v + c m_v, its two factors (docs/definitions.md, Symbols)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """The factors of b positions and all N neurons, b x N each."""

    u: Tensor  # σ0/σ1 − 1
    c: Tensor  # a/σ1
    frozen_c: Tensor  # a/σ0: c with the norm's scale frozen
    ratio: Tensor  # σ1/σ0


@dataclass(frozen=True)
class Pairs:
    """P pairs (position t of the block, neuron i) and their factors."""

    t: Tensor
    i: Tensor
    u: Tensor
    c: Tensor
    frozen_c: Tensor

    @staticmethod
    def where(chosen: Tensor, factors: Factors, first: int) -> "Pairs":
        """The `chosen` pairs (b x N, bool) of b positions, of which `first` is the first."""
        t, i = chosen.nonzero().unbind(1)
        return Pairs(t + first, i, factors.u[t, i], factors.c[t, i], factors.frozen_c[t, i])

    @staticmethod
    def concatenate(several: "list[Pairs]") -> "Pairs":
        """All pairs of several lists."""
        return Pairs(*(torch.cat([getattr(one, name) for one in several]) for name in ("t", "i", "u", "c", "frozen_c")))

    def __len__(self) -> int:
        """P."""
        return len(self.t)
