"""What attention heads cost: a GPT-2 small with random weights, and novella, compared with a full hooked pass per head.

    python -m benchmarks.speed.attention [--windows 8] [--threads 4] [--quick]

Targets: the activations of all heads of two layers in at most 3 forward passes; the loss on a subsample of 4,096 of
25,088 positions. A forward pass is the whole model with its unembedding, over the same windows, with the attention that
ingest's own capture uses and in whichever batches are fastest. The parts take turns, so that temporary load affects all
of them. Results go to benchmarks/results/attention.json.
"""

import argparse
import copy
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from benchmarks import result
from rare_tokens.ingest.attention.cells import UnitCells
from rare_tokens.ingest.attention.edits import HEAD, LAYER, HeadEdits
from rare_tokens.ingest.attention.heads import AttentionLayer, eager, find_heads
from rare_tokens.ingest.attention.sums import UnitSums
from rare_tokens.ingest.model.structure import Structure, find_structure, hooked

RESULTS = result("attention")
NOVELLA = Path(os.environ.get("RARE_TOKENS_TEST_DATA", "../shared/data")) / "models" / "novella" / "step3979"
WINDOW, POSITIONS, SUBSAMPLE = 256, 25_088, 4_096
CELLS = 7  # per window
FORWARD_BATCHES = (1, 2, 4, 8)  # windows


def main() -> None:
    """Time every part, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=8, help="of 256 positions; times grow in proportion")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7, help="turns of each part; the fastest counts")
    parser.add_argument("--quick", action="store_true", help="one window, a small model; nothing is written")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    windows, repeats = (1, 1) if given.quick else (given.windows, given.repeats)
    found: dict[str, Any] = {
        "machine": f"{processor()}, {given.threads} of {os.cpu_count()} cores, torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f} at the start",
        "asked": "activations of all heads of two layers ≤ 3 forward passes; the loss on 4,096 of 25,088 positions",
    } | {name: measured(model, windows, repeats) for name, model in models(quick=given.quick)}
    text = json.dumps(found, indent=1, ensure_ascii=False)
    print(text)
    if not given.quick:
        RESULTS.write_text(text + "\n", encoding="utf-8")


def processor() -> str:
    """The processor's name, if the system gives it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.processor()} ({platform.machine()})"


def models(*, quick: bool) -> Iterator[tuple[str, PreTrainedModel]]:
    """GPT-2 small with random weights; novella's last step if the real inputs are there."""
    torch.manual_seed(0)
    shape = {"n_layer": 4, "n_embd": 192, "n_head": 6, "vocab_size": 8_192} if quick else {}
    yield "gpt2-small", GPT2LMHeadModel(GPT2Config(**shape)).eval().requires_grad_(False)
    if NOVELLA.is_dir() and not quick:
        yield "novella", AutoModelForCausalLM.from_pretrained(NOVELLA, dtype=torch.float32).eval().requires_grad_(False)


def measured(model: PreTrainedModel, windows: int, repeats: int) -> dict[str, Any]:
    """Seconds of every part, also in units of the model's forward pass."""
    tokens = np.random.default_rng(0).integers(0, model.config.vocab_size, (windows, WINDOW + 1))
    times, batch = timed_parts(model, find_structure(model), tokens, repeats)
    set_up = times.pop("set_up_once_a_run")
    passes = {name: round(seconds / times["forward_pass"], 2) for name, seconds in times.items()}
    heads = 2 * model.config.num_attention_heads
    whole_run = passes["all_activations"] + SUBSAMPLE / POSITIONS * (
        passes["all_with_loss"] - passes["all_activations"]
    )
    return {
        "model": {
            "layers": model.config.num_hidden_layers, "width": model.config.hidden_size, "heads_edited": heads,
        },
        "positions_timed": windows * WINDOW,
        "windows_of_a_forward_batch": batch,
        "set_up_once_a_run_seconds": round(set_up, 2),
        "processor_seconds": {name: round(seconds, 3) for name, seconds in times.items()},
        "forward_passes": passes,
        "forward_passes_of_a_run": {
            "activations_of_all_heads": passes["heads_activations"],
            "heads_layers_controls_summaries_and_the_loss_of_the_subsample": round(whole_run, 2),
            "one_full_hooked_pass_a_head": round(heads * passes["hooked_pass"], 1),
            "times_as_fast": round(heads * passes["hooked_pass"] / passes["heads_activations"], 1),
        },
    }  # fmt: skip


def timed_parts(
    model: PreTrainedModel, structure: Structure, tokens: np.ndarray, repeats: int
) -> tuple[dict[str, float], int]:
    """Processor seconds of each part over the same windows, and how many of them make the fastest forward batch."""
    inputs, windows = torch.from_numpy(tokens[:, :-1]), len(tokens)

    def forward(size: int) -> None:
        with torch.inference_mode():
            for batch in inputs.split(size):
                model(input_ids=batch, use_cache=False)

    with eager(model):
        layers = find_heads(model, structure)

    def hooked_pass() -> None:
        with hooked((layers[0].out_projection, "before", silence(layers[0]))):
            forward(fastest)

    sizes = [size for size in FORWARD_BATCHES if size <= windows]
    turns = [[timed(partial(forward, size)) for size in sizes] for _ in range(repeats)]
    fastest = sizes[int(np.argmin(np.min(turns, axis=0)))]
    start = time.process_time()
    edits = HeadEdits(model, structure, layers, predicted=WINDOW, patches=False)
    set_up = time.process_time() - start
    alone = copy.copy(edits)
    alone.edits = tuple(edit for edit in edits.edits if edit.kind in (HEAD, LAYER))
    parts: dict[str, Callable[[], None]] = {
        "forward_pass": partial(forward, fastest),
        "hooked_pass": hooked_pass,
        "heads_activations": partial(run_edits, alone, structure, tokens, loss=False, summaries=False),
        "heads_activations_and_summaries": partial(run_edits, alone, structure, tokens, loss=False, summaries=True),
        "all_activations": partial(run_edits, edits, structure, tokens, loss=False, summaries=True),
    }
    taken = [{name: timed(work) for name, work in parts.items()} for _ in range(repeats)]
    found = {"set_up_once_a_run": set_up} | {name: min(turn[name] for turn in taken) for name in parts}
    # With logits every edit passes the unembedding: one window is enough
    found["all_with_loss"] = (
        timed(partial(run_edits, edits, structure, tokens[:1], loss=True, summaries=True)) * windows
    )
    print(json.dumps(found), file=sys.stderr)
    return found, fastest


def run_edits(edits: HeadEdits, structure: Structure, tokens: np.ndarray, *, loss: bool, summaries: bool) -> None:
    """Record each window and run its edits; with `summaries` look at its attention and sum everything over cells."""
    cell_of = np.random.default_rng(0).integers(0, CELLS, (1, WINDOW))
    cells = UnitCells(np.arange(CELLS), np.bincount(cell_of[0], minlength=CELLS))
    for window in tokens:
        sums = UnitSums(edits, cells, structure.neurons, WINDOW)
        activations, weights = edits.record(window[None], loss=loss)
        if summaries:
            sums.add_clean(cell_of, activations, weights)
        for edited in edits.edited(loss=loss):
            if summaries:
                sums.add_edited(edited)


def silence(layer: AttentionLayer) -> Callable[..., Any]:
    """A hook that sets the first head's output to 0."""

    def hook(_module: Any, args: Any) -> Any:
        edited = args[0].clone()
        edited[..., : edited.shape[-1] // layer.heads] = 0
        return (edited, *args[1:])

    return hook


def timed(work: Callable[[], None]) -> float:
    """Processor seconds that a call takes, all threads: a busy machine changes them least."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
