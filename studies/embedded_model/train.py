"""Train the embedded model from scratch: `python -m studies.embedded_model.train --out FOLDER [--workers 3]`.

Run it from a checkout, in an environment with the project's dependencies, then copy what it leaves in FOLDER
(`step*/`, `frequencies.npy`, `training_log.json`) next to this file. It took 48 minutes on a busy machine with four
cores. Every checkpoint is written as soon as it is reached. The result depends on the versions of the installed
dependencies, since their docstrings are the text (`text.py`), and, in the last bits, on the machine.
"""

import argparse
import hashlib
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import distributed, multiprocessing
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from rare_tokens.common.files import read_json, write_json
from rare_tokens.ingest.embedded import reference_documents
from studies.embedded_model.text import training_text

SEPARATOR = "<|endoftext|>"
TOKENIZER, TOKENS, LOG = "tokenizer.json", "training_tokens.npy", "training_log.json"
EVALUATION_WINDOW = 256
EVALUATION_WINDOWS = 100
EVALUATION_BATCH = 10
PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a training run besides its text."""

    vocabulary: int = 4096
    width: int = 160
    layers: int = 3
    heads: int = 5
    neurons: int = 512
    context: int = 272  # a begin token and 256 positions fit
    windows_per_step: int = 15
    checkpoints: tuple[int, ...] = (0, 6, 24, 96, 384, 1536, 6144)
    peak_learning_rate: float = 2e-3
    warmup_steps: int = 100
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    gradient_norm: float = 1.0
    autocast: str = "bfloat16"
    seed: int = 0

    @property
    def tokens_per_step(self) -> int:
        """Predicted tokens per optimiser step."""
        return self.windows_per_step * self.context

    def learning_rate(self, step: int) -> float:
        """Rate of step `step` (from 0): linear warm-up, then a cosine down to zero at the last step."""
        if step < self.warmup_steps:
            return self.peak_learning_rate * (step + 1) / self.warmup_steps
        share = (step - self.warmup_steps) / (self.checkpoints[-1] - self.warmup_steps)
        return self.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def train_tokenizer(documents: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocabulary` types, including the separator, which is also begin and end token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return with_separator(tokenizer)


def with_separator(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers uses it, with the separator as begin and end token."""
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SEPARATOR, eos_token=SEPARATOR)


def pack(tokenizer: PreTrainedTokenizerFast, documents: list[str]) -> np.ndarray:
    """Token ids of the documents in one row, with the separator after each: int64 (tokens,)."""
    encoded = tokenizer.backend_tokenizer.encode_batch(documents, add_special_tokens=False)
    separator = np.array([tokenizer.eos_token_id])
    return np.concatenate([piece for item in encoded for piece in (np.array(item.ids, dtype=np.int64), separator)])


def unigram_entropy(tokens: np.ndarray) -> float:
    """Entropy of a text's own unigram distribution, nats per token."""
    counts = np.unique(tokens, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def evaluation_windows(tokens: np.ndarray) -> torch.Tensor:
    """Evenly spaced windows of a text, one token more than they predict: int64 (windows, EVALUATION_WINDOW + 1)."""
    starts = np.linspace(0, len(tokens) - EVALUATION_WINDOW - 1, EVALUATION_WINDOWS).astype(int)
    return torch.stack([torch.from_numpy(tokens[start : start + EVALUATION_WINDOW + 1]) for start in starts])


@torch.no_grad()
def mean_loss(model: GPTNeoXForCausalLM, windows: torch.Tensor) -> float:
    """Mean cross-entropy over every predicted token of the windows, float32, nats."""
    losses = []
    for batch in windows.split(EVALUATION_BATCH):
        logits = model(batch[:, :-1], use_cache=False).logits
        losses.append(functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none"))
    return float(torch.cat(losses).double().mean())


def new_model(recipe: Recipe, separator: int) -> GPTNeoXForCausalLM:
    """The untrained model: GPT-NeoX with parallel residual, rotary on a quarter of each head, untied unembedding."""
    config = GPTNeoXConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.neurons,
        max_position_embeddings=recipe.context,
        hidden_act="gelu",
        use_parallel_residual=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        tie_word_embeddings=False,
        bos_token_id=separator,
        eos_token_id=separator,
    )
    torch.manual_seed(recipe.seed)
    return GPTNeoXForCausalLM(config)


def optimizer_of(model: GPTNeoXForCausalLM, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [item for item in parameters if item.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [item for item in parameters if item.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_learning_rate, betas=recipe.betas, fused=True)


class Batches:
    """Windows of the training tokens in a new random order, at a new offset, each time through."""

    def __init__(self, tokens: np.ndarray, recipe: Recipe) -> None:
        self.tokens = tokens
        self.recipe = recipe
        self.random = np.random.default_rng(recipe.seed)
        self.starts: list[int] = []

    def next(self) -> torch.Tensor:
        """One step's windows: int64 (windows_per_step, context + 1)."""
        length = self.recipe.context
        if len(self.starts) < self.recipe.windows_per_step:
            first = int(self.random.integers(length))
            self.starts = self.random.permutation(np.arange(first, len(self.tokens) - length, length)).tolist()
        taken = [self.starts.pop() for _ in range(self.recipe.windows_per_step)]
        return torch.stack([torch.from_numpy(self.tokens[start : start + length + 1]) for start in taken])


def train_step(
    model: torch.nn.Module, optimizer: torch.optim.AdamW, batch: torch.Tensor, rate: float, recipe: Recipe
) -> float:
    """Take one optimiser step at learning rate `rate`; return the batch's mean loss before it, nats."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", getattr(torch, recipe.autocast)):
        logits = model(batch[:, :-1], use_cache=False).logits
    loss = functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer's files, its vocabulary without indentation: every checkpoint carries a copy."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)


def save_checkpoint(model: GPTNeoXForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> GPTNeoXForCausalLM:
    """Write a complete float16 Hugging Face folder; return what it reads back as, in float32."""
    weights = {name: value.to(torch.float16) for name, value in model.state_dict().items()}
    half = GPTNeoXForCausalLM(model.config).to(torch.float16)
    half.load_state_dict(weights)
    half.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def prepare(recipe: Recipe, out: Path) -> None:
    """Collect the text, train the tokenizer, and write counts, packed tokens and the start of the log into `out`."""
    began = time.monotonic()
    reference = reference_documents()
    text = training_text(PYPROJECT, reference)
    order = np.random.default_rng(recipe.seed).permutation(len(text.documents))
    documents = [text.documents[index] for index in order]
    tokenizer = train_tokenizer(documents, recipe.vocabulary)
    tokenizer.backend_tokenizer.save(str(out / TOKENIZER))
    tokens, reference_tokens = pack(tokenizer, documents), pack(tokenizer, reference)
    np.save(out / TOKENS, tokens.astype(np.uint16))
    counts = np.bincount(tokens, minlength=recipe.vocabulary).astype(np.int64)
    np.save(out / "frequencies.npy", counts)
    log: dict[str, Any] = {
        "recipe": asdict(recipe) | {"tokens_per_step": recipe.tokens_per_step},
        "parameters": new_model(recipe, tokenizer.eos_token_id).num_parameters(),
        "training_text": text.facts()
        | {
            "tokens": len(tokens),
            # Some docstrings mention the separator, which is encoded as one there.
            "separators_within_documents": int(counts[tokenizer.eos_token_id]) - len(documents),
        },
        "reference_text": {
            "sha256": hashlib.sha256("\0".join(reference).encode()).hexdigest(),
            "documents": len(reference),
            "characters": sum(map(len, reference)),
            "tokens": len(reference_tokens),
            "unigram_entropy": unigram_entropy(reference_tokens),
        },
        "seconds_before_training": round(time.monotonic() - began, 1),
        "checkpoints": [],
    }
    write_json(out / LOG, log)


def train_worker(rank: int, workers: int, recipe: Recipe, out: Path) -> None:
    """One of `workers` processes that each take their share of every step's windows on one thread.

    Processes, not threads: on a shared machine, waiting for threads at every matrix product costs far more than
    exchanging gradients once per step. The first process writes checkpoints and log.
    """
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{out / 'rendezvous'}", rank=rank, world_size=workers)
    tokenizer = with_separator(Tokenizer.from_file(str(out / TOKENIZER)))
    model = new_model(recipe, tokenizer.eos_token_id)
    shared = DistributedDataParallel(model)
    optimizer = optimizer_of(model, recipe)
    tokens = np.load(out / TOKENS).astype(np.int64)
    batches = Batches(tokens, recipe)
    windows = {
        "train": evaluation_windows(tokens),
        "reference": evaluation_windows(pack(tokenizer, reference_documents())),
    }
    began, recent = time.monotonic(), math.log(recipe.vocabulary)
    for step in range(recipe.checkpoints[-1] + 1):
        if rank == 0 and step in recipe.checkpoints:
            saved = save_checkpoint(model, tokenizer, out / f"step{step}")
            losses = {f"{name}_loss": mean_loss(saved, part) for name, part in windows.items()}
            seen = {"step": step, "tokens": step * recipe.tokens_per_step, "seconds": round(time.monotonic() - began)}
            append_checkpoint(out / LOG, seen | losses)
        if step < recipe.checkpoints[-1]:
            batch = batches.next()[rank::workers]
            loss = train_step(shared, optimizer, batch, recipe.learning_rate(step), recipe)
            recent = 0.98 * recent + 0.02 * loss
            if rank == 0 and step % 50 == 0:
                print(f"step {step} loss {recent:.3f} seconds {time.monotonic() - began:.0f}", flush=True)
    distributed.destroy_process_group()


def append_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Add one checkpoint's figures to the training log."""
    log = read_json(path)
    log["checkpoints"].append(checkpoint)
    write_json(path, log)
    print(checkpoint, flush=True)


def main() -> None:
    """Read the command line, prepare the text, and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="new folder for the checkpoints, counts and log")
    parser.add_argument("--workers", type=int, default=3, help="processes of one thread each; divides the windows")
    arguments = parser.parse_args()
    recipe, out = Recipe(), arguments.out.resolve()
    if recipe.windows_per_step % arguments.workers:
        parser.error(f"--workers {arguments.workers} does not divide the {recipe.windows_per_step} windows of a step")
    out.mkdir(parents=True)
    prepare(recipe, out)
    multiprocessing.spawn(train_worker, (arguments.workers, recipe, out), nprocs=arguments.workers)


if __name__ == "__main__":
    main()
