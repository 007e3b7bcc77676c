"""The final norm folded into the unembedding U, which is never held whole but made piece by piece."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rare_tokens.ingest.model.head import Head

_ALIGNED = 64  # pieces are multiples of this where possible: products into aligned rows are a third faster
_ROWS_IN_CACHE = 128  # of the unembedding, folded at a time on a processor
COMMON, RARE = range(2)  # tiers of the vocabulary, by the typical prediction


@dataclass(frozen=True)
class FoldedHead:
    """The head as the algorithm uses it: ``logits = (U x) / σ + b`` with x centred for LayerNorm.

    U = W_U diag(γ) less one row, `centre` (softmax does not see it), is never held whole: `pieces` yields it, the
    common tokens first.
    """

    head: Head
    centre: Tensor  # d, float64
    bias: Tensor | None  # b = W_U β + b_U less its mean: V, float64; None where it is zero
    order: Tensor  # V token ids, the common ones first
    common: int  # how many of them count as common
    device: torch.device
    piece_size: int  # tokens in a piece of the vocabulary, at most

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.head.unembedding.shape[0]

    @property
    def width(self) -> int:
        """d, the width of the residual stream."""
        return self.head.unembedding.shape[1]

    def gather(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Rows of U for K token ids: K x d."""
        unembedding = self.head.unembedding
        # In float64 up to the last step: the centre can be far larger than what is left of a row. (MPS has no float64.)
        place = torch.device("cpu") if self.device.type == "mps" else self.device
        gain, centre = self.head.norm.gain.to(place, torch.float64), self.centre.to(place)
        folded = torch.empty(len(ids), self.width, dtype=dtype, device=place)
        size = _ROWS_IN_CACHE if place.type == "cpu" else len(ids)
        for few, rows in zip(ids.to(unembedding.device).split(size), folded.split(size), strict=True):
            rows.copy_(unembedding[few].to(place, torch.float64).mul_(gain).sub_(centre))
        return folded.to(self.device)

    def pieces(self, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield (K token ids, their rows of U, their tier: `COMMON`, `RARE`) in order; K ≤ `piece_size`."""
        bounds = (0, self.common, self.vocabulary)
        for tier, (first, last) in enumerate(itertools.pairwise(bounds)):
            tokens = last - first
            size = -(-tokens // max(1, -(-tokens // self.piece_size)))
            size = min(self.piece_size, -(-size // _ALIGNED) * _ALIGNED)
            for start in range(first, last, max(1, size)):
                ids = self.order[start : min(start + size, last)]
                yield ids, self.gather(ids, dtype), tier

    def add_bias(self, ids: Tensor, z: Tensor) -> Tensor:
        """Logits (up to a constant) from z = U x / σ of K token ids, ... x K; they may be z itself."""
        bias = self.bias_of(ids, z.dtype)
        return z if bias is None else z + bias

    def bias_of(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """The bias of K tokens; None where it is zero."""
        return None if self.bias is None else self.bias[ids].to(dtype)

    def on(self, device: torch.device) -> "FoldedHead":
        """The same head, computing on another device."""
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, device=device, order=self.order.to(device), bias=bias)

    def ordered_by(self, probability: Tensor, common_mass: float) -> "FoldedHead":
        """The same head with its tokens ordered by V typical probabilities, and U centred by them.

        The common tokens are the fewest that hold `common_mass` of the probability.
        """
        probability = probability.double().cpu()
        order = probability.argsort(descending=True, stable=True)
        mass = probability[order].cumsum(0) / probability.sum()
        common = min(int((mass < common_mass).sum()) + 1, self.vocabulary)
        shift = torch.zeros(self.width, dtype=torch.float64)
        for ids, U, _ in self.pieces():
            shift += (probability[ids.cpu()].float().to(self.device) @ U).double().cpu() / float(probability.sum())
        return replace(
            self,
            centre=self.centre + shift.to(self.centre.device),
            order=order.to(self.device),
            common=common,
        )


def fold(head: Head, device: torch.device, piece_size: int) -> FoldedHead:
    """Fold a head's gain and bias into its unembedding, at most `piece_size` x d values at a time."""
    W_U = head.unembedding
    V, d = W_U.shape
    total = torch.zeros(d, dtype=torch.float64)
    bias = torch.zeros(V, dtype=torch.float64) if head.logit_bias is None else head.logit_bias.cpu().double()
    gain = head.norm.gain.cpu().double()
    beta = None if head.norm.bias is None else head.norm.bias.cpu().double()
    for start in range(0, V, piece_size):
        rows = W_U[start : start + piece_size].cpu().double()
        total += rows.sum(0)
        if beta is not None:
            bias[start : start + piece_size] += rows @ beta
    centre = total * gain / V
    bias = bias - bias.mean()
    place = torch.device("cpu") if device.type == "mps" else device
    return FoldedHead(
        head,
        centre.to(place),
        (bias.float() if device.type == "mps" else bias).to(device) if bool(bias.any()) else None,
        torch.arange(V, device=device),
        V,
        device,
        piece_size,
    )
