"""What ablating every neuron costs, beside published code's way and one plain forward pass.

    python -m benchmarks.ablation [--shapes gpt2-small novella …] [--threads 4] [--positions 4096] [--out FILE]

Synthetic layers take their scale from `novella`'s last step (`benchmarks.layers`); the match is printed. Seconds are
for all T x N pairs (`forward`: T positions); methods that are too slow are timed on fewer and scaled linearly, and
marked `extrapolated`; `cpu_seconds` are the process's own, less touched by what else the machine does. Errors are
against the definition in float64: half uniform pairs, half those of largest |Δ|.
"""

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.layers import Layer, captured, synthetic
from ingest.ablation import RELATIVE_TOLERANCE, Ablation, low_precision, reference_effects

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Shape:
    """A model as far as its cost goes."""

    vocabulary: int
    width: int
    neurons: int
    layers: int
    heads: int
    family: str


SHAPES = {
    "gpt2-small": Shape(50257, 768, 3072, 12, 12, "gpt2"),
    "gpt2-medium": Shape(50257, 1024, 4096, 24, 16, "gpt2"),
    "gpt2-large": Shape(50257, 1280, 5120, 36, 20, "gpt2"),
    "gpt2-xl": Shape(50257, 1600, 6400, 48, 25, "gpt2"),
    "pythia-70m": Shape(50304, 512, 2048, 6, 8, "gpt_neox"),
    "pythia-410m": Shape(50304, 1024, 4096, 24, 16, "gpt_neox"),
    "pythia-2.8b": Shape(50304, 2560, 10240, 32, 32, "gpt_neox"),
    "llama-3-8b": Shape(128256, 4096, 14336, 32, 32, "llama"),
    "novella": Shape(8192, 256, 1024, 4, 8, "gpt_neox"),
}


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of one call, the device's work included, and what it returned."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def ours(layer: Layer, device: str, positions: int) -> dict[str, Any]:
    """The project's own way, construction included, over the first positions."""
    T, N = positions, len(layer.w_out)
    reference = layer.activations.mean(0)
    before = peak_bytes(device)

    def run() -> tuple[Ablation, list[Any], int]:
        ablation = Ablation(layer.head, layer.w_out, reference, sample=layer.residual[-256:], device=device)
        step = ablation.preferred_positions(T)
        parts = [
            ablation.block(layer.residual[k : k + step], layer.activations[k : k + step], layer.targets[k : k + step])
            for k in range(0, T, step)
        ]
        return ablation, parts, step

    cpu = time.process_time()
    seconds, (ablation, parts, step) = timed(run, device)
    cpu = time.process_time() - cpu
    found = torch.cat([part.delta_loss for part in parts]).cpu()
    pairs = T * N
    V, d = layer.head.unembedding.shape
    products = 2 * T * V * (4 * d + N * (3 + ablation.folded.common / V)) + 2.0 * V * d * N * len(parts)
    row = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_bytes": peak_bytes(device) - before,
        "gflops": products / seconds / 1e9,
        "exact_share": sum(part.exact_pairs for part in parts) / pairs,
        "order2_share": sum(part.order2_pairs for part in parts) / pairs,
        "order3_share": sum(part.order3_pairs for part in parts) / pairs,
        "position_block": step,
    }
    return {**row, **errors(layer, reference, found)}


def errors(layer: Layer, reference: Tensor, found: Tensor, count: int = 1500) -> dict[str, float]:
    """Largest error, and largest error over tolerance, of `count` pairs: uniform ones and those of largest |Δ|."""
    T, N = found.shape
    generator = torch.Generator().manual_seed(0)
    flat = torch.cat(
        [
            torch.randint(T * N, (count // 2,), generator=generator),
            found.abs().flatten().topk(count // 2).indices,
        ]
    )
    pairs = torch.stack([flat // N, flat % N], 1)
    truth = reference_effects(
        layer.head, layer.w_out, reference, layer.residual, layer.activations, layer.targets, pairs
    )["loss"]
    error = (found.flatten()[flat].double() - truth).abs()
    worst = (error / (TOLERANCE + RELATIVE_TOLERANCE * truth.abs())).max()
    return {"max_error": float(error.max()), "worst_over_tolerance": float(worst), "checked_pairs": len(flat)}


def published(layer: Layer, device: str, seconds_allowed: float) -> dict[str, Any]:
    """Published code's way: each edited residual through norm, unembedding and log-softmax, a chunk at a time."""
    head = layer.head
    W_U, x, n = (value.to(device) for value in (head.unembedding, layer.residual, layer.activations))
    w, y, gain = layer.w_out.to(device), layer.targets.to(device), head.gain.to(device)
    reference = n.mean(0)
    b = torch.zeros(len(W_U), device=device) if head.logit_bias is None else head.logit_bias.to(device)
    if head.norm_bias is not None:
        b = b + W_U @ head.norm_bias.to(device)

    def normed(rows: Tensor) -> Tensor:
        if head.norm == "layer":
            rows = rows - rows.mean(1, keepdim=True)
        return rows / (rows.square().mean(1, keepdim=True) + head.eps).sqrt() * gain

    def chunk(t: int, start: int, size: int) -> Tensor:
        edited = (
            x[t] + (reference[start : start + size] - n[t, start : start + size])[:, None] * w[start : start + size]
        )
        return -torch.log_softmax(normed(edited) @ W_U.T + b, -1)[:, y[t]]

    def base(t: int) -> Tensor:
        return -torch.log_softmax(normed(x[t : t + 1]) @ W_U.T + b, -1)[0, y[t]]

    N, T = len(w), len(x)
    rates = {}
    with torch.inference_mode():
        for size in (32, 64, 128, 256, 512):
            rates[size] = min(timed(lambda size=size: chunk(0, 0, size), device)[0] for _ in range(3)) / min(size, N)
        best = min(rates, key=rates.__getitem__)
        done, spent, values, cpu = 0, 0.0, [], time.process_time()
        while done < T and spent < seconds_allowed:
            seconds, row = timed(
                lambda t=done: torch.cat([chunk(t, k, best) for k in range(0, N, best)]) - base(t), device
            )
            spent, done = spent + seconds, done + 1
            values.append(row.cpu())
        cpu = (time.process_time() - cpu) / done * T
    total = spent / done * T
    gflops = 2.0 * done * N * W_U.numel() / spent / 1e9
    row = {
        "seconds": total,
        "cpu_seconds": cpu,
        "extrapolated": done < T,
        "gflops": gflops,
        "chunk": best,
        "measured_positions": done,
    }
    row["share_of_product_rate"] = gflops / product_rate(W_U.shape[1], device)
    return {**row, **errors(layer, layer.activations.mean(0), torch.stack(values), 600)}


def product_rate(width: int, device: str) -> float:
    """GFLOP/s of a float32 product like the unembedding's, the machine's own measure."""
    left, right = torch.randn(256, width, device=device), torch.randn(width, 16384, device=device)
    seconds = min(timed(lambda: left @ right, device)[0] for _ in range(4))
    return 2 * 256 * width * 16384 / seconds / 1e9


def model_of(shape: Shape, layers: int) -> torch.nn.Module:
    """A model of a shape with random weights and so many layers."""
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
    return LlamaForCausalLM(LlamaConfig(**common, num_key_value_heads=8)).eval()


def forward(shape: Shape, device: str, positions: int) -> dict[str, Any]:
    """One plain forward pass with logits over windows of 256, best of three batch sizes; large models as one block."""
    parameters = shape.layers * 12 * shape.width**2 + 2 * shape.vocabulary * shape.width
    whole = parameters * 4 < 7e9

    def seconds_a_position(layers: int) -> tuple[float, float, int]:
        model = model_of(shape, layers).to(device)
        best = (float("inf"), float("inf"), 0)
        with torch.inference_mode():
            for batch in (1, 2, 4):
                tokens = torch.randint(shape.vocabulary, (batch, 256), device=device)
                model(tokens)
                for _ in range(3):
                    cpu = time.process_time()
                    seconds, _ = timed(lambda t=tokens: model(t).logits, device)
                    cpu = time.process_time() - cpu
                    best = min(best, (seconds / batch / 256, cpu / batch / 256, batch))
        return best

    if whole:
        each, cpu, batch = seconds_a_position(shape.layers)
    else:
        one, one_cpu, batch = seconds_a_position(1)
        two, two_cpu, _ = seconds_a_position(2)
        each = one + (two - one) * (shape.layers - 1)
        cpu = one_cpu + (two_cpu - one_cpu) * (shape.layers - 1)
    flops = 2 * (shape.layers * 12 * shape.width**2 + shape.vocabulary * shape.width)
    return {
        "seconds": each * positions,
        "cpu_seconds": cpu * positions,
        "extrapolated": True,
        "gflops": flops / each / 1e9,
        "batch": batch,
        "composed_of_blocks": not whole,
    }


def peak_bytes(device: str) -> int:
    """Largest memory so far: of the process, or of the card."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    found = {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory, 1),
        "fast_bf16": low_precision(torch.device("cpu")) == torch.bfloat16,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=["novella", "gpt2-small"], choices=list(SHAPES))
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--published-seconds", type=float, default=30)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RARE_TOKENS_TEST_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ablation.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    real = captured(options.data, 8192)
    result: dict[str, Any] = {"machine": machine(device), "rows": [], "match": {"novella": real.quantiles()}}
    for name in options.shapes:
        shape = SHAPES[name]
        T = min(options.positions, len(real.residual))
        if name == "novella":
            layer = Layer(real.head, real.w_out, real.residual[:T], real.activations[:T], real.targets[:T])
        else:
            layer = synthetic(real, shape.vocabulary, shape.width, shape.neurons, T)
            result["match"][name] = layer.quantiles(16)
            print(name, "against novella:", json.dumps(result["match"]), flush=True)
        common = {"shape": name, "device": device, "threads": options.threads, "positions": T, "neurons": shape.neurons}
        for method, run in (
            ("forward", lambda shape=shape, T=T: forward(shape, device, T)),
            ("ours", lambda layer=layer, T=T: {"extrapolated": False, **ours(layer, device, T)}),
            ("published", lambda layer=layer: published(layer, device, options.published_seconds)),
        ):
            row = {**common, "method": method, **run()}
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
