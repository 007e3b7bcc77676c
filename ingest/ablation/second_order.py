"""Δ by the second order alone, for a search: cheap for many references, and without a bound on its error.

With δ̃ = δ − E_p δ it is E_p δ − δ_y + log(1 + E_p[δ̃²]/2), from the same moments as the series (`series.series`).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.layer.edits import BlockEdits
from rare_tokens.ingest.ablation.series.series import CentralMoments


class SecondOrder:
    """Δ of N neurons at B positions, for any reference."""

    def __init__(
        self, edits: BlockEdits, moments: Callable[[slice], CentralMoments], stretches: Sequence[slice], *, keep: bool
    ) -> None:
        """`moments` gives those of a stretch of positions; `keep` them where references follow one by one."""
        self._edits, self._moments, self._stretches = edits, moments, stretches
        self._kept = [(at, moments(at)) for at in stretches] if keep else None

    def losses(self, references: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Stretch by stretch Δ for each reference (N or B x N): b x N float32, in nats."""
        edits = [self._edits.towards(reference) for reference in references]
        for at, moments in self._kept or ((at, self._moments(at)) for at in self._stretches):
            yield [_loss(moments, one, at) for one in edits]

    def totals(self, references: Sequence[Tensor]) -> Tensor:
        """Σ over the positions of Δ for each of R references: R x N float64."""
        total = torch.zeros(len(references), 1, dtype=torch.float64)
        for found in self.losses(references):
            total = total + torch.stack([loss.sum(0).double().cpu() for loss in found])
        return total


def _loss(moments: CentralMoments, edits: BlockEdits, at: slice) -> Tensor:
    change = edits.factors(at).change
    variance = moments.common.variance(change) + moments.rare.variance(change)
    return variance.div_(2).log1p_().add_(moments.first_order(change))
