"""Runs a decoder again from one MLP's output on, playing back whatever ran before from a first pass.

What runs before the MLP's output projection is called cannot depend on its output. So the outermost modules that are
done by then (embeddings, the layers below, this layer's attention, the MLP's input projections) need to run only once
per window, however many edits are tried. That holds for any architecture, and `dense.ablation` confirms it for each.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rare_tokens.ingest.model.structure import hooked


class Unrounded(TorchFunctionMode):
    """While active, keeps float64 tensors in float64: the norms and softmax of many models cast to float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func` without its cast to float32 where its first argument is float64."""
        given = dict(kwargs or {})
        tensor = args[0] if args else None
        if isinstance(tensor, Tensor) and tensor.dtype == torch.float64:
            if func is Tensor.float:
                return tensor
            if given.get("dtype") is torch.float32:
                given["dtype"] = torch.float64
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
        return func(*args, **given)


class Replay:
    """One window at a time: `record` it, then get the logits under edits of the MLP's output."""

    def __init__(self, model: PreTrainedModel, out_projection: nn.Module, tokens: Tensor) -> None:
        """Find what runs before the output projection in a forward pass over some tokens (1 × length)."""
        self.model, self.edited = model, out_projection
        self._before = modules_before(model, out_projection, tokens)
        self._outputs: list[list[Any]] = []
        self._tokens = tokens[:1]
        self._prefix: list[tuple[Tensor, Tensor]] = []
        self.activations = torch.empty(0)  # of the recorded window: positions × N
        self._projected = torch.empty(0)

    def record(self, tokens: Tensor, *, prefixes: bool = False) -> Tensor:
        """Run the model unedited over a window of token ids (T); returns its logits, T × V.

        With `prefixes`, also keep the attention's keys and values, which `logits_at` needs.
        """
        self._tokens = tokens[None]
        self._outputs = [[] for _ in self._before]
        hooks: list[tuple[nn.Module, str, Callable[..., Any]]] = [
            (module, "after", partial(_keep, outputs))
            for module, outputs in zip(self._before, self._outputs, strict=True)
        ]
        hooks += [(self.edited, "before", self._keep_activations), (self.edited, "after", self._keep_projected)]
        cache = DynamicCache() if prefixes else None
        with torch.inference_mode(), hooked(*hooks):
            logits = self.model(input_ids=self._tokens, past_key_values=cache, use_cache=prefixes).logits[0]
        layers = [] if cache is None else [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
        self._prefix = [(layer.keys, layer.values) for layer in layers]
        return logits

    def logits(self, edits: Tensor) -> Tensor:
        """B × T × V logits where the MLP's output is changed by `edits`, B × T × d.

        They can be differentiated by the edits where these ask for it, of which there must then be one.
        """
        count, length, width = edits.shape
        clean = self._projected.reshape(1, length, width)
        shape = (count * length, width) if self._projected.dim() == 2 else edits.shape
        with (
            torch.inference_mode(not edits.requires_grad),
            self._played_back(partial(_repeated, length, count, None), (clean + edits).reshape(shape).contiguous()),
        ):
            return self.model(input_ids=self._tokens.expand(count, -1), use_cache=False).logits

    def logits_at(self, position: int, edits: Tensor) -> Tensor:
        """B × V logits at one position where the MLP's output is changed by `edits` (B × d) there and nowhere else.

        Earlier positions are as they were, so their keys and values are read from the cache. Differentiable as
        `logits`.
        """
        count, width = edits.shape
        length = self._tokens.shape[1]
        clean = self._projected.reshape(length, width)[position]
        shape = (count, width) if self._projected.dim() == 2 else (count, 1, width)
        cache = DynamicCache()
        for keys, values in self._prefix:
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = (kept[:, :, :position].expand(count, -1, -1, -1) for kept in (keys, values))
            cache.layers.append(layer)
        tokens = self._tokens[:, position : position + 1].expand(count, -1)
        repeat = partial(_repeated, length, count, position)
        mode = torch.inference_mode(not edits.requires_grad)
        with mode, self._played_back(repeat, (clean + edits).reshape(shape).contiguous()):
            return self.model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[:, 0]

    @property
    def projected_scale(self) -> float:
        """Root mean square of the recorded output of the MLP's projection."""
        return float(self._projected.float().square().mean().sqrt())

    @contextmanager
    def _played_back(self, repeat: Callable[[Tensor], Tensor], projected: Tensor) -> Iterator[None]:
        with ExitStack() as stack:
            for module, outputs in zip(self._before, self._outputs, strict=True):
                stack.enter_context(replaced(module, (tree_map_only(Tensor, repeat, output) for output in outputs)))
            stack.enter_context(replaced(self.edited, iter([projected])))
            yield

    def _keep_activations(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self.activations = args[0].detach().reshape(self._tokens.shape[1], -1).clone()

    def _keep_projected(self, _module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        self._projected = output.detach().clone()


def modules_before(model: nn.Module, edited: nn.Module, tokens: Tensor) -> list[nn.Module]:
    """The outermost modules whose every call ends before `edited` is called."""
    events: list[tuple[str, nn.Module]] = []

    def start(module: nn.Module, _args: tuple[Any, ...]) -> None:
        events.append(("start", module))

    def end(module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        events.append(("end", module))

    every = list(model.modules())
    hooks = [(module, "before", start) for module in every] + [(module, "after", end) for module in every]
    with torch.inference_mode(), hooked(*hooks):
        model(input_ids=tokens, use_cache=False)
    first = next(place for place, event in enumerate(events) if event == ("start", edited))
    ended = {module for kind, module in events[:first] if kind == "end"}
    later = {module for _, module in events[first:]}
    return list(outermost(model, ended - later))


def outermost(module: nn.Module, wanted: set[nn.Module]) -> Iterator[nn.Module]:
    """The wanted modules of a tree that are inside no other wanted module."""
    if module in wanted:
        yield module
        return
    for child in module.children():
        yield from outermost(child, wanted)


def _keep(outputs: list[Any], _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
    outputs.append(tree_map_only(Tensor, lambda value: value.detach().clone(), output))


def _repeated(length: int, count: int, position: int | None, value: Tensor) -> Tensor:
    """A recorded output repeated for `count` edits, at all its positions or at one.

    Outputs are 1 × positions × …, or positions × … where a model flattens its batch; others are left as they are.
    For one edit all are copies, which unlike what was kept may be part of what is differentiated.
    """
    if value.dim() < 2:
        return value.clone()
    if value.shape[0] == 1:
        here = value if position is None or value.shape[1] != length else value[:, position : position + 1]
        # A single row is copied, so that a model that works in place does not change what is kept
        return here.expand(count, *here.shape[1:]) if count > 1 else here.clone()
    if value.shape[0] == length:
        here = value if position is None else value[position : position + 1]
        return here.repeat(count, *[1] * (here.dim() - 1))
    return value.clone()


def replaced(module: nn.Module, outputs: Iterator[Any]) -> AbstractContextManager[None]:
    """Let a module return these outputs, one per call, whatever its input."""
    return calling(module, lambda *_args, **_given: next(outputs))


@contextmanager
def calling(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Call a function in place of a module's own forward."""
    own = vars(module).get("forward")
    object.__setattr__(module, "forward", function)
    try:
        yield
    finally:
        if own is None:
            object.__delattr__(module, "forward")
        else:
            object.__setattr__(module, "forward", own)
