"""What ablating a neuron does to the logits: δ_v = Σ_f u_f z_{f,v} + c m_v (docs/definitions.md, Symbols).

The z_f are *functions of the token that belong to a position*. There is one in most models, z = U x/σ0; a norm after
the MLP adds q, the logits of what the MLP adds to the residual stream; the log-unigram axis counts as one where an
effect freezes it.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """Factors of a change of the logits, of pairs in any shape."""

    u: Tensor  # F x …, one for each function
    c: Tensor  # …

    def __getitem__(self, chosen: Tensor | tuple[Tensor, ...] | slice) -> "Change":
        """Some of the pairs."""
        which = chosen if isinstance(chosen, tuple) else (chosen,)
        return Change(self.u[(slice(None), *which)], self.c[which])

    @staticmethod
    def concatenate(several: "list[Change]") -> "Change":
        """Those of several lists of pairs, one after the other."""
        return Change(torch.cat([one.u for one in several], dim=1), torch.cat([one.c for one in several]))


@dataclass(frozen=True)
class Factors:
    """The changes of b positions and all N neurons."""

    change: Change  # b x N
    direct: Change  # the same with the final norm's scale frozen
    linear: Change  # the first order of `change` in a
    ratio: Tensor  # b x N: σ1/σ0, or the same of the norm after the MLP where that is smaller


@dataclass(frozen=True)
class Pairs:
    """P pairs (position t of the block, neuron i) that the series leaves over."""

    t: Tensor  # P, int32
    i: Tensor  # P, int32
    change: Change
    direct: Change
    target_m: Tensor  # m_{i,y}
    first_order: Tensor  # E δ − δ_y
    spread: Tensor  # standard deviation of δ under p, at most
    size: Tensor  # how far the edit moves the normed residual, at most
    ratio: Tensor  # as `Factors.ratio`
    rare_growth: Tensor  # E x P, of each effect with a change of its own: Σ over the rare tokens of p (exp(δ_v − δ_y)
    # − 1) from their moments; NaN where these do not tell all of them well enough
    rare_error: Tensor  # P: the most that its error does to an effect, nats; 0 where it is not told

    @staticmethod
    def concatenate(several: "list[Pairs]") -> "Pairs":
        """All pairs of several lists."""

        def joined(name: str) -> Any:
            values = [getattr(one, name) for one in several]
            return Change.concatenate(values) if isinstance(values[0], Change) else torch.cat(values, dim=-1)

        return Pairs(**{one.name: joined(one.name) for one in fields(Pairs)})

    def __getitem__(self, chosen: Tensor) -> "Pairs":
        """Some of the pairs."""

        def some(value: Any) -> Any:
            return value[chosen] if isinstance(value, Change) else value[..., chosen]

        return Pairs(**{one.name: some(getattr(self, one.name)) for one in fields(Pairs)})

    @property
    def is_in_full(self) -> Tensor:
        """P: whether the rare tokens must be summed one by one too."""
        return self.rare_growth[0].isnan()

    def __len__(self) -> int:
        """P."""
        return len(self.t)
