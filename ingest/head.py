"""What lies between the residual stream and the logits: the final norm and the unembedding, folded block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from common.errors import UserError


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

    U = W_U diag(γ) less its mean over the vocabulary (softmax does not see it) is never whole: `blocks` yields it.
    """

    head: Head
    mean_row: Tensor  # mean over the vocabulary of the rows of W_U diag(γ): d, float64
    bias: Tensor | None  # b = W_U β + b_U less its mean: V, float32; None where it is zero
    largest_row: float  # largest norm of a row of U
    device: torch.device
    rows: int  # vocabulary entries in a block

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.head.unembedding.shape[0]

    @property
    def width(self) -> int:
        """d, the width of the residual stream."""
        return self.head.unembedding.shape[1]

    def gather(self, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Rows of U for token ids of any shape: ``tokens.shape x d``."""
        rows = self.head.unembedding[tokens.to(self.head.unembedding.device)]
        return self._fold(rows, dtype)

    def blocks(self, dtype: torch.dtype = torch.float32) -> Iterator[tuple[slice, Tensor]]:
        """Yield (which token ids, their rows of U), `rows` token ids at a time."""
        for start in range(0, self.vocabulary, self.rows):
            part = slice(start, min(start + self.rows, self.vocabulary))
            yield part, self._fold(self.head.unembedding[part], dtype)

    def add_bias(self, part: slice, z: Tensor) -> Tensor:
        """Logits (up to a constant) from z = U x / σ of the token ids of `part`."""
        return z if self.bias is None else z + self.bias[part]

    def _fold(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        # In float64 up to the last step: the mean can be far larger than what is left of a row.
        if self.device.type == "mps":
            rows = rows.cpu()
        gain = self.head.gain.to(rows.device, torch.float64)
        return (rows.to(torch.float64) * gain - self.mean_row.to(rows.device)).to(dtype).to(self.device)


def fold(head: Head, device: torch.device, rows: int) -> FoldedHead:
    """Fold a head's gain and bias into its unembedding, with at most `rows` x d values of it at a time."""
    W_U = head.unembedding
    V, d = W_U.shape
    total = torch.zeros(d, dtype=torch.float64)
    bias = torch.zeros(V, dtype=torch.float64) if head.logit_bias is None else head.logit_bias.double().cpu()
    gain, beta = head.gain.double().cpu(), None if head.norm_bias is None else head.norm_bias.double().cpu()
    for start in range(0, V, rows):
        block = W_U[start : start + rows].double().cpu()
        total += block.sum(0)
        if beta is not None:
            bias[start : start + rows] += block @ beta
    mean_row = total * gain / V
    largest = 0.0
    for start in range(0, V, rows):
        block = W_U[start : start + rows].double().cpu() * gain - mean_row
        largest = max(largest, float(block.square().sum(1).max().sqrt()))
    centred = (bias - bias.mean()).float().to(device)
    return FoldedHead(head, mean_row, centred if bool(centred.any()) else None, largest, device, rows)


def require_matrix(name: str, value: Tensor) -> tuple[int, int]:
    """Shape of a matrix that has rows and columns; UserError otherwise."""
    if value.ndim != 2 or 0 in value.shape:
        raise UserError(
            f"{name.capitalize()} must be a matrix with rows and columns; its shape is {tuple(value.shape)}."
        )
    return value.shape[0], value.shape[1]


def require_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse a tensor of another shape with a UserError."""
    if tuple(value.shape) != shape:
        raise UserError(f"{name.capitalize()} must have the shape {shape}; it has {tuple(value.shape)}.")


def require_finite(name: str, value: Tensor) -> None:
    """Refuse NaN and infinity with a UserError that counts them and names the first."""
    # The sum of a finite tensor is finite unless it overflows: one cheap look before the exact one.
    if bool(torch.isfinite(value.sum(dtype=torch.float64 if value.device.type != "mps" else None))):
        return
    wrong = ~torch.isfinite(value)
    if bool(wrong.any()):
        first = tuple(int(index) for index in wrong.nonzero()[0])
        raise UserError(
            f"{name.capitalize()} holds {int(wrong.sum())} values that are not finite, the first at {first}; "
            "the model or its dtype overflows, so try --dtype float32 or check the weights."
        )
