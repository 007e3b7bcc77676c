"""Attention heads edited by plain hooks on whole forward passes: what edited heads are compared with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rare_tokens.ingest.attention.heads import AttentionLayer
from rare_tokens.ingest.model.structure import Structure, hooked


@dataclass(frozen=True)
class Hooked:
    """Activations of the analysed neurons, windows × T × N, and the loss of each target, windows × T, nats."""

    activations: Tensor
    loss: Tensor


def hooked_pass(
    model: PreTrainedModel,
    structure: Structure,
    tokens: np.ndarray,
    layer: AttentionLayer | None = None,
    heads: list[int] | None = None,
    instead: Tensor | float = 0.0,
) -> Hooked:
    """One forward pass over windows of tokens; with `layer`, the heads' slices of its projection's input replaced.

    `instead` has the shape of that input, or is a number; `heads` None: all of them.
    """
    inputs, targets = torch.from_numpy(tokens[:, :-1]), torch.from_numpy(tokens[:, 1:])
    seen: list[Tensor] = []

    def replace(_module: Any, args: Any) -> Any:
        if layer is None:
            return None
        edited = args[0].clone()
        width = edited.shape[-1] // layer.heads
        for head in range(layer.heads) if heads is None else heads:
            part = slice(head * width, (head + 1) * width)
            edited[..., part] = instead if isinstance(instead, float) else instead[..., part]
        return (edited, *args[1:])

    def keep(_module: Any, args: Any) -> None:
        seen.append(args[0].detach().reshape(*inputs.shape, -1).clone())

    projection = structure.out_projection if layer is None else layer.out_projection
    with torch.inference_mode(), hooked((projection, "before", replace), (structure.out_projection, "before", keep)):
        logits = model(input_ids=inputs, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return Hooked(seen[0], loss)


def heads_outputs(model: PreTrainedModel, layer: AttentionLayer, tokens: np.ndarray) -> Tensor:
    """The input of an attention's output projection in a plain pass: windows × T × (H · d_head)."""
    seen: list[Tensor] = []
    with (
        torch.inference_mode(),
        hooked((layer.out_projection, "before", lambda _m, args: seen.append(args[0].clone()))),
    ):
        model(input_ids=torch.from_numpy(tokens[:, :-1]), use_cache=False)
    return seen[0]
