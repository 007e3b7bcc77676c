"""Everything that needs a GPU, in one command of less than ten minutes: is it right there, and how fast?

    python -m benchmarks.speed.gpu [--smollm2 FILE.gguf] [--device cuda] [--small] [--out FILE]

1. *Parity*: every effect of every pair of ordinary and hostile heads, computed on the device, against its definition in
   float64 on the CPU.
2. *Ingests* of novella and SmolLM2 on the device and on the CPU: every fact of the one against the other's.
3. *Rows* as in `benchmarks.speed.ablation` for SmolLM2 and the shapes of GPT-2 small and XL.

Results go to `benchmarks/results/gpu.json` with the machine. It ends with 1 where something is out of tolerance, and
with 2 where there is no such device. `--device cpu --small` goes through all of it with the embedded model in a minute.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import result
from benchmarks.layers.layers import RealModel, c4_sample, captured, fetched
from benchmarks.layers.synthetic import Pattern
from benchmarks.methods.forward import SHAPES, Shape
from benchmarks.speed.ablation import measure
from benchmarks.speed.facts import compared, parity
from benchmarks.speed.ingested import ingested
from benchmarks.speed.machine import machine
from rare_tokens.ingest.embedded import MODEL_FOLDER, REVISIONS, reference_documents

AGREE = 2.0  # tolerances between two devices: each is within one of float64 on what it captured itself
ROWS = ("ours", "forward", "published")


@dataclass(frozen=True)
class Ingest:
    """A model to ingest on both devices."""

    model: Path
    corpus: str
    positions: int


@dataclass(frozen=True)
class Plan:
    """What is done: with real models and shapes, or small enough for a test."""

    ingests: dict[str, Ingest]
    window: int
    real: str  # the model, one of those, whose captured layer has a row of its own and makes the other shapes
    text: Sequence[str]
    captured: int  # positions of it
    shapes: dict[str, tuple[Shape, int]] = field(default_factory=dict)  # and positions
    seconds: float = 10.0  # for `published`


def full(data: Path, smollm2: Path) -> Plan:
    """Novella and SmolLM2; GPT-2's shapes."""
    c4 = str(data / "corpora" / "c4-sample")
    ingests = {
        "novella": Ingest(data / "models" / "novella" / "step3979", c4, 2048),
        "smollm2": Ingest(smollm2, c4, 1024),
    }
    shapes = {name: (SHAPES[name], positions) for name, positions in (("gpt2-small", 4096), ("gpt2-xl", 2048))}
    return Plan(ingests, 256, "smollm2", c4_sample(data), 4096, shapes)


def small() -> Plan:
    """The embedded model and one small shape."""
    embedded = MODEL_FOLDER / REVISIONS[-1]
    shapes = {"tiny": (Shape(3000, 96, 384, 2, 4, "gpt2"), 64)}
    ingests = {"embedded": Ingest(embedded, "builtin", 64)}
    return Plan(ingests, 32, "embedded", reference_documents(), 256, shapes, 0.2)


def run(plan: Plan, device: str) -> dict[str, Any]:
    """Do all of it; ``wrong`` names what is out of tolerance."""
    start = time.perf_counter()
    torch.set_float32_matmul_precision("highest")
    found: dict[str, Any] = {"machine": machine(device), "device": device, "ingests": [], "rows": []}
    real = captured(plan.ingests[plan.real].model, plan.text, plan.captured, device)
    pattern = Pattern.of(real.layer)
    found["parity"] = parity(pattern, device)
    for name, one in plan.ingests.items():
        there, here = (
            ingested(one.model, one.corpus, one.positions, window=plan.window, device=place)
            for place in (device, "cpu")
        )
        stages = {"device_seconds": there.stage_seconds, "cpu_seconds": here.stage_seconds}
        found["ingests"].append({"model": name, **compared(there, here), **stages})
        print(json.dumps(found["ingests"][-1]), flush=True)
    layers = {plan.real: (real.layer, _shape(real), real.model)}
    for name, (shape, positions) in plan.shapes.items():
        layers[name] = (pattern.shaped(shape.vocabulary, shape.width, shape.neurons, positions), shape, None)
    for name, (layer, shape, model) in layers.items():
        found["rows"] += measure(name, layer, shape, device, plan.seconds, model, ROWS)
    found["seconds"] = time.perf_counter() - start
    found["wrong"] = wrong(found)
    return found


def wrong(found: dict[str, Any]) -> list[str]:
    """What is out of tolerance, in words."""
    named = [(f"{row['head']}, {row['effect']}", row["worst_over_tolerance"], 1.0) for row in found["parity"]]
    named += [(f"facts of {row['model']}", row["worst_over_tolerance"], AGREE) for row in found["ingests"]]
    named += [(f"self-check of {row['model']}", row["self_check"], 1.0) for row in found["ingests"]]
    ours = [row for row in found["rows"] if row["method"] == "ours"]
    named += [(f"losses of {row['shape']}", row["worst_over_tolerance"], 1.0) for row in ours]
    return [f"{name}: {worst:.3g} tolerances, not {most:g}" for name, worst, most in named if not worst <= most]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, print and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 …; cpu to try the command out")
    parser.add_argument("--small", action="store_true", help="the embedded model and small shapes")
    parser.add_argument("--smollm2", type=Path, help="its GGUF file or folder; else it is fetched")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RARE_TOKENS_TEST_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, default=result("gpu"))
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("No CUDA device is available here; run this on a machine that has one.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        plan = small() if options.small else full(options.data, options.smollm2 or fetched(Path(folder)))
        found = run(plan, options.device)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{found['seconds']:.0f} s; {'; '.join(found['wrong']) or 'everything is within tolerance'}")
    return 1 if found["wrong"] else 0


def _shape(real: RealModel) -> Shape:
    """A real model's shape, as far as its own forward pass needs it."""
    config = real.model.config
    V, d = real.layer.head.unembedding.shape
    heads, family = config.num_attention_heads, "llama" if config.model_type == "llama" else "gpt_neox"
    groups = getattr(config, "num_key_value_heads", None)
    return Shape(V, d, len(real.layer.w_out), config.num_hidden_layers, heads, family, groups)


if __name__ == "__main__":
    sys.exit(main())
