"""Tiny configurations of many of the library's decoders, and what must become of each."""

from typing import Any

from transformers import CONFIG_MAPPING

from tests.support.tiny import VOCABULARY

# Sizes by the names that configurations have for them; one takes those that it has.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 8,
    "n_embd": 32, "n_inner": 80, "n_layer": 2, "n_head": 4, "n_positions": 64, "d_model": 32, "n_layers": 2,
    "n_heads": 4, "ffn_dim": 80, "word_embed_proj_dim": 32, "num_layers": 2, "num_heads": 4, "ffn_hidden_size": 80,
    "max_seq_len": 64, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 80, "embedding_size": 32,
    "rotary_dim": 4, "sliding_window": 6, "moe_intermediate_size": 16, "num_experts": 4, "num_local_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "v_head_dim": 8, "state_size": 8, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY, "feed_forward_hidden_size": 80,
    "dff": 80, "lru_width": 32, "shared_expert_intermediate_size": 16, "shared_intermediate_size": 16,
}  # fmt: skip
EXTRA: dict[str, dict[str, Any]] = {
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 5},
}

PUBLISHED = (
    "apertus", "arcee", "biogpt", "bitnet", "bloom", "codegen", "cohere", "cohere2", "cwm", "diffllama", "doge",
    "ernie4_5", "exaone4", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2",
    "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_neox_japanese", "gptj", "granite", "helium", "hunyuan_v1_dense",
    "lfm2", "llama", "ministral", "ministral3", "mistral", "modernbert-decoder", "mpt", "nanochat", "nemotron",
    "nemotron_h", "olmo", "olmo2", "olmo3", "openai-gpt", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen3",
    "recurrent_gemma", "seed_oss", "smollm3", "stablelm", "starcoder2", "vaultgemma", "xglm", "falcon_h1",
)  # fmt: skip
EXPERTS = (
    "afmoe", "aria_text", "cohere2_moe", "deepseek_v2", "ernie4_5_moe", "flex_olmo", "glm4_moe", "gpt_oss",
    "granitemoe", "granitemoeshared", "hunyuan_v1_moe", "jamba", "jetmoe", "llama4_text", "minimax", "mixtral",
    "olmoe", "phimoe", "qwen2_moe", "qwen3_moe", "qwen3_next", "solar_open",
)  # fmt: skip
OTHERS = {  # what is said of them
    "bert": "no MLP with an output projection was found",
    "falcon_mamba": "no MLP with an output projection was found",
    "mamba": "no MLP with an output projection was found",
    "roberta": "no MLP with an output projection was found",
    "rwkv": "no MLP with an output projection was found",
    "xlnet": "its predictions read the tokens after them",
    "xlstm": "MLPs were found in the block",
}


def tiny_config(kind: str) -> Any:
    """A configuration of one kind with two layers and 32 dimensions."""
    make = CONFIG_MAPPING[kind]
    default = make().to_dict()
    sizes = {name: size for name, size in SIZES.items() if name in default}
    if default.get("layer_types"):
        sizes["layer_types"] = [default["layer_types"][0], default["layer_types"][-1]]
    return make(**sizes | EXTRA.get(kind, {}))
