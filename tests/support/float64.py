"""A model's own copy in float64, throughout: the independent truth that the parity tests compare with."""

from types import MethodType
from typing import Any

from torch import Tensor, nn

from tests.support.tiny import tiny_model


def float64_model(config: Any) -> nn.Module:
    """The tiny model of a configuration in float64; its norms too, which the library computes in float32 for any input.

    (Only the softmax of eager attention is left in float32: it is the same for all edits but for 1e-7.)
    """
    model = tiny_model(config).double()
    for module in model.modules():
        name = type(module).__name__
        if "RMSNorm" in name:
            module.forward = MethodType(_gemma_norm if name.startswith("Gemma") else _rms_norm, module)
        elif name == "CohereLayerNorm":
            module.forward = MethodType(_layer_norm, module)
    return model


def _epsilon(module: Any) -> float:
    return module.eps if hasattr(module, "eps") else module.variance_epsilon


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    return module.weight * x / (x.square().mean(-1, keepdim=True) + _epsilon(module)).sqrt()


def _gemma_norm(module: Any, x: Tensor) -> Tensor:
    return (1 + module.weight) * x / (x.square().mean(-1, keepdim=True) + _epsilon(module)).sqrt()


def _layer_norm(module: Any, x: Tensor) -> Tensor:
    x = x - x.mean(-1, keepdim=True)
    return module.weight * x / (x.square().mean(-1, keepdim=True) + _epsilon(module)).sqrt()
