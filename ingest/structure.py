"""Where the neurons and the head of a decoder are: found by structure, not by a list of model names.

One short probe (a forward pass over eight tokens) shows what feeds what: the final norm is the module whose output *is*
the unembedding's input; a norm's kind is the formula that reproduces its output; the neurons are the input of the
MLP's output projection (SPEC 0). What cannot be confirmed is refused, with what is missing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from ingest.head import Head

PROBE_TOKENS = 8


@dataclass(frozen=True)
class Structure:
    """The pieces of a decoder that an ablation of its last MLP needs.

    Attributes:
        layer: index of the block, counted from 0.
        out_projection: the MLP's output projection; its input is n_t (N).
        final_norm: the norm before the unembedding; its input is the residual stream x_t (d).
        w_out: output weights, N × d, row i = w_i.
        w_in: input weights, N × d; the gate's where the MLP is gated.
        w_up: N × d where the MLP is gated, else None.
        head: final norm and unembedding as tensors.
    """

    layer: int
    out_projection: nn.Module
    final_norm: nn.Module
    w_out: Tensor
    w_in: Tensor
    w_up: Tensor | None
    head: Head

    @property
    def neurons(self) -> int:
        """N, the width of the MLP."""
        return self.w_out.shape[0]

    @property
    def vocabulary_size(self) -> int:
        """V, the rows of the unembedding (may exceed the tokenizer's size by padding)."""
        return self.head.unembedding.shape[0]


def find_structure(model: PreTrainedModel) -> Structure:
    """Find and confirm the last MLP, the final norm and the unembedding of a causal language model.

    Raises:
        UserError: a piece is missing or does not behave as SPEC 2 needs; the message names the architecture and it.
    """
    unembedding = model.get_output_embeddings()
    if not isinstance(unembedding, nn.Linear):
        raise _refused(model, "it has no linear unembedding")
    width = unembedding.in_features
    blocks = _decoder_blocks(model)
    mlp = _last_mlp(model, blocks[-1], width)
    probe = _probe(model, {unembedding, mlp.out_projection, *mlp.in_projections, *mlp.activations}, unembedding)
    final_norm = _final_norm(model, probe)
    head = _head(model, unembedding, final_norm, probe)
    w_out = linear_weight(mlp.out_projection).T
    w_in, w_up = _input_weights(model, mlp, probe, w_out.shape[0])
    found = Structure(len(blocks) - 1, mlp.out_projection, final_norm, w_out, w_in, w_up, head)
    _confirm_logits(model, found, probe)
    _confirm_addition(model, found, probe)
    return found


def mlp_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """(N, d, V) of a decoder whose weights need not be there (the meta device will do).

    Raises:
        UserError: as `find_structure`, as far as shapes alone can show it.
    """
    unembedding = model.get_output_embeddings()
    if not isinstance(unembedding, nn.Linear):
        raise _refused(model, "it has no linear unembedding")
    mlp = _last_mlp(model, _decoder_blocks(model)[-1], unembedding.in_features)
    neurons, _ = _shape(mlp.out_projection) or (0, 0)
    return neurons, unembedding.in_features, unembedding.out_features


@contextmanager
def hooked(*hooks: tuple[nn.Module, str, Callable[..., Any]]) -> Iterator[None]:
    """Run a block with forward hooks: (module, `before` or `after`, function); removed at the end, come what may."""
    with ExitStack() as stack:
        for module, moment, function in hooks:
            register = module.register_forward_pre_hook if moment == "before" else module.register_forward_hook
            stack.callback(register(function).remove)
        yield


def linear_weight(module: nn.Module) -> Tensor:
    """Weight of a linear map as out × in, for torch's Linear and for the transposed Conv1D of GPT-2."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if isinstance(module, Conv1D) else weight.detach()


def _refused(model: nn.Module, missing: str) -> UserError:
    return UserError(
        f"{type(model).__name__} is not supported: {missing}. "
        "Use a decoder whose last MLP is added to the residual stream right before one final norm and the unembedding."
    )


def _decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    depth = model.config.get_text_config().num_hidden_layers
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if not stacks:
        raise _refused(model, f"no stack of {depth} decoder blocks was found in it")
    return stacks[0]


def _shape(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear map; None for anything else."""
    if isinstance(module, (nn.Linear, Conv1D)):
        out_features, in_features = linear_weight(module).shape
        return in_features, out_features
    return None


@dataclass(frozen=True)
class _Mlp:
    out_projection: nn.Module  # N → d
    in_projections: list[nn.Module]  # d → N, or d → 2N with gate and up in one
    activations: list[nn.Module]  # parameterless siblings: the activation function is among them


def _last_mlp(model: nn.Module, block: nn.Module, width: int) -> _Mlp:
    """The one linear map N → d outside attention that has siblings d → N (or d → 2N)."""
    found = []
    for parent in block.modules():
        if "attention" in type(parent).__name__.lower() or "attn" in type(parent).__name__.lower():
            continue
        linears = {child: shape for child in parent.children() if (shape := _shape(child)) is not None}
        plain = [child for child in parent.children() if next(child.parameters(), None) is None]
        for out, (neurons, to) in linears.items():
            wanted = {(width, neurons), (width, 2 * neurons)}
            ins = [child for child, shape in linears.items() if child is not out and shape in wanted]
            if to == width and ins:
                found.append(_Mlp(out, ins, plain))
    if len(found) != 1:
        what = "no MLP with an output projection" if not found else f"{len(found)} MLPs (a mixture of experts?)"
        raise _refused(model, f"{what} was found in its last block")
    return found[0]


@dataclass
class _Probe:
    tokens: Tensor
    inputs: dict[nn.Module, Tensor]
    outputs: dict[nn.Module, Tensor]
    head_input: Tensor
    logits: Tensor


def _probe(model: PreTrainedModel, pieces: set[nn.Module], unembedding: nn.Linear) -> _Probe:
    """One forward pass; keeps input and output of the pieces and of everything that may be a norm."""
    inputs: dict[nn.Module, Tensor] = {}
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            inputs[module], outputs[module] = args[0].detach(), output.detach()

    watched = pieces | {module for module in model.modules() if _may_be_norm(module)}
    vocabulary = min(model.config.get_text_config().vocab_size, linear_weight(unembedding).shape[0])
    tokens = (torch.arange(1, PROBE_TOKENS + 1, device=model.device) * 7919 % vocabulary).unsqueeze(0)
    with torch.inference_mode(), hooked(*((module, "after", keep) for module in watched)):
        logits = model(input_ids=tokens, use_cache=False).logits
    if unembedding not in inputs:
        raise _refused(model, "its unembedding is not called in a forward pass")
    if not bool(torch.isfinite(logits).all()):
        raise UserError(
            f"A short forward pass of {type(model).__name__} gives NaN or infinity in {str(logits.dtype)[6:]}. "
            "Try --dtype float32, or check the weights."
        )
    return _Probe(tokens, inputs, outputs, inputs[unembedding], logits)


def _may_be_norm(module: nn.Module) -> bool:
    """A leaf with nothing but one-dimensional parameters; norms without parameters count when named so."""
    if next(module.children(), None) is not None:
        return False
    parameters = list(module.parameters(recurse=False))
    return all(item.dim() == 1 for item in parameters) and (bool(parameters) or "norm" in type(module).__name__.lower())


def _final_norm(model: nn.Module, probe: _Probe) -> nn.Module:
    for module, output in probe.outputs.items():
        if _may_be_norm(module) and output.shape == probe.head_input.shape and torch.equal(output, probe.head_input):
            return module
    raise _refused(model, "its unembedding does not read the output of a final norm")


def _epsilon(norm: nn.Module) -> float:
    values = [value for name, value in vars(norm).items() if "eps" in name and isinstance(value, float)]
    return values[0] if values else 0.0


def _head(model: nn.Module, unembedding: nn.Linear, norm: nn.Module, probe: _Probe) -> Head:
    """Fold the probe's evidence into a Head: the norm's kind is the formula that reproduces what it did."""
    x = probe.inputs[norm].double()
    parameters = dict(norm.named_parameters(recurse=False))
    width = x.shape[-1]
    weight, shift = parameters.get("weight"), parameters.get("bias")
    ones = torch.ones(width, dtype=torch.float64, device=x.device)
    gain = ones if weight is None else weight.detach().double()
    bias = None if shift is None else shift.detach().double()
    kinds: list[tuple[Any, Tensor]] = [("layer", gain), ("rms", gain), ("rms", 1 + gain)]
    for kind, factor in kinds:
        head = Head(
            unembedding=unembedding.weight.detach(),
            logit_bias=None if unembedding.bias is None else unembedding.bias.detach(),
            norm=kind,
            gain=factor.to(unembedding.weight.dtype),
            norm_bias=None if bias is None else bias.to(unembedding.weight.dtype),
            eps=_epsilon(norm),
        )
        if _close(_normed(head, x), probe.outputs[norm]):
            return head
    raise _refused(model, f"its final norm ({type(norm).__name__}) is neither a LayerNorm nor an RMSNorm")


def _normed(head: Head, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True) if head.norm == "layer" else x
    scale = (centred.square().mean(-1, keepdim=True) + head.eps).sqrt()
    shift = 0.0 if head.norm_bias is None else head.norm_bias.double()
    return centred / scale * head.gain.double() + shift


def _close(ours: Tensor, theirs: Tensor) -> bool:
    """Equal up to the rounding of a dozen operations in the model's dtype, or in float32, in which norms compute."""
    precision = max(torch.finfo(theirs.dtype).eps, torch.finfo(torch.float32).eps)
    slack = 64 * precision * max(1.0, float(theirs.abs().max()))
    return float((ours.double() - theirs.double()).abs().max()) <= slack


def _confirm_logits(model: nn.Module, found: Structure, probe: _Probe) -> None:
    head = found.head
    logits = probe.head_input.double() @ head.unembedding.double().T
    if head.logit_bias is not None:
        logits = logits + head.logit_bias.double()
    if not _close(logits, probe.logits):
        raise _refused(model, "its logits are scaled or soft-capped after the unembedding")


def _confirm_addition(model: PreTrainedModel, found: Structure, probe: _Probe) -> None:
    """Raise one neuron's activation at the last token and see the residual stream move by exactly that times w_i."""
    neuron, step = found.neurons // 2, 1.0
    seen: list[Tensor] = []

    def raise_neuron(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        edited = args[0].clone()
        edited[..., -1, neuron] += step
        return (edited, *args[1:])

    def keep(_module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0].detach())

    with (
        torch.inference_mode(),
        hooked((found.out_projection, "before", raise_neuron), (found.final_norm, "before", keep)),
    ):
        model(input_ids=probe.tokens, use_cache=False)
    before = probe.inputs[found.final_norm].double()
    expected = before.clone()
    expected[..., -1, :] += step * found.w_out[neuron].double()
    if not _close(expected, seen[0]):
        raise _refused(model, "its last MLP does not reach the final norm by plain addition (a post-MLP norm?)")


def _input_weights(model: nn.Module, mlp: "_Mlp", probe: _Probe, neurons: int) -> tuple[Tensor, Tensor | None]:
    """(w_in, w_up), each N × d. The gate is the projection whose output the activation function reads."""
    weights = [part for module in mlp.in_projections for part in linear_weight(module).split(neurons)]
    outputs = [part for module in mlp.in_projections for part in probe.outputs[module].split(neurons, dim=-1)]
    if len(weights) == 1:
        return weights[0], None
    if len(weights) == 2:
        activated = [probe.inputs[module] for module in mlp.activations if module in probe.inputs]
        for gate, up in ((0, 1), (1, 0)):
            if any(torch.equal(seen, outputs[gate]) for seen in activated):
                return weights[gate], weights[up]
    raise _refused(model, "the gate of its last MLP could not be told from its other projections")
