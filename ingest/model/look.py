"""A first look at a model, before any text is fetched: is it whole, and is it one whose MLP can be ablated?"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from rare_tokens.common.errors import UserError
from rare_tokens.common.layers import Layers
from rare_tokens.ingest.model.files import ModelFolder, Trust
from rare_tokens.ingest.model.gguf_header import Header
from rare_tokens.ingest.model.load import attention_note, load_config, model_without_weights
from rare_tokens.ingest.model.mlp import decoder_blocks, mlp_modules
from rare_tokens.ingest.model.weight_names import WeightNames, refuse_other_depth
from rare_tokens.ingest.model.weightless import empty_model

log = logging.getLogger("rare_tokens")


@dataclass(frozen=True)
class Look:
    """What a model is, as far as everything but the values of its weights shows it.

    Attributes:
        config: its configuration.
        quantisation: how its file stores the weights; None where they are as they were trained.
        ignored_weights: names of tensors that it goes on without, because `--ignore-weights` says so.
        notes: what a reader of its results should know.
    """

    config: Any
    quantisation: str | None
    ignored_weights: tuple[str, ...]
    notes: tuple[str, ...]


def look(found: ModelFolder, trust: Trust, layer: int | Layers, ignore: Sequence[str] = ()) -> Look:
    """Look at a model's files without reading its weights' values.

    Args:
        found: the model's folder.
        trust: what of it may run code.
        layer: block whose MLP is meant, or several; negative ones count from the last.
        ignore: patterns of names of weights that may be left over.

    Raises:
        UserError: a file cannot be used, weights are missing or left over, there is no such layer, or the
            architecture is not supported.
    """
    header = None if found.gguf is None else Header.of(found)
    if header is not None:
        header.refuse_unread(found)
    config = load_config(found, trust)
    names = WeightNames.of(found, trust)
    refuse_other_depth(found, names, int(config.num_hidden_layers), ignore)
    left: list[str] = []
    if names.shapes and not trust.remote_code:
        model, left = model_without_weights(found, trust, ignore)
    else:  # names and shapes come with the values, and are compared when those are loaded
        model = empty_model(found.name, config, remote_code=trust.remote_code)
    _require_mlps(model, layer)
    note = attention_note(found)
    if note is not None:
        log.warning("Warning: %s", note)
    return Look(config, None if header is None else header.quantisation, tuple(left), () if note is None else (note,))


def _require_mlps(model: PreTrainedModel, layer: int | Layers) -> None:
    """Refuse layers that are not there or have no MLP that can be ablated.

    Raises:
        UserError: naming the layer, if several are meant.
    """
    if not isinstance(layer, Layers):
        mlp_modules(model, layer)
        return
    for one in layer.of(len(decoder_blocks(model))):
        try:
            mlp_modules(model, one)
        except UserError as error:
            raise UserError(f"--layer {layer}: layer {one} cannot be measured. {error}") from error
