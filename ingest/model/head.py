"""The final norm and the unembedding, between the residual stream and the logits; and what tensors must be."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.norms import NormForm

ROWS = 8_192  # of the unembedding that are copied at a time, into another precision or beside its gain
_VALUES = 1 << 22  # of a tensor looked at at a time


@dataclass(frozen=True)
class Head:
    """The final norm and the unembedding of a model: ``logits = W_U norm(x) + b_U``."""

    unembedding: Tensor  # W_U, V x d
    logit_bias: Tensor | None  # b_U, V
    norm: NormForm

    def check(self) -> None:
        """Refuse shapes that do not fit together, and values that are not finite.

        Raises:
            UserError: a tensor has the wrong shape, holds NaN or infinity, or the norm's `eps` cannot be used.
        """
        V, d = require_matrix("the unembedding", self.unembedding)
        for name, value, size in (
            ("the unembedding's bias", self.logit_bias, V),
            ("the final norm's gain", self.norm.gain, d),
            ("the final norm's bias", self.norm.bias, d),
        ):
            if value is not None:
                require_shape(name, value, (size,))
                require_finite(name, value)
        require_finite("the unembedding", self.unembedding)
        if not (0 <= self.norm.eps < float("inf")):
            raise UserError(f"The final norm's eps is {self.norm.eps}; it must be zero or a positive number.")


@dataclass(frozen=True)
class PostNorm:
    """A norm between the MLP's output projection and the residual stream, as in Gemma 3 and OLMo 2 and 3."""

    norm: NormForm
    bias: Tensor | None  # of the output projection, d

    def added(self, activations: Tensor, w_out: Tensor) -> Tensor:
        """What the MLP adds to the residual stream, … x d, from activations (… x N) and output rows (N x d)."""
        output = activations @ w_out
        return self.norm(output if self.bias is None else output + self.bias.to(output))


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
