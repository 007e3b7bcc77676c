"""What a norm does, read off its input and output: a LayerNorm or an RMSNorm, with its gain and bias."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class NormForm:
    """``gain · (x − mean) / σ + bias``, σ² the mean square of what is divided by it, plus `eps`; float64.

    Attributes:
        centred: whether the mean over the width is subtracted (LayerNorm), or not (RMSNorm).
        gain: d; Gemma's 1 + weight already added.
        bias: d, or None.
        eps: added to the mean square.
    """

    centred: bool
    gain: Tensor
    bias: Tensor | None
    eps: float

    def scale(self, x: Tensor) -> Tensor:
        """σ of each row of x, with a last dimension of 1, in x's dtype."""
        centred = x - x.mean(-1, keepdim=True) if self.centred else x
        # Several times as fast as the variance, which torch sums one number after the other
        size = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
        return (size.square() / x.shape[-1] + self.eps).sqrt()

    def __call__(self, x: Tensor) -> Tensor:
        """The norm of x, float64."""
        x = x.double()
        centred = x - x.mean(-1, keepdim=True) if self.centred else x
        return centred / self.scale(x) * self.gain + (0.0 if self.bias is None else self.bias)


def norm_form(norm: nn.Module, x: Tensor, output: Tensor) -> NormForm:
    """The form that comes nearest to what a norm made of x; whether that is near enough is the caller's to say.

    The nearest, not the first that is near enough: in bfloat16 a LayerNorm and an RMSNorm may both be.
    """
    parameters = dict(norm.named_parameters(recurse=False))
    weight, shift = parameters.get("weight"), parameters.get("bias")
    ones = torch.ones(x.shape[-1], dtype=torch.float64, device=x.device)
    gain = ones if weight is None else weight.detach().double()
    bias = None if shift is None else shift.detach().double()
    kinds: list[tuple[bool, Tensor]] = [(True, gain), (False, gain), (False, 1 + gain)]
    forms = [NormForm(centred, factor, bias, _epsilon(norm)) for centred, factor in kinds]
    return min(forms, key=lambda form: float((form(x) - output.double()).square().sum()))


def may_be_norm(module: nn.Module) -> bool:
    """A leaf with nothing but one-dimensional parameters; norms without parameters count when named so."""
    if next(module.children(), None) is not None:
        return False
    parameters = list(module.parameters(recurse=False))
    return all(item.dim() == 1 for item in parameters) and (bool(parameters) or "norm" in type(module).__name__.lower())


def _epsilon(norm: nn.Module) -> float:
    values: list[Any] = [value for name, value in vars(norm).items() if "eps" in name and isinstance(value, float)]
    return values[0] if values else 0.0
