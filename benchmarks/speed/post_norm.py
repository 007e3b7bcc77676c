"""What ablation costs where a norm follows the MLP: Gemma 3's and OLMo 2's layouts, by each path of `ingest`.

    python -m benchmarks.speed.post_norm [--positions 1024] [--threads 2] [--layouts gemma3 olmo2 llama]

Beside them stands Llama's layout of the same size, which has no such norm. The models have SmolLM2's vocabulary, width
and neurons, two layers and random weights. The dense path is timed on one window and scaled to a position's N edits.
The ablation by moments is timed by a whole ingest, if `ingest` takes it for such a model; if not, the row says why.
Results go to `benchmarks/results/post_norm.json` with the machine.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
)

from benchmarks import result
from benchmarks.speed.ingested import ingested
from benchmarks.speed.machine import machine
from rare_tokens.ingest.dense.ablation import DenseAblation
from rare_tokens.ingest.embedded import MODEL_FOLDER, REVISIONS
from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.model.load import load_model
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.structure import find_structure
from rare_tokens.ingest.model.tokenizer import load_tokenizer

LAYOUTS = ("gemma3", "olmo2", "llama")
SIZE = {"vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1536}  # SmolLM2's
_HEADS = {"num_hidden_layers": 2, "num_attention_heads": 9, "num_key_value_heads": 3}
WINDOW = 256
DENSE_WINDOW = 8  # positions that the dense path is timed on


def save_model(layout: str, size: dict[str, int], folder: Path) -> Path:
    """A model of a layout with random weights, and the embedded model's tokenizer, as a folder."""
    torch.manual_seed(0)
    model: PreTrainedModel
    shape = {**_HEADS, **size, "initializer_range": 0.05}
    if layout == "gemma3":
        model = Gemma3ForCausalLM(Gemma3TextConfig(**shape, head_dim=64))
    elif layout == "olmo2":
        model = Olmo2ForCausalLM(Olmo2Config(**shape))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    for name, weight in model.named_parameters():
        if "norm" in name:  # gains of their own, as trained norms have; Gemma's are 1 + weight
            torch.nn.init.normal_(weight, mean=0.0 if layout == "gemma3" else 1.0, std=0.2)
    model.save_pretrained(folder)
    load_tokenizer(locate(str(MODEL_FOLDER / REVISIONS[-1]), None, Trust()), Trust()).save_pretrained(folder)
    return folder


def dense_seconds(folder: Path, positions: int = DENSE_WINDOW) -> float:
    """Seconds of the dense path for all N neurons at one position of the last layer, timed on a few positions."""
    model = load_model(locate(str(folder), None, Trust()), dtype="float32", device="cpu", trust=Trust())
    structure = find_structure(model)
    dense = DenseAblation(model, structure, torch.zeros(structure.neurons))
    tokens = np.arange(positions + 1, dtype=np.int64) * 7 + 3
    return dense.seconds_per_row(tokens) * structure.neurons


def measured(layout: str, size: dict[str, int], positions: int, window: int = WINDOW) -> dict[str, Any]:
    """Seconds per position by each path; None and the reason where `ingest` has no fast path for the layout."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_model(layout, size, Path(scratch))
        slow = dense_seconds(folder)
        row: dict[str, Any] = {"layout": layout, **size, "dense_seconds_per_position": slow}
        row |= {"dense_timed_on_positions": DENSE_WINDOW, "fast_seconds_per_position": None}
        model = load_model(locate(str(folder), None, Trust()), dtype="float32", device="cpu", trust=Trust())
        if between := find_structure(model).between:
            return row | {"no_fast_path": "; ".join(between)}
        found = ingested(folder, "builtin", positions, window=window)
    fast = found.stage_seconds["effects"] / positions
    row |= {"fast_seconds_per_position": fast, "fast_timed_on_positions": positions, "self_check": found.check}
    return row | {"dense_over_fast": slow / fast}


def said(row: dict[str, Any]) -> str:
    """A row in words."""
    slow = f"{row['layout']}: dense path {row['dense_seconds_per_position'] * 1e3:,.1f} ms a position"
    if row["fast_seconds_per_position"] is None:
        return f"{slow}; `ingest` takes only this one: {row['no_fast_path']}"
    fast = f"by moments {row['fast_seconds_per_position'] * 1e3:,.1f} ms"
    return f"{slow}, {fast}: {row['dense_over_fast']:,.0f} times as fast"


def main() -> None:
    """Measure, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=LAYOUTS)
    parser.add_argument("--positions", type=int, default=1024, help="of the fast path's ingest")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=result("post_norm"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {"machine": machine("cpu"), "threads": options.threads, "rows": []}
    for layout in options.layouts:
        found["rows"].append(measured(layout, SIZE, options.positions))
        print(said(found["rows"][-1]), flush=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
