"""What the ablation is compared with: a plain forward pass, and one hooked forward pass per neuron."""

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks.layers.layers import WINDOW
from benchmarks.speed.machine import timed

_LARGEST_MODEL = 7e9  # bytes: a larger one is timed as one block x blocks + embedding + head


@dataclass(frozen=True)
class Shape:
    """A model, described as far as its cost depends on it."""

    vocabulary: int
    width: int
    neurons: int
    layers: int
    heads: int
    family: str
    key_value_heads: int | None = None  # None: as many as heads


SHAPES = {
    "smollm2": Shape(49152, 576, 1536, 30, 9, "llama", 3),
    "novella": Shape(8192, 256, 1024, 4, 8, "gpt_neox"),
    "gpt2-small": Shape(50257, 768, 3072, 12, 12, "gpt2"),
    "gpt2-medium": Shape(50257, 1024, 4096, 24, 16, "gpt2"),
    "gpt2-large": Shape(50257, 1280, 5120, 36, 20, "gpt2"),
    "gpt2-xl": Shape(50257, 1600, 6400, 48, 25, "gpt2"),
    "pythia-70m": Shape(50304, 512, 2048, 6, 8, "gpt_neox"),
    "pythia-410m": Shape(50304, 1024, 4096, 24, 16, "gpt_neox"),
    "pythia-2.8b": Shape(50304, 2560, 10240, 32, 32, "gpt_neox"),
    "llama-3-8b": Shape(128256, 4096, 14336, 32, 32, "llama", 8),
}


def parameters(shape: Shape) -> tuple[int, int]:
    """Weights that each position is multiplied with, in the blocks and in the head."""
    gated = shape.family == "llama"
    attention = (2 + 2 * (shape.key_value_heads or shape.heads) / shape.heads) * shape.width**2
    return int(shape.layers * (attention + (3 if gated else 2) * shape.width * shape.neurons)), (
        shape.vocabulary * shape.width
    )


def fits(shape: Shape) -> bool:
    """Whether the whole model is timed."""
    blocks, head = parameters(shape)
    return 4.0 * (blocks + 2 * head) < _LARGEST_MODEL


def model_of(shape: Shape, layers: int, device: str = "cpu") -> Any:
    """A model of a shape with random weights and so many layers, drawn on the device that computes."""
    with torch.device(device):
        return _model_of(shape, layers)


def _model_of(shape: Shape, layers: int) -> Any:
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    if shape.family == "gpt2":
        config = GPT2Config(n_layer=layers, n_embd=shape.width, n_head=shape.heads, vocab_size=shape.vocabulary)
        return GPT2LMHeadModel(config).eval()
    common = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "num_hidden_layers": layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.neurons,
    }
    if shape.family == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**common)).eval()
    return LlamaForCausalLM(LlamaConfig(**common, num_key_value_heads=shape.key_value_heads)).eval()


def forward(shape: Shape, device: str, positions: int, real: PreTrainedModel | None = None) -> dict[str, Any]:
    """One plain forward pass with logits over windows of 256, best of three batch sizes.

    It is the `real` model's own where there is one, else that of random weights.
    """

    def seconds_a_position(layers: int, batches: tuple[int, ...]) -> tuple[float, float, int]:
        model = (model_of(shape, layers, device) if real is None else real).to(device)
        best = (float("inf"), float("inf"), 0)
        with torch.inference_mode():
            for batch in batches:
                tokens = torch.randint(shape.vocabulary, (batch, WINDOW), device=device)
                model(tokens)
                for _ in range(3):
                    cpu = time.process_time()
                    seconds, _ = timed(partial(model, tokens), device)
                    cpu = time.process_time() - cpu
                    best = min(best, (seconds / batch / WINDOW, cpu / batch / WINDOW, batch))
        return best

    whole = real is not None or fits(shape)
    if whole:
        each, cpu, batch = seconds_a_position(shape.layers, (1, 2, 4))
    else:
        one, one_cpu, batch = seconds_a_position(1, (1, 2, 4))
        two, two_cpu, _ = seconds_a_position(2, (batch,))
        each = one + (two - one) * (shape.layers - 1)
        cpu = one_cpu + (two_cpu - one_cpu) * (shape.layers - 1)
    blocks, head = parameters(shape)
    return {
        "seconds": each * positions,
        "cpu_seconds": cpu * positions,
        "extrapolated": True,
        "gflops": 2 * (blocks + head) / each / 1e9,
        "batch": batch,
        "composed_of_blocks": not whole,
        "weights": "random" if real is None else "trained",
    }


def hooked(shape: Shape, device: str, positions: int, seconds_allowed: float) -> dict[str, Any] | None:
    """One transformer_lens forward pass per neuron, its activation replaced at every position; None if unsupported.

    Timed on a few neurons over one window and scaled to all neurons and positions. The library is the extra `bench`;
    without it there is no such row.
    """
    if not fits(shape) or shape.family == "llama" or find_spec("transformer_lens") is None:
        return None
    from transformer_lens.model_bridge import TransformerBridge  # type: ignore[import-not-found]

    bare = model_of(shape, shape.layers)
    bare.config.architectures = [type(bare).__name__]
    model = TransformerBridge.boot_transformers("random", hf_model=bare, tokenizer=_any_tokenizer(), device=device)
    tokens = torch.randint(shape.vocabulary, (1, WINDOW), device=device)
    name = f"blocks.{shape.layers - 1}.mlp.hook_post"
    spent, cpu, done = 0.0, 0.0, 0
    with torch.inference_mode():
        model(tokens, return_type="loss", loss_per_token=True)
        while spent < seconds_allowed and done < 64:

            def replace(value: torch.Tensor, hook: Any, neuron: int = done) -> torch.Tensor:  # noqa: ARG001
                edited = value.clone()
                edited[..., neuron] = 0.1
                return edited

            def once(edit: Any = replace) -> torch.Tensor:
                return model.run_with_hooks(tokens, return_type="loss", loss_per_token=True, fwd_hooks=[(name, edit)])

            before = time.process_time()
            seconds, _ = timed(once, device)
            spent, cpu, done = spent + seconds, cpu + time.process_time() - before, done + 1
    scale = shape.neurons / done * positions / WINDOW
    blocks, head = parameters(shape)
    return {
        "seconds": spent * scale,
        "cpu_seconds": cpu * scale,
        "extrapolated": True,
        "gflops": 2.0 * (blocks + head) * WINDOW * done / spent / 1e9,
        "measured_neurons": done,
        "measured_positions": WINDOW,
    }


def _any_tokenizer() -> PreTrainedTokenizerBase:
    """The library wants a tokenizer that can be loaded again; the benchmark draws token ids."""
    with tempfile.TemporaryDirectory() as folder:
        words = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
        PreTrainedTokenizerFast(tokenizer_object=words, bos_token="a", eos_token="a").save_pretrained(folder)
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, add_bos_token=True)
        found.init_kwargs["add_bos_token"] = True
    return found
