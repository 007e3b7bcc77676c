"""The effects at a block of positions, and what they are computed from."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rare_tokens.common.effects import LOSS
from rare_tokens.ingest.ablation.layer.changes import Pairs
from rare_tokens.ingest.ablation.layer.edits import BlockEdits
from rare_tokens.ingest.ablation.layer.unablated import Positions
from rare_tokens.ingest.ablation.numerics.rounding import Sizes, Spans


@dataclass(frozen=True)
class SeriesReport:
    """How close the series came; only on request."""

    share_of_tolerance: Tensor  # B x N: a loss's bound over its tolerance; inf where the series was not used
    common_pairs: int  # of the pairs that it left over, those for which the common tokens and moments are enough
    float64_pairs: int  # of the same, those that float32 may not hold


@dataclass(frozen=True)
class BlockEffects:
    """Effects of ablating each of N neurons at each of B positions, in nats."""

    values: dict[str, Tensor]  # by effect (`common.effects`), B x N float32
    loss: Tensor  # B float32, of the unablated model
    entropy: Tensor  # B float32, of the unablated model's prediction
    exact_pairs: int  # pairs computed over the whole vocabulary
    report: SeriesReport | None = None

    @property
    def delta_loss(self) -> Tensor:
        """Δ, B x N float32."""
        return self.values[LOSS]


@dataclass
class Block:
    """B positions whose neurons are ablated: what was captured there, the unablated model, and the effects so far."""

    residual: Tensor  # B x d
    activations: Tensor  # B x N
    edits: BlockEdits
    unablated: Positions
    sizes: Sizes
    spans: Spans
    effects: tuple[str, ...]
    with_report: bool
    values: dict[str, Tensor] = field(default_factory=dict)  # of the effects, B x N each
    bounds: Tensor | None = None
    common_pairs: int = 0
    float64_pairs: int = 0
    left: list[Pairs] = field(default_factory=list)  # pairs that the series cannot settle, yet to be computed
    coarse: list[Tensor] = field(default_factory=list)  # (t, i), P x 2: whose attribution float32 cannot hold

    def towards(self, reference: Tensor) -> "Block":
        """The same positions, whose neurons are replaced by a reference (N or B x N); no effect is there yet."""
        device, shape = self.unablated.targets.device, tuple(self.activations.shape)
        values = {name: torch.empty(shape, device=device) for name in self.effects}
        bounds = torch.empty(shape, device=device) if self.with_report else None
        edits = self.edits.towards(reference)
        return replace(
            self, edits=edits, values=values, bounds=bounds, common_pairs=0, float64_pairs=0, left=[], coarse=[]
        )
