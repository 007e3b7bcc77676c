"""What a norm does: a LayerNorm or an RMSNorm, its gain, bias and variance floor, read off its input and output.

Every norm in the project is a `NormForm`, except that of ``ingest/ablation/reference.py``, the definition that the
others are checked against.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_USUAL = (1e-5, 1e-6, 1e-8, 1e-12, 0.0)


@dataclass(frozen=True)
class NormForm:
    """``γ · x / σ + β`` with x centred over its width d for a LayerNorm, and σ² = ‖x‖²/d + ε.

    Attributes:
        centred: whether the mean over the width is subtracted (LayerNorm) or not (RMSNorm).
        gain: γ, d; Gemma's 1 + weight already added.
        bias: β, d, or None.
        eps: ε, added to the mean square.
    """

    centred: bool
    gain: Tensor
    bias: Tensor | None
    eps: float

    def centre(self, x: Tensor) -> Tensor:
        """What σ divides: rows of x (… x d) less their mean for a LayerNorm, x itself for an RMSNorm."""
        return x - x.mean(-1, keepdim=True) if self.centred else x

    def scale(self, x: Tensor) -> Tensor:
        """σ of each row of x, … x 1, in x's dtype."""
        return self.scale_of_centred(self.centre(x))

    def scale_of_centred(self, x: Tensor) -> Tensor:
        """σ of rows that `centre` gave, … x 1."""
        return (x.square().mean(-1, keepdim=True) + self.eps).sqrt()

    def fast_scale(self, x: Tensor) -> Tensor:
        """`scale` up to rounding in one pass over memory, for batches of many edits."""
        centred = self.centre(x)
        size = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
        return (size.square() / x.shape[-1] + self.eps).sqrt()

    def __call__(self, x: Tensor) -> Tensor:
        """The norm of x (… x d), in x's dtype and on its device."""
        centred = self.centre(x)
        normed = centred / self.scale_of_centred(centred) * self.gain.to(x)
        return normed if self.bias is None else normed + self.bias.to(x)


def norm_form(norm: nn.Module, x: Tensor, output: Tensor) -> NormForm:
    """The form, in float64, that comes nearest to what a norm made of x; whether it is near enough the caller decides.

    The nearest, not the first that is near enough: in bfloat16 a LayerNorm and an RMSNorm may both be.
    """
    parameters = dict(norm.named_parameters(recurse=False))
    weight, shift = parameters.get("weight"), parameters.get("bias")
    ones = torch.ones(x.shape[-1], dtype=torch.float64, device=x.device)
    gain = ones if weight is None else weight.detach().double()
    bias = None if shift is None else shift.detach().double()
    kinds: list[tuple[bool, Tensor]] = [(True, gain), (False, gain), (False, 1 + gain), (True, 1 + gain)]
    forms = [NormForm(centred, factor, bias, eps) for centred, factor in kinds for eps in _epsilons(norm)]
    return min(forms, key=lambda form: float((form(x.double()) - output.double()).square().sum()))


def may_be_norm(module: nn.Module) -> bool:
    """A leaf with nothing but one-dimensional parameters; norms without parameters count when named so."""
    if next(module.children(), None) is not None:
        return False
    parameters = list(module.parameters(recurse=False))
    return all(item.dim() == 1 for item in parameters) and (bool(parameters) or "norm" in type(module).__name__.lower())


def _epsilons(norm: nn.Module) -> tuple[float, ...]:
    """ε as the module has it; the usual ones where it stands in its code (OLMo), to take the nearest."""
    values = [value for name, value in vars(norm).items() if "eps" in name and isinstance(value, float)]
    return (values[0],) if values else _USUAL
