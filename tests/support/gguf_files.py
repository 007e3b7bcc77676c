"""Small GGUF files, written by the format's own package, and the same model as a folder."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.model.load import load_model
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.tokenizer import load_tokenizer
from tests.support.tiny import SUPPORTED, tiny_model, tiny_tokenizer

# A row of the quantised tensors is a multiple of 32 values.
CONFIG = SUPPORTED["llama"].__class__(
    **{**SUPPORTED["llama"].to_dict(), "hidden_size": 64, "intermediate_size": 96, "head_dim": 16,
       "num_attention_heads": 4, "num_key_value_heads": 4},
)  # fmt: skip
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def gguf_model(seed: int = 0) -> PreTrainedModel:
    """The model that `write_gguf` writes, before its weights are quantised."""
    return tiny_model(CONFIG, seed)


def write_gguf(
    path: Path,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
    settings: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    pre: str | None = "gpt-2",
) -> Path:
    """A model of Llama's layout in one file; `settings` and `tensors` are added to what it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_head_count(CONFIG.num_attention_heads)
    writer.add_head_count_kv(CONFIG.num_key_value_heads)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_dimension_count(CONFIG.head_dim)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(CONFIG.vocab_size)
    for name, value in (settings or {}).items():
        {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)](name, value)
    _add_tokenizer(writer, pre)
    for name, value in _tensors(gguf_model()).items():
        is_matrix = value.ndim == 2 and kind != gguf.GGMLQuantizationType.F32
        data = gguf.quantize(value, kind) if is_matrix else value
        writer.add_tensor(name, data, raw_dtype=kind if is_matrix else None)
    for name, value in (tensors or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def save_as_folder(path: Path, folder: Path) -> Path:
    """The model of a GGUF file, unpacked, as a folder in Hugging Face's layout."""
    found = locate(str(path), None, Trust())
    load_model(found, dtype="float32", device="cpu", trust=Trust()).save_pretrained(folder)
    load_tokenizer(found, Trust()).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _add_tokenizer(writer: gguf.GGUFWriter, pre: str | None) -> None:
    backend = tiny_tokenizer().backend_tokenizer
    vocabulary = sorted(backend.get_vocab(), key=backend.get_vocab().__getitem__)
    vocabulary += [f"<unused{number}>" for number in range(CONFIG.vocab_size - len(vocabulary))]
    merges = json.loads(backend.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3, *[1] * (len(vocabulary) - 1)])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)


def _tensors(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Weights by GGUF's names; queries' and keys' rows stand in pairs, as llama.cpp rotates them."""
    found = {}
    for name, weight in model.state_dict().items():
        place, _, suffix = name.rpartition(".")
        if place.startswith("model.layers."):
            _, _, number, part = place.split(".", 3)
            place = f"blk.{number}.{NAMES[part]}"
            heads = {"self_attn.q_proj": CONFIG.num_attention_heads, "self_attn.k_proj": CONFIG.num_key_value_heads}
            if part in heads:
                weight = _in_pairs(weight, heads[part])
        else:
            place = NAMES[place]
        found[f"{place}.{suffix}"] = weight.contiguous().float().numpy()
    return found


def _in_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)
