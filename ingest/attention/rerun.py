"""Runs a window once, then again with many edits per batch, playing back what no edit can change.

The first run records, for each edited module, the outputs of everything that an edit of it leaves unchanged. A rerun
plays those back and lets the edited module return what it is told. Unless logits are wanted it stops at the analysed
neurons, and modules that these do not read are not run either.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from rare_tokens.ingest.attention.dependence import find_reach
from rare_tokens.ingest.attention.heads import AttentionLayer, See, Softmaxes
from rare_tokens.ingest.attention.low_rank import find_readers
from rare_tokens.ingest.dense.replay import calling, modules_before, outermost, replaced
from rare_tokens.ingest.model.structure import PROBE_TOKENS, Structure, hooked

Hook = tuple[nn.Module, str, Callable[..., Any]]


class _StopError(Exception):
    """The run has got as far as needed."""


@dataclass(frozen=True)
class Recorded:
    """What a run of n windows of T tokens recorded.

    Attributes:
        activations: n × T × N, of the analysed neurons.
        inputs: by module, its input; for an attention the heads' outputs, n × T × (H · d_head).
        outputs: by module, its first output, in its own shape.
        logits: n × T × V, if wanted.
    """

    activations: Tensor
    inputs: dict[nn.Module, Tensor]
    outputs: dict[nn.Module, Tensor]
    logits: Tensor | None


class Rerun:
    """Runs batches of windows: once whole, then from an edited module on."""

    def __init__(self, model: PreTrainedModel, structure: Structure, layers: Iterable[AttentionLayer]) -> None:
        """Find what no edit changes, for each module that may be edited: the layers' attention, norm, feed-forward."""
        self.model, self.neurons = model, structure.out_projection
        layers = tuple(layers)
        self.attentions = {layer.module for layer in layers}
        self.projections = {layer.module: layer.out_projection for layer in layers}
        points = [module for layer in layers for module in (layer.module, layer.norm, layer.feed_forward)]
        tokens = torch.arange(1, PROBE_TOKENS + 1, device=model.device).unsqueeze(0)
        self.reach = {point: find_reach(model, point, self.neurons, tokens) for point in points}
        self.readers = {layer.module: find_readers(model, layer, tokens) for layer in layers}
        played = (item for reach in self.reach.values() for item in (*reach.untouched, *reach.unread))
        self._watched = list(dict.fromkeys(played))
        idle = {item for reach in self.reach.values() for item in reach.idle}
        # An edited module beyond the neurons may read what they do not, and is measured all the same
        feeding = all(reach.feeds for reach in self.reach.values())
        self._idle = list(outermost(model, idle)) if feeding else []
        self._idle_outputs: tuple[torch.Size, dict[nn.Module, list[Any]]] = (torch.Size(), {})
        done = {item for top in modules_before(model, self.neurons, tokens) for item in top.modules()}
        self._may_stop = all(point in done for point in points if point is not self.neurons)
        self._played: dict[nn.Module, list[Any]] = {}
        # By edited module, the form of its output: length of the tuple (0: a tensor), dimensions of the first
        self._forms: dict[nn.Module, tuple[int, int]] = {}
        self._tokens = tokens

    def record(self, tokens: Tensor, *, with_logits: bool) -> Recorded:
        """Run n × T tokens unedited, and keep what reruns need."""
        self._tokens = tokens
        self._played = {module: [] for module in self._watched}
        inputs: dict[nn.Module, Tensor] = {}
        outputs: dict[nn.Module, Tensor] = {}

        def keep_input(key: nn.Module, _module: nn.Module, args: Any) -> None:
            inputs[key] = args[0].detach().reshape(*tokens.shape, -1)

        def keep_output(module: nn.Module, _args: Any, output: Any) -> None:
            outputs[module] = _first(output).detach()
            self._forms[module] = (0 if isinstance(output, Tensor) else len(output), outputs[module].dim())

        hooks: list[Hook] = [(module, "after", self._keep_played) for module in self._watched]
        hooks += [(point, "after", keep_output) for point in self.reach]
        hooks += [(projection, "before", partial(keep_input, key)) for key, projection in self.projections.items()]
        others = [point for point in self.reach if point not in self.attentions]
        hooks += [(point, "before", partial(keep_input, point)) for point in others]
        hooks += [hook for readers in self.readers.values() for reader in readers for hook in reader.recording()]
        with ExitStack() as stack:
            if not with_logits and self._idle_outputs[0] == tokens.shape:
                for module, given in self._idle_outputs[1].items():
                    stack.enter_context(replaced(module, iter(given)))
            found, result = self._run(tokens, hooks, with_logits=with_logits, stop=not with_logits and self._may_stop)
        self._idle_outputs = (tokens.shape, {module: self._played[module] for module in self._idle})
        return Recorded(found, inputs, outputs, result)

    def rerun(
        self,
        point: nn.Module,
        edited_outputs: Tensor,
        *,
        with_logits: bool,
        with_activations: bool = True,
        shift: Tensor | None = None,
        first: int = 0,
    ) -> Recorded:
        """Run the recorded windows again with E outputs of a module; as `Recorded`, with E · n in place of n.

        Args:
            point: the module.
            edited_outputs: E × n × T × …
            with_logits: whether they are wanted.
            with_activations: whether to read them; not if the edit is beyond them.
            shift: where E heads of an attention are edited, how much their outputs change: E × n × T × d_head.
            first: the first of these heads.
        """
        count = len(edited_outputs)
        size, dimensions = self._forms[point]
        flat = edited_outputs.flatten(0, -2) if dimensions == 2 else edited_outputs.flatten(0, 1)
        edited = (flat, *[None] * (size - 1)) if size else flat
        with ExitStack() as stack:
            self._play(stack, point, count, all_modules=with_logits)
            stack.enter_context(replaced(point, iter([edited])))
            tokens = self._tokens.repeat(count, 1)
            hooks: list[Hook] = []
            for reader in self.readers[point] if shift is not None else ():
                assert shift is not None
                hooks.append(reader.watching())
                for linear in reader.maps:
                    stack.enter_context(calling(linear, reader.instead(linear, shift, first)))
            found, result = self._run(
                tokens, hooks, with_logits=with_logits, stop=not with_logits, with_activations=with_activations
            )
        return Recorded(found, {}, {}, result)

    def heads_outputs(self, attention: nn.Module, see: See) -> Tensor:
        """The heads' outputs of an attention in the recorded windows; `see` looks at its softmax, or replaces it."""
        seen: list[Tensor] = []

        def keep(_module: nn.Module, args: Any) -> None:
            seen.append(args[0].detach().reshape(*self._tokens.shape, -1))
            raise _StopError

        with ExitStack() as stack:
            self._play(stack, attention, 1, all_modules=True)
            hook: Hook = (self.projections[attention], "before", keep)
            self._run(self._tokens, [hook], with_logits=False, stop=False, see=see, with_activations=False)
        return seen[0]

    def _play(self, stack: ExitStack, point: nn.Module, count: int, *, all_modules: bool) -> None:
        repeat = partial(_repeated, len(self._tokens), self._tokens.shape[1], count)
        reach = self.reach[point]
        for module in reach.untouched if all_modules else reach.unread:
            played = self._played[module]
            stack.enter_context(replaced(module, (tree_map_only(Tensor, repeat, output) for output in played)))

    def _run(
        self,
        tokens: Tensor,
        hooks: list[Hook],
        *,
        with_logits: bool,
        stop: bool,
        see: See | None = None,
        with_activations: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        seen: list[Tensor] = []

        def keep(_module: nn.Module, args: Any) -> None:
            seen.append(args[0].detach().reshape(*tokens.shape, -1))
            if stop:
                raise _StopError

        result = None
        every = [*hooks, (self.neurons, "before", keep)] if with_activations else hooks
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(hooked(*every))
            if see is not None:
                stack.enter_context(Softmaxes(see))
            try:
                if with_logits:
                    result = self.model(input_ids=tokens, use_cache=False).logits
                else:
                    self.model.base_model(input_ids=tokens, use_cache=False)
            except _StopError:
                pass
        return (seen[0] if seen else torch.empty(*tokens.shape, 0)), result

    def _keep_played(self, module: nn.Module, _args: Any, output: Any) -> None:
        if module in self.attentions and not isinstance(output, Tensor):
            output = (output[0], *[None] * (len(output) - 1))  # the weights are seen elsewhere
        self._played[module].append(tree_map_only(Tensor, lambda value: value.detach().clone(), output))


def _first(output: Any) -> Tensor:
    found = output if isinstance(output, Tensor) else output[0]
    assert isinstance(found, Tensor)
    return found


def _repeated(windows: int, length: int, count: int, value: Tensor) -> Tensor:
    """A recorded output repeated for `count` edits, edit by edit; anything else is left as it is.

    Outputs are windows × positions × …, or (windows · positions) × … where a model flattens them.
    """
    if value.dim() < 2 or value.shape[0] not in (windows, windows * length):
        return value
    if count == 1:
        return value.clone()  # so that a model that works in place does not change what is kept
    if value.shape[0] == 1:
        return value.expand(count, *value.shape[1:])
    return value.repeat(count, *[1] * (value.dim() - 1))
