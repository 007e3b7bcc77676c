"""Which modules an edit can change, and which of those the analysed neurons read: the rest need not run again.

A short forward pass with gradients shows it. A module that cannot depend on the edited output carries no gradient of
it, even where it runs later (the MLP beside an attention, in a parallel-residual layer). A module that depends on it
but passes the neurons no gradient (the attention beside them) is idle as long as only their activations are wanted.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from rare_tokens.ingest.dense.replay import outermost
from rare_tokens.ingest.model.structure import hooked


@dataclass(frozen=True)
class Reach:
    """How far an edit of one module's output reaches in a model.

    Attributes:
        untouched: the outermost modules whose output no edit changes.
        unread: the outermost modules that are untouched or idle.
        idle: touched modules from which no path leads to the neurons.
        feeds: whether a path leads from the edited module to the neurons.
    """

    untouched: list[nn.Module]
    unread: list[nn.Module]
    idle: set[nn.Module]
    feeds: bool


def find_reach(model: PreTrainedModel, edited: nn.Module, neurons: nn.Module, tokens: Tensor) -> Reach:
    """Follow an edit of a module's (first) output to the input of `neurons`, over tokens (1 × length)."""
    outputs: dict[nn.Module, list[Tensor]] = {}
    seen: list[Tensor] = []
    done: set[nn.Module] = set()  # before the neurons are read

    def edit(_module: nn.Module, _args: Any, output: Any) -> Any:
        first = output if isinstance(output, Tensor) else output[0]
        changed = first + torch.zeros_like(first, requires_grad=True)
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    def keep(module: nn.Module, _args: Any, output: Any) -> None:
        outputs.setdefault(module, []).extend(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))

    def read(_module: nn.Module, args: Any) -> None:
        seen.append(args[0])
        done.update(outputs)

    hooks: list[Any] = [(edited, "after", edit), (neurons, "before", read)]
    hooks += [(module, "after", keep) for module in model.modules()]
    with _only_gradients_of_the_edit(model), hooked(*hooks):
        model(input_ids=tokens, use_cache=False)
        within = set(edited.modules())  # the edit replaces the module, so nothing inside it matters
        touched = {module for module, given in outputs.items() if any(value.requires_grad for value in given)}
        untouched = outputs.keys() - touched - within
        feeds = seen[0].requires_grad
        read_by = _read(seen[0], outputs, touched) if feeds else set[nn.Module]()
    idle = (touched & done) - read_by - within if feeds else set[nn.Module]()
    return Reach(list(outermost(model, untouched)), list(outermost(model, untouched | idle)), idle, feeds)


def _read(activations: Tensor, outputs: dict[nn.Module, list[Tensor]], touched: Iterable[nn.Module]) -> set[nn.Module]:
    """The modules from which a path leads to the activations."""
    values = [(module, value) for module in touched for value in outputs[module] if value.requires_grad]
    found = torch.autograd.grad(activations.float().sum(), [value for _, value in values], allow_unused=True)
    return {module for (module, _), gradient in zip(values, found, strict=True) if gradient is not None}


@contextmanager
def _only_gradients_of_the_edit(model: nn.Module) -> Iterator[None]:
    """Enable gradients, but not those of the weights."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
