"""Where the neurons and the head of a decoder are: found by structure, not by a list of model names.

One short probe (a forward pass over eight tokens) shows what feeds what: the final norm is the module whose output *is*
the unembedding's input; a norm's kind is the formula that reproduces its output; the neurons are the input of the
MLP's output projection (docs/definitions.md, "Words"). What lies between the MLP and the loss beside addition, norm and
unembedding is named: it decides whether the dense path is taken. What cannot be confirmed is refused, with what is
missing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from rare_tokens.common.errors import UserError
from rare_tokens.common.layers import layer_index
from rare_tokens.ingest.model.head import ROWS, Head, PostNorm
from rare_tokens.ingest.model.mlp import Mlp, decoder_blocks, linear_weight, mlp_modules, refused
from rare_tokens.ingest.model.norms import may_be_norm, norm_form
from rare_tokens.ingest.model.reading import reading

PROBE_TOKENS = 8
# Roundings that a comparison allows: of a dozen operations, each over many terms; of two or three elementwise ones.
MANY, FEW = 64, 4
_ACTIVATIONS = (
    functional.silu,
    functional.gelu,
    partial(functional.gelu, approximate="tanh"),
    functional.relu,
    functional.sigmoid,
    torch.tanh,
)
STEP = 8.0  # times the largest value of the residual stream


@dataclass(frozen=True)
class Structure:
    """The pieces of a decoder that an ablation of one of its MLPs needs.

    Attributes:
        layer: index of the block, counted from 0.
        depth: how many blocks there are.
        out_projection: the MLP's output projection; its input is n_t (N).
        final_norm: the norm before the unembedding; its input is the residual stream x_t (d).
        w_out: output weights, N × d, row i = w_i.
        w_in: input weights, N × d; the gate's where the MLP is gated.
        w_up: N × d where the MLP is gated, else None.
        head: final norm and unembedding as tensors; a factor on the logits is folded into its gain.
        post_norm: the norm between the output projection and the residual stream, where that is all there is.
        between: what else lies between the MLP and the loss, in words. Empty: the ablation by moments holds; else
            what lies there is run again (the dense path).
    """

    layer: int
    depth: int
    out_projection: nn.Module
    final_norm: nn.Module
    w_out: Tensor
    w_in: Tensor
    w_up: Tensor | None
    head: Head
    post_norm: PostNorm | None = None
    between: tuple[str, ...] = ()

    @property
    def neurons(self) -> int:
        """N, the width of the MLP."""
        return self.w_out.shape[0]

    @property
    def written_rows(self) -> Tensor:
        """w_i as they reach the residual stream, up to a factor per position: N × d, the gain of a norm included."""
        if self.post_norm is None:
            return self.w_out
        rows = self.post_norm.norm.centre(self.w_out.float())
        return rows * self.post_norm.norm.gain.to(rows)

    def moved(self, residual: Tensor, activations: Tensor, shift: Tensor, neurons: Tensor) -> Tensor:
        """The residual stream (P × d) after the activations (P × N) of some neurons (k) move by `shift` (P × k).

        In the dtype of `residual`.
        """
        rows = self.w_out.to(residual)
        change = shift @ rows[neurons]
        if self.post_norm is None:
            return residual + change
        output = activations @ rows
        output = output if self.post_norm.bias is None else output + self.post_norm.bias.to(output)
        return residual + self.post_norm.norm(output + change) - self.post_norm.norm(output)

    @property
    def vocabulary_size(self) -> int:
        """V, the rows of the unembedding (may exceed the tokenizer's size by padding)."""
        return self.head.unembedding.shape[0]


def find_structure(model: PreTrainedModel, layer: int = -1) -> Structure:
    """Find and confirm an MLP, the final norm and the unembedding of a causal language model.

    Args:
        model: any decoder of the library.
        layer: block whose MLP is meant; negative ones count from the last.

    Raises:
        UserError: there is no such layer, or a piece is missing or does not act as the ablation needs; the message
            names the architecture and the piece.
    """
    mlp = mlp_modules(model, layer)
    unembedding = model.get_output_embeddings()
    depth = len(decoder_blocks(model))
    index = layer_index(layer, depth)
    probe = _probe(model, {unembedding, mlp.out_projection, *mlp.in_projections, *mlp.activations}, unembedding)
    _require_causal(model, probe)
    final_norm = _final_norm(model, probe)
    head, mapped = _with_scale(model, _head(model, unembedding, final_norm, probe), unembedding, probe)
    w_out = linear_weight(mlp.out_projection).T
    w_in, w_up = _input_weights(model, mlp, probe, w_out.shape[0])
    found = Structure(index, depth, mlp.out_projection, final_norm, w_out, w_in, w_up, head)
    between = []
    if index < depth - 1:
        between.append(f"layer {index} of {depth} is below the last")
    elif not _is_added(model, found, probe):
        post_norm = _post_norm(found, probe)
        found = replace(found, post_norm=post_norm)
        if post_norm is None or not _is_added(model, found, probe):
            found = replace(found, post_norm=None)
            between.append("its MLP does not reach the final norm by addition, plain or after one norm")
    if mapped:
        between.append("its logits are soft-capped after the unembedding")
    return replace(found, between=tuple(between))


@contextmanager
def hooked(*hooks: tuple[nn.Module, str, Callable[..., Any]]) -> Iterator[None]:
    """Run a block with forward hooks: (module, `before` or `after`, function); removed at the end, come what may."""
    with ExitStack() as stack:
        for module, moment, function in hooks:
            register = module.register_forward_pre_hook if moment == "before" else module.register_forward_hook
            stack.callback(register(function).remove)
        yield


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

    watched = pieces | {module for module in model.modules() if may_be_norm(module)}
    vocabulary = min(model.config.get_text_config().vocab_size, linear_weight(unembedding).shape[0])
    tokens = (torch.arange(1, PROBE_TOKENS + 1, device=model.device) * 7919 % vocabulary).unsqueeze(0)
    with torch.inference_mode(), hooked(*((module, "after", keep) for module in watched)):
        logits = _logits(model, tokens)
    if unembedding not in inputs:
        raise refused(model, "its unembedding is not called in a forward pass")
    if not bool(torch.isfinite(logits).all()):
        raise UserError(
            f"A short forward pass of {type(model).__name__} gives NaN or infinity in {str(logits.dtype)[6:]}. "
            "Try --dtype float32, or check the weights."
        )
    return _Probe(tokens, inputs, outputs, inputs[unembedding], logits)


def _logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Logits of the first forward passes, in which sizes of a configuration that do not fit together come to light."""
    where = f"A short forward pass of {type(model).__name__} in {str(model.dtype)[6:]} fails"
    with reading(where, "Check its config.json, or try --dtype float32."):
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits
    return logits


def _require_causal(model: PreTrainedModel, probe: _Probe) -> None:
    """Change the last token and see the logits before it stay: an encoder sees the tokens that it would predict.

    Raises:
        UserError: they change, as in an encoder.
    """
    changed = probe.tokens.clone()
    changed[..., -1] = probe.tokens[..., 0]
    with torch.inference_mode():
        logits = _logits(model, changed)
    if not _close(logits[:, :-1], probe.logits[:, :-1], FEW):
        raise refused(model, "its predictions read the tokens after them, as an encoder's do")


def _final_norm(model: PreTrainedModel, probe: _Probe) -> nn.Module:
    for module, output in probe.outputs.items():
        if may_be_norm(module) and output.shape == probe.head_input.shape and torch.equal(output, probe.head_input):
            return module
    raise refused(model, f"its unembedding reads {_source(model, probe)}, not the output of a final norm")


def _source(model: PreTrainedModel, probe: _Probe) -> str:
    """What gives the unembedding its input, in words."""
    seen: list[str] = []

    def see(name: str, module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        is_alike = isinstance(output, Tensor) and output.shape == probe.head_input.shape
        if is_alike and torch.equal(output, probe.head_input):
            seen.append(f"{name} ({type(module).__name__})")

    hooks = [(module, "after", partial(see, name)) for name, module in model.named_modules()]
    with torch.inference_mode(), hooked(*hooks):
        model(input_ids=probe.tokens, use_cache=False)
    return seen[0] if seen else "something that no module gives"


def _head(model: nn.Module, unembedding: nn.Linear, norm: nn.Module, probe: _Probe) -> Head:
    """Fold the probe's evidence into a Head: the norm's kind is the formula that reproduces what it did."""
    form = norm_form(norm, probe.inputs[norm], probe.outputs[norm])
    if not _close(form(probe.inputs[norm].double()), probe.outputs[norm]):
        raise refused(model, f"its final norm ({type(norm).__name__}) is neither a LayerNorm nor an RMSNorm")
    dtype = torch.promote_types(unembedding.weight.dtype, torch.float32)
    bias = None if form.bias is None else form.bias.to(dtype)
    return Head(
        unembedding=unembedding.weight.detach(),
        logit_bias=None if unembedding.bias is None else unembedding.bias.detach(),
        norm=replace(form, gain=form.gain.to(dtype), bias=bias),
    )


def same_logits(ours: Tensor, theirs: Tensor) -> bool:
    """Whether logits are equal up to the rounding of a forward pass in their dtype."""
    return _close(ours, theirs)


def _close(ours: Tensor, theirs: Tensor, roundings: int = MANY) -> bool:
    """Equal up to so many roundings in the model's dtype, or in float32, in which norms compute."""
    precision = max(torch.finfo(theirs.dtype).eps, torch.finfo(torch.float32).eps)
    slack = roundings * precision * max(1.0, float(theirs.abs().max()))
    return float((ours.double() - theirs.double()).abs().max()) <= slack


def _with_scale(model: nn.Module, head: Head, unembedding: nn.Linear, probe: _Probe) -> tuple[Head, bool]:
    """The head with a constant factor on the logits folded into its gain, and whether more happens to them.

    The unembedding's own output is what the logits are compared with, so that the dtype's rounding hides nothing.
    """
    plain, logits = probe.outputs[unembedding].double(), probe.logits.double()
    x = probe.head_input.double()  # the unembedding is never whole in float64
    ours = torch.cat([x @ rows.double().T for rows in head.unembedding.split(ROWS)], dim=-1)
    if not _close(ours if head.logit_bias is None else ours + head.logit_bias.double(), probe.outputs[unembedding]):
        raise refused(model, "its unembedding does more than one matrix product")
    if plain.shape == logits.shape and torch.equal(plain, logits):
        return head, False
    scale = float((plain * logits).sum() / plain.square().sum())
    if not _close(scale * plain, probe.logits, FEW):
        return head, True
    biases = [None if bias is None else scale * bias for bias in (head.norm.bias, head.logit_bias)]
    norm = replace(head.norm, gain=scale * head.norm.gain, bias=biases[0])
    return replace(head, norm=norm, logit_bias=biases[1]), False


def _post_norm(found: Structure, probe: _Probe) -> PostNorm | None:
    """The norm that reads what the output projection gives, if there is one that acts as a norm."""
    output = probe.outputs[found.out_projection]
    for module, seen in probe.inputs.items():
        if may_be_norm(module) and seen.shape == output.shape and torch.equal(seen, output):
            form = norm_form(module, seen, probe.outputs[module])
            if not _close(form(seen.double()), probe.outputs[module]):
                continue
            bias = getattr(found.out_projection, "bias", None)
            dtype = torch.promote_types(output.dtype, torch.float32)
            form = replace(form, gain=form.gain.to(dtype), bias=None if form.bias is None else form.bias.to(dtype))
            return PostNorm(form, None if bias is None else bias.detach())
    return None


def _is_added(model: PreTrainedModel, found: Structure, probe: _Probe) -> bool:
    """Raise one neuron's activation at the last token and see the residual stream move as it should.

    That is by exactly the step times w_i or, with a norm after the MLP, by what the norm makes of it. The step is so
    large that such a norm shows in any dtype.
    """
    before = probe.inputs[found.final_norm].double()
    neuron = int(found.w_out.float().norm(dim=1).argmax())
    largest = float(found.w_out[neuron].abs().max())
    step = 1.0 if largest == 0 else STEP * float(before.abs().max()) / largest
    step = min(step, torch.finfo(found.w_out.dtype).max / STEP)
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
    expected = before.clone()
    activations = probe.inputs[found.out_projection].double()[..., -1, :]
    expected[..., -1, :] = found.moved(
        before[..., -1, :], activations, torch.full_like(activations[..., :1], step), torch.tensor([neuron])
    )
    return _close(expected, seen[0], 4 * FEW)


def _input_weights(model: nn.Module, mlp: Mlp, probe: _Probe, neurons: int) -> tuple[Tensor, Tensor | None]:
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
        neurons_seen = probe.inputs[mlp.out_projection]
        for gate, up in ((0, 1), (1, 0)):  # an activation function that is no module is told by what it gives
            if any(_close(act(outputs[gate]) * outputs[up], neurons_seen) for act in _ACTIVATIONS):
                return weights[gate], weights[up]
    raise refused(model, "the gate of its MLP could not be told from its other projections")
