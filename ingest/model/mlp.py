"""The MLP of a decoder's block: one pair of linear maps, or gate, up and down; a mixture of experts is refused by name.

Found by shapes, so that a model without its weights (on the meta device) will do.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rare_tokens.common.errors import UserError
from rare_tokens.common.layers import layer_index


def mlp_shape(model: PreTrainedModel, layer: int = -1) -> tuple[int, int, int]:
    """(N, d, V) of a layer of a decoder whose weights need not be there (the meta device will do).

    Raises:
        UserError: as `find_structure`, as far as shapes alone can show it.
    """
    mlp = mlp_modules(model, layer)
    neurons, width = _shape(mlp.out_projection) or (0, 0)
    return neurons, width, model.get_output_embeddings().out_features


def mlp_modules(model: PreTrainedModel, layer: int) -> "Mlp":
    """The MLP of a layer of a decoder.

    Raises:
        UserError: it has none, or several, or is a mixture of experts.
    """
    unembedding = model.get_output_embeddings()
    if not isinstance(unembedding, nn.Linear):
        raise refused(model, "it has no linear unembedding")
    _refuse_projection(model, unembedding.in_features)
    blocks = decoder_blocks(model)
    index = layer_index(layer, len(blocks))
    if (experts := _experts(blocks[index], unembedding.in_features)) is not None:
        raise UserError(
            f"{type(model).__name__} is not supported: layer {index} is a mixture of experts ({experts}), so a token "
            "passes through some of its neurons only. Use a dense model, or a layer with one MLP."
        )
    return _find_mlp(model, blocks[index], unembedding.in_features)


def _refuse_projection(model: PreTrainedModel, width: int) -> None:
    """Refuse a projection between the residual stream and an unembedding that reads another width.

    Raises:
        UserError: there is one.
    """
    hidden = getattr(model.config.get_text_config(), "hidden_size", width)
    if hidden != width:
        between = [name for name, module in model.named_modules() if _shape(module) == (hidden, width)]
        named = f" ({between[-1]})" if between else ""
        raise refused(
            model,
            f"a projection{named} lies between its residual stream of {hidden} dimensions and its unembedding, which "
            f"reads {width}",
        )


def linear_weight(module: nn.Module) -> Tensor:
    """Weight of a linear map as out × in, for torch's Linear and for the transposed Conv1D of GPT-2."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if isinstance(module, Conv1D) else weight.detach()


def refused(model: nn.Module, missing: str) -> UserError:
    """The error that says what a model lacks."""
    return UserError(
        f"{type(model).__name__} is not supported: {missing}. "
        "Use a decoder of blocks with one MLP each, ending in one final norm and a linear unembedding."
    )


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The stack of decoder blocks.

    Raises:
        UserError: there is none.
    """
    depth = model.config.get_text_config().num_hidden_layers
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if not stacks:
        raise refused(model, f"no stack of {depth} decoder blocks was found in it")
    return stacks[0]


def _shape(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear map; None for anything else."""
    if isinstance(module, (nn.Linear, Conv1D)):
        out_features, in_features = linear_weight(module).shape
        return in_features, out_features
    return None


@dataclass(frozen=True)
class Mlp:
    """The linear maps of an MLP."""

    out_projection: nn.Module  # N → d
    in_projections: list[nn.Module]  # d → N, or d → 2N with gate and up in one
    activations: list[nn.Module]  # parameterless siblings: the activation function is among them


def _find_mlp(model: nn.Module, block: nn.Module, width: int) -> Mlp:
    """The one linear map N → d outside attention that has siblings d → N (or d → 2N)."""
    found = []
    for _, parent in _outside_attention(block):
        if _mixes_positions(parent):
            continue
        linears = {child: shape for child in parent.children() if (shape := _shape(child)) is not None}
        plain = [child for child in parent.children() if _shape(child) is None and next(child.children(), None) is None]
        for out, (neurons, to) in linears.items():
            wanted = {(width, neurons), (width, 2 * neurons)}
            ins = [child for child, shape in linears.items() if child is not out and shape in wanted]
            if to == width and ins:
                found.append(Mlp(out, ins, plain))
    if len(found) != 1:
        what = "no MLP with an output projection was" if not found else f"{len(found)} MLPs were"
        raise refused(model, f"{what} found in the block")
    return found[0]


# --- what is no MLP ---------------------------------------------------------------------------------------------------

# Names of parts and ends of class names by which mixtures go. A model of experts may have layers without, whose class
# still begins with its name (`Qwen3MoeMLP`), so that the end decides.
_PARTS = re.compile(r"(^|_)(experts?|moe|router)(_|$)", re.IGNORECASE)
_CLASSES = re.compile(r"(MoE|Moe|MoeBlock|SparseMLP|Experts?|Router)$")
_STACKED = 3  # dimensions of the weights of all experts in one


def _experts(block: nn.Module, width: int) -> str | None:
    """Where a block holds a mixture of experts: beside the MLP, inside it, or in its place; None where it has none."""
    for path, module in _outside_attention(block):
        if not path or not any(weight.numel() for weight in module.parameters()):
            continue
        if _PARTS.search(path.rsplit(".", 1)[-1]) or _CLASSES.search(type(module).__name__):
            return f"{path}, {type(module).__name__}"
        for name, weight in module.named_parameters(recurse=False):
            if (
                weight.dim() == _STACKED
                and len(weight) > 1
                and width in weight.shape[1:]
                and not _is_convolution(module)
            ):
                return f"{path}.{name}"
    return None


def _mixes_positions(module: nn.Module) -> bool:
    """Whether a module does more than maps of one position: a state-space mixer has such linear maps too."""
    return bool(dict(module.named_parameters(recurse=False))) or any(map(_is_convolution, module.children()))


def _is_convolution(module: nn.Module) -> bool:
    return not isinstance(module, Conv1D) and "conv" in type(module).__name__.lower()


def _outside_attention(block: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """A block and its parts, each with its path in the block, but for attention and what is in it."""
    yield path, block
    for name, child in block.named_children():
        kind = type(child).__name__.lower()
        if "attention" not in kind and "attn" not in kind:
            yield from _outside_attention(child, f"{path}.{name}" if path else name)
