"""The self-check of edited heads: the same edits made by plain hooks in whole forward passes."""

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rare_tokens.ingest.attention.cells import Cells
from rare_tokens.ingest.attention.edits import PATCHES, Edit, HeadEdits
from rare_tokens.ingest.attention.heads import AttentionLayer
from rare_tokens.ingest.model.structure import hooked


def structural_error(edits: HeadEdits, tokens: NDArray[np.int64], cells: Cells) -> float:
    """Largest error, in one window, of the edits of whole layers and of the head in each that does most.

    In units of the structural tolerance (docs/definitions.md, "Self-check"): 32 roundings of the largest value nearby,
    and 2 % of the effect.
    """
    window = int(cells.units[0][0])
    own_tokens = tokens[window : window + 1]
    patched = edits.heads_of(tokens[cells.partner[window : window + 1]]) if len(tokens) > 1 else None
    activations, _ = edits.record(own_tokens, loss=True)
    instead = {layer.index: edits.replacement(layer).clone() for layer in edits.layers}
    found: dict[int, tuple[Tensor | None, Tensor]] = {}
    for edited in edits.edited(loss=True, patched=patched):
        assert edited.delta_loss is not None
        for place, edit in enumerate(edited.edits):
            change = None if edited.change is None else edited.change[place]
            found[edit.edit] = (change, edited.delta_loss[place])
    worst = 0.0
    for layer in edits.layers:
        for edit in _telling(edits, layer, found):
            values = patched[layer.index] if edit.kind in PATCHES and patched is not None else instead[layer.index]
            hooked_activations, loss, plain, scale = _hooked(edits, layer, edit, values, own_tokens)
            change, delta = found[edit.edit]
            size = max(1.0, float(activations.abs().max()))
            if change is not None:
                worst = max(worst, _error(edits, change, (hooked_activations - activations).float(), size))
            worst = max(worst, _error(edits, delta, loss - plain, scale))
    return worst


def _telling(edits: HeadEdits, layer: AttentionLayer, found: dict[int, Any]) -> list[Edit]:
    """For each kind of edit of heads, the one that changes the loss most."""
    own = [edit for edit in edits.edits if edit.layer == layer.index and edit.edit in found and edit.draw is None]
    kinds = dict.fromkeys(edit.kind for edit in own)
    return [
        max((edit for edit in own if edit.kind == kind), key=lambda edit: float(found[edit.edit][1].abs().max()))
        for kind in kinds
    ]


def _error(edits: HeadEdits, ours: Tensor, truth: Tensor, scale: float) -> float:
    eps = torch.finfo(edits.rerun.model.dtype).eps
    return float(((ours - truth).abs() / (32 * eps * scale + 0.02 * truth.abs())).max())


def _hooked(
    edits: HeadEdits, layer: AttentionLayer, edit: Edit, values: Tensor, tokens: NDArray[np.int64]
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Activations and loss with the heads' slices replaced by a hook, the loss without, and the scale of rounding."""
    ids = torch.from_numpy(tokens).to(values.device)
    seen: list[Tensor] = []

    def replace(_module: nn.Module, args: Any) -> Any:
        inputs = args[0].clone()
        z = inputs.view(*inputs.shape[:-1], layer.heads, -1)
        chosen = slice(None) if edit.head is None else slice(edit.head, edit.head + 1)
        z[..., chosen, :] = values.view_as(z)[..., chosen, :]
        return (inputs, *args[1:])

    def keep(_module: nn.Module, args: Any) -> None:
        seen.append(args[0].detach().reshape(1, ids.shape[1] - 1, -1))

    model = edits.rerun.model
    logits = partial(model, input_ids=ids[:, :-1], use_cache=False)
    with torch.inference_mode():
        with hooked((edits.rerun.neurons, "before", keep), (layer.out_projection, "before", replace)):
            changed = logits().logits
        clean = logits().logits
    before = edits.losses(clean, ids)
    scale = max(1.0, float(clean.abs().max()), float(before.max()))
    return seen[0], edits.losses(changed, ids), before, scale
