"""Whether the memory that `ingest --dry-run` predicts is what the ingest takes.

    python -m benchmarks.memory.peaks [--shapes gpt2-small …] [--threads 4] [--folder DIR]

A model of each shape, with random weights and few layers, is ingested in a process of its own, which is watched every
10 ms: its own pages (`RssAnon`), not those of mapped files, which the system takes back at will. This is compared with
the dry run's prediction. Linux only. Results go to benchmarks/results/peaks.json, shape by shape.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import ROOT, result
from benchmarks.warehouse.growth_report import between, table
from benchmarks.warehouse.synthetic_runs import machine
from rare_tokens.ingest.embedded import MODEL_FOLDER, REVISIONS

RESULTS = result("peaks")
PAGE = ROOT / "docs" / "memory.md"
BEGIN = "<!-- made by benchmarks/memory/peaks.py -->"
COMMAND = [sys.executable, str(ROOT / "cli.py"), "ingest", "--corpus", "builtin"]
INTERVAL = 0.01  # seconds between looks


@dataclass(frozen=True)
class Case:
    """A model with random weights and a run of it."""

    positions: int  # T
    neurons: int  # N
    width: int  # d
    vocabulary: int  # V
    layers: int = 2
    window: int = 256
    file: str = "float32"
    dtype: str = "float32"
    offload: str = "auto"
    gated: bool = True


CASES = {
    "small": Case(4_096, 512, 256, 8_192),
    "many positions": Case(65_536, 1_024, 256, 8_192),
    "gpt2-small": Case(4_096, 3_072, 768, 50_257, gated=False),
    "gpt2-small from bfloat16": Case(4_096, 3_072, 768, 50_257, layers=12, file="bfloat16", gated=False),
    "the same, off-loaded": Case(4_096, 3_072, 768, 50_257, 12, file="bfloat16", offload="always", gated=False),
    "llama-3.2-1b": Case(512, 8_192, 2_048, 128_256, file="bfloat16", dtype="bfloat16"),
    "llama-3.2-1b in float32": Case(512, 8_192, 2_048, 128_256, file="bfloat16"),
    "llama-3-8b": Case(256, 14_336, 4_096, 128_256, file="bfloat16", dtype="bfloat16"),
    "largest": Case(256, 14_336, 3_584, 256_000, layers=1, file="bfloat16", dtype="bfloat16"),
}


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--folder", type=Path, help="where to work [default: the system's temporary folder]")
    given = parser.parse_args()
    found = machine(given.threads) | {"shapes": {}}
    if RESULTS.exists():
        found["shapes"] = json.loads(RESULTS.read_text())["shapes"]
    for name in given.shapes:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            found["shapes"][name] = row = measured(Path(folder), CASES[name], given.threads)
        print(name, json.dumps(row))
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(page(found["shapes"]), encoding="utf-8")


def page(shapes: dict[str, dict[str, Any]]) -> str:
    """docs/memory.md with the table of these results."""
    head = ["shape", "T", "N", "d", "V", "weights in file → run", "said, GB", "measured, GB", "said ÷ measured"]
    rows = [
        [name, *(f"{row[size]:,}" for size in ("positions", "neurons", "width", "vocabulary")),
         f"{row['file']} → {row['dtype']}", f"{row['said_gb']:.2f}", f"{row['measured_gb']:.2f}",
         f"{row['said_over_measured']:.2f}"]
        for name, row in shapes.items()
    ]  # fmt: skip
    return between(PAGE.read_text(encoding="utf-8"), BEGIN, table(head, rows))


def measured(folder: Path, case: Case, threads: int) -> dict[str, Any]:
    """What the dry run predicts for a shape, and what the ingest takes."""
    make_model(folder / "model", case)
    options = {
        "--model": folder / "model", "--tokens": case.positions, "--window": case.window, "--dtype": case.dtype,
        "--offload": case.offload, "--warehouse": folder / "w.duckdb",
    }  # fmt: skip
    command = [*COMMAND, *(str(part) for pair in options.items() for part in pair)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    dry = subprocess.run([*command, "--dry-run", "--json"], env=environment, check=True, capture_output=True, text=True)
    (said,) = json.loads(dry.stdout)
    start = time.perf_counter()
    with subprocess.Popen([*command, "--quiet"], env=environment, stdout=subprocess.DEVNULL) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, own_pages(process.pid))
            time.sleep(INTERVAL)
    if process.returncode:
        raise SystemExit(f"the ingest of {case} ended with {process.returncode}")
    return asdict(case) | {
        "said_gb": round(said["memory_bytes"] / 1e9, 2),
        "measured_gb": round(peak / 1e9, 2),
        "said_over_measured": round(said["memory_bytes"] / peak, 2),
        "seconds": round(time.perf_counter() - start, 1),
    }


def own_pages(process: int) -> int:
    """Bytes of a process's own pages now; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def make_model(folder: Path, case: Case) -> None:
    """A model with random weights and the embedded model's tokenizer, which has fewer tokens than the model rows."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads = max(1, case.width // 64)
    torch.set_default_dtype(getattr(torch, case.file))
    model: Any
    if case.gated:
        config = LlamaConfig(
            vocab_size=case.vocabulary, hidden_size=case.width, intermediate_size=case.neurons,
            num_hidden_layers=case.layers, num_attention_heads=heads, num_key_value_heads=heads,
            tie_word_embeddings=False,
        )  # fmt: skip
        model = LlamaForCausalLM(config)
    else:
        sizes = {"n_embd": case.width, "n_inner": case.neurons, "n_layer": case.layers, "n_head": heads}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=case.vocabulary, **sizes))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    for file in (MODEL_FOLDER / REVISIONS[-1]).glob("tokenizer*"):
        shutil.copy(file, folder)


if __name__ == "__main__":
    main()
