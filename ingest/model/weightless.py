"""A model without its weights, on torch's meta device: what its configuration alone shows."""

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from rare_tokens.ingest.model.mlp import decoder_blocks, mlp_modules
from rare_tokens.ingest.model.norms import may_be_norm
from rare_tokens.ingest.model.reading import reading
from rare_tokens.ingest.model.structure import PROBE_TOKENS, hooked


def empty_model(name: str, config: Any, *, remote_code: bool) -> PreTrainedModel:
    """The model of a configuration, its parameters and buffers without values.

    Raises:
        UserError: its architecture is not known.
    """
    with torch.device("meta"), reading(f"--model {name}: its architecture is not known"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=remote_code)


# Settings by which configurations say that logits are capped, or that what an MLP gives is scaled before it is added.
_MAPPED = {"final_logit_softcapping": None, "residual_multiplier": 1.0}


def needs_dense_path(model: PreTrainedModel, layer: int) -> bool | None:
    """Whether a layer will take the dense path, as far as a model without weights (on the meta device) shows it.

    None: it does not run without weights, so only the ingest can tell.

    The ingest itself decides by what the model does (`ingest.model.structure`).
    """
    blocks = decoder_blocks(model)
    if layer < len(blocks) - 1:
        return True
    config = model.config.get_text_config()
    if any(getattr(config, name, None) not in (None, plain) for name, plain in _MAPPED.items()):
        return True
    later = _after_mlp(model, layer)
    return None if later is None else bool(later) and not _is_one_norm(later)


def has_post_norm(model: PreTrainedModel, layer: int) -> bool:
    """Whether a norm stands between the layer's MLP and the residual stream, as far as can be seen without weights."""
    later = _after_mlp(model, layer)
    return later is not None and _is_one_norm(later)


def _is_one_norm(modules: list[nn.Module]) -> bool:
    return len(modules) == 1 and may_be_norm(modules[0])


def _after_mlp(model: PreTrainedModel, layer: int) -> list[nn.Module] | None:
    """What has parameters and runs after the output projection in its block; None: the model needs weights to run."""
    blocks = decoder_blocks(model)
    projection = mlp_modules(model, layer).out_projection
    ended: list[nn.Module] = []

    def end(module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        ended.append(module)

    tokens = torch.ones(1, PROBE_TOKENS, dtype=torch.long, device="meta")
    # A mask that is given is not looked into, which nothing without values allows. Not all models take one.
    for mask in (torch.zeros(1, 1, PROBE_TOKENS, PROBE_TOKENS, device="meta"), None):
        ended.clear()
        try:
            with torch.inference_mode(), hooked(*((module, "after", end) for module in blocks[layer].modules())):
                model(input_ids=tokens, attention_mask=mask, use_cache=False)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            continue
        later = ended[ended.index(projection) + 1 :]
        return [module for module in later if next(module.children(), None) is None and list(module.parameters())]
    return None
