"""Finds by structure where a decoder's attention heads are, and whether they feed the neurons.

A probe over a few tokens shows it. Attention weights are what comes out of a softmax over positions; the module that
calls it is the attention; the heads' outputs lie side by side in the input of its output projection, which is confirmed
by silencing each head's weights. Only eager attention shows its weights, so the model is switched to it meanwhile.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.mlp import decoder_blocks, linear_weight, mlp_modules
from rare_tokens.ingest.model.norms import may_be_norm
from rare_tokens.ingest.model.structure import PROBE_TOKENS, Structure, hooked, same_logits

LAYERS = 2  # looked at by default: the last ones upstream of the neurons
_SOFTMAX = (nn.functional.softmax, torch.softmax, Tensor.softmax, torch.special.softmax)
See = Callable[[Tensor, Tensor], Tensor | None]


@dataclass(frozen=True)
class AttentionLayer:
    """The attention of one layer, and the modules that serve as its controls.

    Attributes:
        index: of the layer.
        module: the attention; what it returns first is the output of `out_projection`.
        out_projection: its input holds the heads' outputs z side by side, head by head.
        heads: H.
        norm: the norm before the layer's feed-forward (or the last one before it).
        feed_forward: the output projection of the layer's MLP.
        feeds: whether silencing all its heads changes any activation of the analysed neurons.
        norm_feeds: whether silencing the norm's output does.
        feed_forward_feeds: whether silencing the feed-forward's input does.
    """

    index: int
    module: nn.Module
    out_projection: nn.Module
    heads: int
    norm: nn.Module
    feed_forward: nn.Module
    feeds: bool
    norm_feeds: bool
    feed_forward_feeds: bool

    @property
    def output_weight(self) -> Tensor:
        """H × d_head × d: W_h, by which each head's output is multiplied."""
        weight = linear_weight(self.out_projection).T
        return weight.reshape(self.heads, -1, weight.shape[1])


class Softmaxes(TorchFunctionMode):
    """While active, shows `see` each softmax over positions, input and output; `see` may replace the output."""

    def __init__(self, see: See) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`; show `see` a softmax over B × H × T × T scores."""
        result = func(*args, **(kwargs or {}))
        if func in _SOFTMAX and result.dim() == 4:
            replaced = self.see(args[0] if args else kwargs["input"], result)
            return result if replaced is None else replaced
        return result


def visible(scores: Tensor) -> Tensor:
    """Which keys a query may look at, from the scores that go into the softmax: masked ones are hugely negative."""
    return scores > torch.finfo(scores.dtype).min / 2


@contextmanager
def eager(model: PreTrainedModel) -> Iterator[None]:
    """Switch to eager attention within this context: fused kernels give no weights."""
    configured = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if configured is not None and configured != "eager":
            model.set_attn_implementation(configured)


def parse_layers(spelled: str, depth: int) -> list[int]:
    """The layers of `--attention-layers`: one, or FIRST..LAST (both included); negative ones count from the last.

    Raises:
        UserError: not of that form, or the model has no such layer.
    """
    one, dots, other = spelled.partition("..")
    try:
        ends = [int(one), int(other if dots else one)]
    except ValueError as error:
        raise UserError(
            f"--attention-layers {spelled}: give one layer, or two with `..` between them, for example 2..3."
        ) from error
    if not all(-depth <= end < depth for end in ends):
        raise UserError(
            f"--attention-layers {spelled}: the model has {depth} layers. Use 0 to {depth - 1}, or -{depth} to -1."
        )
    lower, upper = (end % depth for end in ends)
    if lower > upper:
        raise UserError(f"--attention-layers {spelled}: the first layer is after the last. Swap them.")
    return list(range(lower, upper + 1))


def find_heads(
    model: PreTrainedModel, structure: Structure, wanted: Sequence[int] | None = None
) -> list[AttentionLayer]:
    """The attention of the layers wanted; by default the last two upstream of the analysed neurons.

    To be called within `eager`.

    Raises:
        UserError: none is upstream, or a layer has no attention weights to show.
    """
    probe = _Probe(model, structure)
    if wanted is not None:
        return [probe.layer(index) for index in wanted]
    own = probe.layer(structure.layer)
    last = structure.layer if own.feeds else structure.layer - 1
    if last < 0:
        raise UserError(
            f"--attention: no attention is upstream of the neurons of layer {structure.layer}: its own runs beside "
            "them. Name layers with --attention-layers; their effect on the loss can still be measured."
        )
    return [
        own if index == structure.layer else probe.layer(index) for index in range(max(0, last - LAYERS + 1), last + 1)
    ]


class _Probe:
    """One forward pass over a few tokens that notes every module's start and output, and the softmaxes within."""

    def __init__(self, model: PreTrainedModel, structure: Structure) -> None:
        self.model, self.structure = model, structure
        vocabulary = min(model.config.get_text_config().vocab_size, structure.vocabulary_size)
        self.tokens = (torch.arange(1, PROBE_TOKENS + 1, device=model.device) * 7919 % vocabulary).unsqueeze(0)
        self.started: list[nn.Module] = []
        self.outputs: dict[nn.Module, Any] = {}
        self.softmaxes: list[tuple[nn.Module, int]] = []  # innermost module, heads
        stack: list[nn.Module] = []

        def start(module: nn.Module, _args: Any) -> None:
            stack.append(module)
            self.started.append(module)

        def end(module: nn.Module, _args: Any, output: Any) -> None:
            stack.pop()
            self.outputs[module] = output

        def see(_scores: Tensor, weights: Tensor) -> None:
            self.softmaxes.append((stack[-1], weights.shape[1]))

        every = list(model.modules())
        hooks = [(module, "before", start) for module in every] + [(module, "after", end) for module in every]
        with torch.inference_mode(), hooked(*hooks), Softmaxes(see):
            model(input_ids=self.tokens, use_cache=False)
        self.activations = self._activations()

    def layer(self, index: int) -> AttentionLayer:
        """The attention of a layer, confirmed."""
        block = decoder_blocks(self.model)[index]
        inside = set(block.modules())
        found = list(dict.fromkeys(item for item in self.softmaxes if item[0] in inside))
        if len(found) != 1:
            what = "no attention weights" if not found else f"{len(found)} attentions"
            raise UserError(
                f"--attention: layer {index} of {type(self.model).__name__} has {what}, so its heads cannot be told "
                "apart. Name other layers with --attention-layers, or leave --attention out."
            )
        ((module, heads),) = found
        projection = self._projection(module, index)
        self._confirm(module, projection, heads, index)
        feed_forward = mlp_modules(self.model, index).out_projection
        norm = self._norm(block, module, feed_forward)
        return AttentionLayer(
            index, module, projection, heads, norm, feed_forward,
            feeds=self._feeds(projection), norm_feeds=self._feeds(norm, after=True),
            feed_forward_feeds=self._feeds(feed_forward),
        )  # fmt: skip

    def _projection(self, module: nn.Module, index: int) -> nn.Module:
        """The attention's linear map that is called last; its output is what the attention returns."""
        children = set(module.children())
        called = [
            item
            for item in self.started
            if item in children and [parameter.dim() for parameter in item.parameters(recurse=False)][:1] == [2]
        ]
        output = _first(self.outputs[module])
        if not called or not torch.equal(_first(self.outputs[called[-1]]).reshape(output.shape), output):
            raise self._refused(index, "its output is not that of one projection of its heads")
        return called[-1]

    def _confirm(self, module: nn.Module, projection: nn.Module, heads: int, index: int) -> None:
        """Silence each head's weights in one row of a batch: only its slice of the projection's input may become 0."""
        seen: list[Tensor] = []
        within = [False]

        def silence(_scores: Tensor, weights: Tensor) -> Tensor | None:
            if not within[0]:
                return None
            chosen = torch.arange(heads, device=weights.device)
            weights = weights.clone()
            weights[chosen, chosen] = 0
            return weights

        def enter(_module: nn.Module, _args: Any) -> None:
            within[0] = True

        def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
            within[0] = False

        def keep(_module: nn.Module, args: Any) -> None:
            seen.append(args[0].detach().clone())

        hooks = ((module, "before", enter), (module, "after", leave), (projection, "before", keep))
        rows = self.tokens.expand(heads, -1)
        with torch.inference_mode(), hooked(hooks[2]):
            self.model(input_ids=rows, use_cache=False)
        with torch.inference_mode(), hooked(*hooks), Softmaxes(silence):
            self.model(input_ids=rows, use_cache=False)
        if seen[0].shape[-1] % heads:
            raise self._refused(index, f"{seen[0].shape[-1]} inputs of its output projection are no {heads} heads")
        clean, silenced = (values.reshape(heads, PROBE_TOKENS, heads, -1) for values in seen)
        expected = clean.clone()
        chosen = torch.arange(heads, device=clean.device)
        expected[chosen, :, chosen] = 0
        if not same_logits(expected, silenced):
            raise self._refused(index, "its heads' outputs do not lie side by side before its output projection")

    def _refused(self, index: int, why: str) -> UserError:
        return UserError(
            f"--attention: the attention of layer {index} of {type(self.model).__name__} is not supported: {why}. "
            "Leave --attention out."
        )

    def _norm(self, block: nn.Module, attention: nn.Module, feed_forward: nn.Module) -> nn.Module:
        """The last norm-like module that starts before the feed-forward's output projection, outside the attention."""
        inside = set(block.modules()) - set(attention.modules())
        before = self.started[: self.started.index(feed_forward)]
        norms = [item for item in before if item in inside and may_be_norm(item)]
        if not norms:
            norms = [item for item in self.started if item in inside and may_be_norm(item)]
        return norms[-1]

    def _feeds(self, module: nn.Module, *, after: bool = False) -> bool:
        """Whether the analysed activations change at all when a module's input (or output) is set to zero."""

        def silence(_module: nn.Module, args: Any) -> Any:
            return (torch.zeros_like(args[0]), *args[1:])

        def silence_output(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
            return torch.zeros_like(output)

        with hooked((module, "after", silence_output) if after else (module, "before", silence)):
            changed = self._activations(late=module is self.structure.out_projection)
        return not torch.equal(changed, self.activations)

    def _activations(self, *, late: bool = False) -> Tensor:
        """Activations of the analysed layer; with `late` the known ones, for an edit downstream of them."""
        if late:
            return self.activations  # the neurons' own output projection is downstream of them
        seen: list[Tensor] = []

        def keep(_module: nn.Module, args: Any) -> None:
            seen.append(args[0].detach().clone())

        with torch.inference_mode(), hooked((self.structure.out_projection, "before", keep)):
            self.model(input_ids=self.tokens, use_cache=False)
        return seen[0]


def _first(output: Any) -> Tensor:
    """The first tensor that a module returned."""
    found = output if isinstance(output, Tensor) else output[0]
    assert isinstance(found, Tensor)
    return found
