"""What lies between the residual stream and the logits: the final norm and the unembedding, folded block by block."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rare_tokens.common.errors import UserError

ROWS = 8_192  # of the unembedding that are copied at a time, into another precision or beside its gain
_VALUES = 1 << 22  # of a tensor looked at at a time
_ALIGNED = 64  # a block's size is a multiple of it, where it can be: products into aligned rows are faster by a third


TOP, COMMON, RARE = range(3)  # tiers of the vocabulary, by the typical prediction


@dataclass(frozen=True)
class Head:
    """The final norm and the unembedding of a model: ``logits = W_U (γ · norm(x) + β) + b_U``."""

    unembedding: Tensor  # W_U, V x d
    logit_bias: Tensor | None  # b_U, V
    norm: Literal["layer", "rms"]
    gain: Tensor  # γ, d (Gemma's 1 + weight already added)
    norm_bias: Tensor | None  # β, d
    eps: float  # added to the variance

    def check(self) -> None:
        """Refuse shapes that do not fit together, and values that are not finite.

        Raises:
            UserError: a tensor has the wrong shape, holds NaN or infinity, or `eps` or `norm` cannot be used.
        """
        V, d = require_matrix("the unembedding", self.unembedding)
        for name, value, size in (
            ("the unembedding's bias", self.logit_bias, V),
            ("the final norm's gain", self.gain, d),
            ("the final norm's bias", self.norm_bias, d),
        ):
            if value is not None:
                require_shape(name, value, (size,))
                require_finite(name, value)
        require_finite("the unembedding", self.unembedding)
        if self.norm not in ("layer", "rms"):
            raise UserError(f"The final norm {self.norm!r} is not known; it must be 'layer' or 'rms'.")
        if not (0 <= self.eps < float("inf")):
            raise UserError(f"The final norm's eps is {self.eps}; it must be zero or a positive number.")


@dataclass(frozen=True)
class FoldedHead:
    """The head as SPEC 2.1 uses it: ``logits = (U x) / σ + b`` with x centred for LayerNorm.

    U = W_U diag(γ) less one row, `centre` (softmax does not see it), is never whole: `blocks` yields it, the common
    tokens first.
    """

    head: Head
    centre: Tensor  # d, float64
    bias: Tensor | None  # b = W_U β + b_U less its mean: V, float64; None where it is zero
    largest_row: float  # at least the largest norm of a row of U
    order: Tensor  # V token ids, the common ones first
    top: int  # how many of them count as top tokens
    common: int  # how many as common ones, the top ones among them
    device: torch.device
    rows: int  # vocabulary entries in a block, at most

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.head.unembedding.shape[0]

    @property
    def width(self) -> int:
        """d, the width of the residual stream."""
        return self.head.unembedding.shape[1]

    def gather(self, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Rows of U for K token ids: K x d."""
        rows = self.head.unembedding[tokens.to(self.head.unembedding.device)]
        # In float64 up to the last step: the centre can be far larger than what is left of a row. (MPS has none.)
        place = "cpu" if self.device.type == "mps" else self.device
        folded = rows.to(place, torch.float64) * self.head.gain.to(place, torch.float64) - self.centre.to(place)
        return folded.to(dtype).to(self.device)

    def blocks(self, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Yield (K token ids, their rows of U, their tier: `TOP`, `COMMON`, `RARE`) in order; K is at most `rows`."""
        bounds = (0, self.top, self.common, self.vocabulary)
        for tier, (first, last) in enumerate(itertools.pairwise(bounds)):
            size = last - first
            rows = -(-size // max(1, -(-size // self.rows)))
            rows = min(self.rows, -(-rows // _ALIGNED) * _ALIGNED)
            for start in range(first, last, max(1, rows)):
                part = slice(start, min(start + rows, last))
                yield self.order[part], self.gather(self.order[part], dtype), tier

    def add_bias(self, tokens: Tensor, z: Tensor) -> Tensor:
        """Logits (up to a constant) from z = U x / σ of K token ids, ... x K; they may be z itself."""
        bias = self.bias_of(tokens, z.dtype)
        return z if bias is None else z + bias

    def bias_of(self, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """The bias of K tokens; None where it is zero."""
        return None if self.bias is None else self.bias[tokens].to(dtype)

    def on(self, device: torch.device) -> "FoldedHead":
        """The same head, computing on another device."""
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, device=device, order=self.order.to(device), bias=bias)

    def ordered_by(self, probability: Tensor, top_mass: float, common_mass: float) -> "FoldedHead":
        """The same head with its tokens ordered by V typical probabilities, and U centred by them.

        The top tokens are the fewest that hold `top_mass` of the probability, the common ones (the top ones among
        them) the fewest that hold `common_mass`.
        """
        probability = probability.double().cpu()
        order = probability.argsort(descending=True, stable=True)
        mass = probability[order].cumsum(0) / probability.sum()
        top, common = (min(int((mass < part).sum()) + 1, self.vocabulary) for part in (top_mass, common_mass))
        shift = torch.zeros(self.width, dtype=torch.float64)
        for tokens, U, _ in self.blocks():
            shift += (probability[tokens.cpu()].float().to(self.device) @ U).double().cpu() / float(probability.sum())
        return replace(
            self,
            centre=self.centre + shift.to(self.centre.device),
            largest_row=self.largest_row + float(shift.norm()),
            order=order.to(self.device),
            top=top,
            common=max(top, common),
        )


def fold(head: Head, device: torch.device, rows: int) -> FoldedHead:
    """Fold a head's gain and bias into its unembedding, with at most `rows` x d values of it at a time."""
    W_U = head.unembedding
    V, d = W_U.shape
    total = torch.zeros(d, dtype=torch.float64)
    bias = torch.zeros(V, dtype=torch.float64) if head.logit_bias is None else head.logit_bias.cpu().double()
    gain, beta = head.gain.cpu().double(), None if head.norm_bias is None else head.norm_bias.cpu().double()
    largest = 0.0
    for start in range(0, V, rows):
        block = W_U[start : start + rows].cpu().double()
        total += block.sum(0)
        largest = max(largest, float((block * gain).square().sum(1).max()) ** 0.5)
        if beta is not None:
            bias[start : start + rows] += block @ beta
    centre = total * gain / V
    bias = bias - bias.mean()
    place = torch.device("cpu") if device.type == "mps" else device
    return FoldedHead(
        head,
        centre.to(place),
        (bias.float() if device.type == "mps" else bias).to(device) if bool(bias.any()) else None,
        largest + float(centre.norm()),
        torch.arange(V, device=device),
        0,
        V,
        device,
        rows,
    )


def require_matrix(name: str, value: Tensor) -> tuple[int, int]:
    """Shape of a matrix that has rows and columns; UserError otherwise."""
    if value.ndim != 2 or 0 in value.shape:
        shape = tuple(value.shape)
        raise UserError(f"{name.capitalize()} must be a matrix with rows and columns; its shape is {shape}.")
    return value.shape[0], value.shape[1]


def require_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape with a UserError."""
    if tuple(value.shape) != shape:
        raise UserError(f"{name.capitalize()} must have the shape {shape}; it has {tuple(value.shape)}.")


def all_finite(value: Tensor) -> bool:
    """Whether no value is NaN or infinite; no copy of the tensor is made, however large it is."""
    rows = value.detach().reshape(-1) if value.ndim == 0 or value.is_contiguous() else value.detach()
    # A sum is finite only if every term is: one cheap look before the exact one
    parts = rows.split(max(1, _VALUES // max(1, rows[0].numel()))) if len(rows) else ()
    return all(bool(torch.isfinite(part.float().sum())) or bool(torch.isfinite(part).all()) for part in parts)


def require_finite(name: str, value: Tensor) -> None:
    """Refuse NaN and infinity with a UserError that counts them and names the first."""
    if all_finite(value):
        return
    wrong = ~torch.isfinite(value)
    if bool(wrong.any()):
        first = tuple(int(index) for index in wrong.nonzero()[0])
        raise UserError(
            f"{name.capitalize()} holds {int(wrong.sum())} values that are not finite, the first at {first}; "
            "the model or its dtype overflows, so try --dtype float32 or check the weights."
        )
