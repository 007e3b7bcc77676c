"""A model's configuration, tokenizer and weights, read from its folder; nothing is fetched from the network."""

import hashlib
import json
import logging
from typing import Any

import torch
from accelerate.utils import align_module_device
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import ModelFolder, Trust
from rare_tokens.ingest.model.head import all_finite

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}


def load_tokenizer(found: ModelFolder, trust: Trust) -> PreTrainedTokenizerBase:
    """The model's tokenizer; never from the network."""
    _quiet()
    try:
        return AutoTokenizer.from_pretrained(
            found.tokenizer_path, local_files_only=True, trust_remote_code=trust.remote_code, use_fast=True
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(f"--model {found.name}: its tokenizer cannot be loaded ({_first_line(error)}).") from error


def tokenizer_id(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> str:
    """Identity of a vocabulary by its content, so that the checkpoints of one series share it.

    The unembedding's rows count: two models may pad one tokenizer to different sizes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    digest = hashlib.sha256(f"{vocabulary_size} {content}".encode("utf-8", "surrogatepass"))
    return "tok-" + digest.hexdigest()[:12]


def load_config(found: ModelFolder, trust: Trust) -> Any:
    """The model's configuration (layers, context length) without its weights."""
    _quiet()
    try:
        return AutoConfig.from_pretrained(
            found.path, local_files_only=True, trust_remote_code=trust.remote_code
        ).get_text_config()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--model {found.name}: its architecture is not known ({_first_line(error)}).") from error


def context_length(config: Any) -> int | None:
    """Longest window the model was built for; None where it says nothing."""
    lengths = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    return next((int(length) for length in lengths if length), None)


def load_model(
    found: ModelFolder, *, dtype: str, device: str, trust: Trust, device_map: dict[str, str] | None = None
) -> PreTrainedModel:
    """Load a causal language model for inference.

    Args:
        found: the model's folder.
        dtype: of its weights.
        device: where it computes.
        trust: what of it may run code.
        device_map: where each part of it is, `disk` included: accelerate fetches it for the moment that it computes.

    Raises:
        UserError: unknown architecture, weights that are missing, corrupt, of another shape, or not finite.
    """
    _quiet()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            found.path,
            dtype=DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=trust.remote_code,
            use_safetensors=not trust.pickle or None,
            output_loading_info=True,
            device_map=device_map,
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(f"--model {found.name} ({found.revision}): cannot be loaded ({_first_line(error)}).") from error
    except SafetensorError as error:
        raise UserError(f"--model {found.name} ({found.revision}): its weights are corrupt ({error}).") from error
    if missing := sorted(report["missing_keys"]):
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise UserError(f"--model {found.name} ({found.revision}): {len(missing)} weights are missing ({shown}).")
    model = (model if device_map else model.to(device)).eval().requires_grad_(False)
    _require_finite(model, found)
    return model


def _require_finite(model: PreTrainedModel, found: ModelFolder) -> None:
    for place, module in model.named_modules():
        with align_module_device(module):  # fetches what waits off the device
            for name, weight in module.named_parameters(recurse=False):
                if not all_finite(weight):
                    raise UserError(
                        f"--model {found.name} ({found.revision}): weight {place}.{name} holds NaN or infinity."
                    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _quiet() -> None:
    """Keep the library's bars and advice off stderr; our own progress stands there."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
