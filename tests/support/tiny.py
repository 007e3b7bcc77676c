"""Tiny random models of each supported architecture, and a tokenizer to go with them, saved as a hub folder is."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 300
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
_GROUPED = _COMMON | {"num_key_value_heads": 2}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY, "n_embd": 32, "n_inner": 80, "n_layer": 2, "n_head": 4, "n_positions": 64,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip

SUPPORTED = {
    "gpt2": GPT2Config(**_GPT2),
    "gpt_neox": GPTNeoXConfig(**_COMMON),
    "gpt_neox_sequential": GPTNeoXConfig(**_COMMON, use_parallel_residual=False),
    "llama": LlamaConfig(**_GROUPED),
    "llama_tied": LlamaConfig(**_GROUPED, tie_word_embeddings=True),
    "mistral": MistralConfig(**_GROUPED),
    "qwen2": Qwen2Config(**_GROUPED),
    "qwen3": Qwen3Config(**_GROUPED, head_dim=8),
    "opt": OPTConfig(
        **{k: v for k, v in _COMMON.items() if k != "intermediate_size"}, ffn_dim=80, word_embed_proj_dim=32
    ),
    "gptj": GPTJConfig(**_GPT2, rotary_dim=4),
    "phi": PhiConfig(**_COMMON),
    "phi3": Phi3Config(**_GROUPED),
    "gpt_neo": GPTNeoConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=80, num_layers=2, num_heads=4, window_size=5,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
    ),
    "cohere": CohereConfig(**_GROUPED, logit_scale=4.0),  # its logits are scaled
    # A norm stands between their MLPs and the residual stream. Windows of attention are short, so that those of the
    # tests are longer.
    "gemma3": Gemma3TextConfig(**_GROUPED, head_dim=8, sliding_window=6),
    "olmo2": Olmo2Config(**_GROUPED),
    "olmo3": Olmo3Config(**_GROUPED, sliding_window=6),
}  # fmt: skip
# What lies between their last MLP and the loss is more than norms and a matrix.
DENSE = {
    "gemma2": Gemma2Config(**_GROUPED, head_dim=8, sliding_window=6, final_logit_softcapping=5.0),
    "granite": GraniteConfig(**_GROUPED, logits_scaling=0.25, residual_multiplier=0.5),
}
UNSUPPORTED = {
    "mixtral": MixtralConfig(**_GROUPED, num_local_experts=2),
    "opt_projected": OPTConfig(
        **{k: v for k, v in _COMMON.items() if k != "intermediate_size"},
        ffn_dim=80, word_embed_proj_dim=16, do_layer_norm_before=False,
    ),
}  # fmt: skip


def tiny_model(config: Any, seed: int = 0) -> PreTrainedModel:
    """A random model whose neurons matter: weights ten times larger than at initialisation."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        scale = 0.2 if weight.dim() == 2 else 0.1
        weight.data = torch.randn(weight.shape, generator=generator) * scale
        if weight.dim() == 1 and name.endswith("weight"):  # a norm's gain
            weight.data += 1
    model.tie_weights()
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of `VOCABULARY` types with one separator."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog ran to the house of the cat"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def save_folder(folder: Path, config: Any, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Save model and tokenizer as a complete Hugging Face folder."""
    tiny_model(config, seed).to(dtype).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_corpus(path: Path, documents: int = 60, seed: int = 0) -> Path:
    """A JSON-lines corpus of nonsense sentences, seeded."""
    generator = torch.Generator().manual_seed(seed)
    words = ["the", "cat", "dog", "house", "sat", "ran", "on", "to", "of", "and", "zebra", "quartz", "lynx", "onyx"]
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(documents):
            order = torch.randint(0, len(words), (40,), generator=generator).tolist()
            stream.write(json.dumps({"text": " ".join(words[index] for index in order)}) + "\n")
    return path
