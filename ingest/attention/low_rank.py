"""What a head's edit does to a linear map that reads a norm, without the map's full product.

A head's edit u_t = z'_t − z_t moves the attention's output, and with it the residual stream x_t, by u_t W_h: a change
of rank d_head. Where a norm reads that residual stream and a linear map A reads the norm (the input of an MLP, or the
queries, keys and values of the next attention), with 1/σ for the norm's scale, g its gain and c = A b_norm + b_A

    A norm(x + u W_h) = (σ/σ') (A norm(x) − c) + (u/σ') W_h diag(g) Aᵀ + c        (W_h centred over d for LayerNorm)

so each output takes d_head products instead of d, once W_h diag(g) Aᵀ is known. A probe finds these norms and maps and
confirms them; where it does not, the map runs as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rare_tokens.ingest.attention.heads import AttentionLayer
from rare_tokens.ingest.model.mlp import linear_weight
from rare_tokens.ingest.model.norms import NormForm, may_be_norm, norm_form
from rare_tokens.ingest.model.structure import hooked, same_logits

_DTYPES = (torch.float32, torch.float64)  # with less precision, rounding in the model's own products counts
Hook = tuple[nn.Module, str, Callable[..., Any]]


@dataclass
class Reader:
    """A norm that reads the residual stream right after an attention, and the linear maps that read the norm.

    Attributes:
        norm: the module.
        form: what it computes.
        maps: for each linear map W_h diag(g) Aᵀ with c as a last row: H × (d_head + 1) × out.
        clean_outputs: the maps' outputs for the recorded windows.
        clean_scale: σ of these, one per position.
    """

    norm: nn.Module
    form: NormForm
    maps: dict[nn.Module, Tensor]
    clean_outputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    clean_scale: Tensor = field(default_factory=lambda: torch.empty(0))
    _scale: Tensor = field(default_factory=lambda: torch.empty(0))

    def recording(self) -> list[Hook]:
        """Hooks that keep the maps' unedited outputs and the norm's scale."""
        self.clean_outputs.clear()

        def keep_scale(_module: nn.Module, args: Any) -> None:
            self.clean_scale = self.form.fast_scale(args[0])

        def keep(module: nn.Module, _args: Any, output: Tensor) -> None:
            self.clean_outputs[module] = output.detach().clone()

        return [(self.norm, "before", keep_scale), *((linear, "after", keep) for linear in self.maps)]

    def watching(self) -> Hook:
        """A hook that keeps the scale of edited inputs."""

        def keep_scale(_module: nn.Module, args: Any) -> None:
            self._scale = self.form.fast_scale(args[0])

        return (self.norm, "before", keep_scale)

    def instead(self, linear: nn.Module, shift: Tensor, first: int) -> Callable[..., Tensor]:
        """What to call in place of a map; see `output`."""
        return lambda *_args, **_given: self.output(linear, shift, first)

    def output(self, linear: nn.Module, shift: Tensor, first: int) -> Tensor:
        """A map's output in each of the E · n windows of a batch in which E heads are edited, in its own shape.

        Args:
            linear: one of the maps.
            shift: u of the heads, E × n × T × d_head.
            first: the first of them; the others follow.
        """
        clean, product = self.clean_outputs[linear], self.maps[linear][first : first + len(shift)]
        scale = self._scale.reshape(*shift.shape[:3], 1)
        ratio = self.clean_scale.reshape(*shift.shape[1:3], 1) / scale
        found = torch.bmm(torch.cat([shift / scale, 1 - ratio], -1).flatten(1, 2), product)
        found.addcmul_(clean.reshape(1, -1, clean.shape[-1]), ratio.flatten(1, 2))
        return found.reshape(-1, *clean.shape[1:])


def find_readers(model: PreTrainedModel, layer: AttentionLayer, tokens: Tensor) -> list[Reader]:
    """The norms that read the residual stream right after a layer's attention, confirmed on tokens (1 × length).

    Each row of a batch shifts one head's output. The residual stream must move by as much, and a map's output must be
    what its reader predicts, up to the rounding of a forward pass.
    """
    if model.dtype not in _DTYPES:
        return []
    weight = layer.output_weight
    generator = torch.Generator().manual_seed(0)
    shift = torch.randn(layer.heads, 1, tokens.shape[1], weight.shape[1], generator=generator).to(weight)
    change = torch.einsum("hntk,hkd->hntd", shift, weight).flatten(0, 1)
    unedited = _Seen(model, layer, tokens, torch.zeros_like(change[:1]))
    edited = _Seen(model, layer, tokens.expand(layer.heads, -1), change)
    found = []
    for norm, maps in unedited.readers.items():
        before, after = unedited.inputs[norm], edited.inputs[norm]
        if before.numel() != change[0].numel():
            continue  # not of the residual stream
        if not same_logits((before.reshape(change[:1].shape) + change).reshape(after.shape), after):
            continue
        form = norm_form(norm, before, unedited.outputs[norm])
        if not same_logits(form(before.double()), unedited.outputs[norm]):
            continue
        reader = Reader(norm, form, {linear: _product(weight, linear, form) for linear in maps})
        reader.clean_outputs = {linear: unedited.outputs[linear] for linear in maps}
        reader.clean_scale, reader._scale = form.fast_scale(before), form.fast_scale(after)
        for linear, theirs in ((linear, edited.outputs[linear]) for linear in maps):
            if not same_logits(reader.output(linear, shift, 0).reshape(theirs.shape), theirs):
                del reader.maps[linear]
        if reader.maps:
            found.append(reader)
    return found


class _Seen:
    """Inputs and outputs of norms and linear maps in a pass in which an attention's output is changed."""

    def __init__(self, model: PreTrainedModel, layer: AttentionLayer, tokens: Tensor, change: Tensor) -> None:
        self.inputs: dict[nn.Module, Tensor] = {}
        self.outputs: dict[nn.Module, Tensor] = {}
        self.readers: dict[nn.Module, list[nn.Module]] = {}  # by norm, the maps that read its output
        norms: dict[tuple[int, int], nn.Module] = {}  # by address and length of its output

        def edit(_module: nn.Module, _args: Any, output: Any) -> Any:
            given = output if isinstance(output, Tensor) else output[0]
            changed = given + change.reshape(given.shape)
            return changed if isinstance(output, Tensor) else (changed, *output[1:])

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if not (args and isinstance(args[0], Tensor) and isinstance(output, Tensor)):
                return
            repeated = module in self.inputs
            self.inputs[module], self.outputs[module] = args[0].clone(), output.clone()
            if may_be_norm(module):
                kept.append(output)
                norms[output.data_ptr(), output.numel()] = module
            elif (norm := norms.get((args[0].data_ptr(), args[0].numel()))) is not None and not repeated:
                self.readers.setdefault(norm, []).append(module)

        kept: list[Tensor] = []  # so that no other tensor takes their addresses
        # The unembedding is left out: its product would be as large as itself, and is used once
        linears = {module for module in model.modules() if type(module) in (nn.Linear, Conv1D)}
        linears.discard(model.get_output_embeddings())
        watched = [module for module in model.modules() if may_be_norm(module) or module in linears]
        hooks: list[Hook] = [(layer.module, "after", edit), *((module, "after", keep) for module in watched)]
        with torch.inference_mode(), hooked(*hooks):
            model(input_ids=tokens, use_cache=False)


def _product(weight: Tensor, linear: nn.Module, form: NormForm) -> Tensor:
    """For a map A, W_h diag(g) Aᵀ with c = A b_norm + b_A as a last row: H × (d_head + 1) × out."""
    columns = linear_weight(linear).double().T
    product = (form.centre(weight.double()) * form.gain) @ columns
    bias = getattr(linear, "bias", None)
    constant = torch.zeros_like(columns[0]) if bias is None else bias.detach().double()
    if form.bias is not None:
        constant = constant + form.bias @ columns
    return torch.cat([product, constant.expand(len(product), 1, -1)], 1).to(weight)
