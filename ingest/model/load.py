"""A model's configuration and weights, read from its folder; nothing is fetched from the network.

What the weights hold and what the configuration describes must be the same model: a weight that is missing, left over
or of another shape is refused by name, for the library would go on without it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import align_module_device
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import CONFIG, ModelFolder, Trust, config_values
from rare_tokens.ingest.model.gguf import alone
from rare_tokens.ingest.model.gguf_header import Header
from rare_tokens.ingest.model.head import all_finite
from rare_tokens.ingest.model.reading import quiet_libraries, reading
from rare_tokens.ingest.model.weight_names import WeightNames, refuse_left_over

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
_ATTENTION = ("_attn_implementation", "attn_implementation", "_attn_implementation_internal")


def load_config(found: ModelFolder, trust: Trust) -> Any:
    """The model's configuration (layers, context length) without its weights.

    Attention kernels that are not installed are not asked for: `attention_note` says so.

    Raises:
        UserError: a field is missing or of the wrong kind, or the architecture is not one that can be analysed.
    """
    whole = _whole_config(found, trust)
    with reading(f"{found.shown(CONFIG)} cannot be used"):
        config = whole.get_text_config()
    _refuse_kinds(found, whole)
    for field in ("num_hidden_layers", "vocab_size", "hidden_size"):
        value = getattr(config, field, None)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{found.shown(CONFIG)} has {field} {value!r}; it must be a positive whole number.")
    return config


def _whole_config(found: ModelFolder, trust: Trust) -> Any:
    """The configuration with all its parts; a model of text alone has but one."""
    quiet_libraries()
    config_values(found)  # what is wrong with the file as such is said first
    with reading(f"{found.shown(CONFIG)} cannot be used"), alone(found) as folder:
        config = AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust.remote_code, **found.file_options
        )
        if attention_note(found) is not None:
            config._attn_implementation_internal = None
    return config


def _refuse_kinds(found: ModelFolder, config: Any) -> None:
    """Refuse what a configuration says that no ablation here fits.

    Raises:
        UserError: an encoder–decoder, an encoder, or weights quantised otherwise than in a GGUF file.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"--model {found.name}: {config.model_type} is an encoder–decoder. Use a decoder-only language model."
        )
    if isinstance(method := config_values(found).get("quantization_config"), dict):
        raise UserError(
            f"--model {found.name}: its weights are quantised ({str(method.get('quant_method', 'unknown'))[:40]}). "
            "Use the unquantised model, a dequantised copy, or a GGUF file."
        )


def attention_note(found: ModelFolder) -> str | None:
    """What to tell of an attention kernel that the configuration asks for and that is not installed; else None."""
    values = config_values(found)
    wanted = next((str(values[name]) for name in _ATTENTION if values.get(name)), "")
    if not wanted.startswith(("flash", "kernels")) or (is_flash_attn_2_available() and torch.cuda.is_available()):
        return None
    return (
        f"The configuration of {found.name} asks for {wanted[:60]}, which is not installed here; PyTorch's own "
        "attention is used, which differs from it by rounding alone."
    )


def context_length(config: Any) -> int | None:
    """Longest window the model was built for; None where it says nothing."""
    lengths = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def model_without_weights(found: ModelFolder, trust: Trust, ignore: Sequence[str]) -> tuple[PreTrainedModel, list[str]]:
    """The model on torch's meta device, its weights' names and shapes compared with what their files hold.

    Returns also the names of the weights that are left over and may be.

    Raises:
        UserError: as `load_model`, but for values, which are not read.
    """
    return _from_files(found, trust, ignore, torch.float32, {"": "meta"})


def load_model(
    found: ModelFolder,
    *,
    dtype: str,
    device: str,
    trust: Trust,
    ignore: Sequence[str] = (),
    device_map: dict[str, str] | None = None,
) -> PreTrainedModel:
    """Load a causal language model for inference.

    Args:
        found: the model's folder.
        dtype: of its weights.
        device: where it computes.
        trust: what of it may run code.
        ignore: patterns of names of weights that may be left over.
        device_map: where each part of it is, `disk` included: accelerate fetches it for the moment that it computes.

    Raises:
        UserError: unknown architecture, weights that are missing, left over, corrupt, of another shape, or not finite.
    """
    model, _ = _from_files(found, trust, ignore, DTYPES[dtype], device_map)
    model = (model if device_map else model.to(device)).eval().requires_grad_(False)
    _require_finite(model, found)
    return model


def _from_files(
    found: ModelFolder,
    trust: Trust,
    ignore: Sequence[str],
    dtype: torch.dtype,
    device_map: dict[str, str] | None,
) -> tuple[PreTrainedModel, list[str]]:
    quiet_libraries()
    names = WeightNames.of(found, trust)
    given: dict[str, Any] = {"device_map": device_map, **found.file_options}
    if found.gguf is None:
        given["config"] = _whole_config(found, trust)
    elif hasattr(GgufConfig(), "dequantize"):
        given["quantization_config"] = GgufConfig(dequantize=True)
    with reading(f"{found.shown('weights')} cannot be loaded"), alone(found) as folder:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=trust.remote_code,
            use_safetensors=not trust.pickle or None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, which names them
            **given,
        )
    if found.gguf is not None:
        header = Header.of(found)
        report["unexpected_keys"] = {*report["unexpected_keys"], *header.not_taken(model)}
    return model, refuse_left_over(found, names, model, report, ignore)


def _require_finite(model: PreTrainedModel, found: ModelFolder) -> None:
    for place, module in model.named_modules():
        with align_module_device(module):  # fetches what waits off the device
            for name, weight in module.named_parameters(recurse=False):
                if not all_finite(weight):
                    raise UserError(
                        f"--model {found.name} ({found.revision}): weight {place}.{name} holds NaN or infinity."
                    )
