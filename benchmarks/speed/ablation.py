"""What ablating every neuron costs, compared with published code, a hooked model and one plain forward pass.

    python -m benchmarks.speed.ablation [--shapes smollm2 gpt2-small …] [--smollm2 FILE.gguf] [--threads 4]

`smollm2` and `novella` are real models at positions of their own, captured from the C4 sample in windows of 256; their
forward pass is their own. The other shapes are made from SmolLM2's captured layer (`synthetic`), or from novella's by
`--pattern novella`; how well they match it is printed, and where not. Hostile heads (`hostile`) are timed against
the ordinary layer of their size.

Seconds are for all T x N pairs (`forward`: T positions); methods that are too slow are timed on fewer, scaled
linearly and marked `extrapolated`; `cpu_seconds` are the process's own, less affected by other load. Errors are against
float64 over 100,000 pairs (`accuracy`). `fast_bf16` says whether bfloat16 products are at least four times as
fast as float32's, as on processors with matrix units; the measured ratio is given too.
"""

import argparse
import json
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.layers.hostile import HOSTILE, Hostile
from benchmarks.layers.layers import Layer, RealModel, novella, smollm2
from benchmarks.layers.match import apart, quantiles
from benchmarks.layers.synthetic import Pattern
from benchmarks.methods.forward import SHAPES, Shape, forward, hooked
from benchmarks.methods.ours import ours
from benchmarks.methods.published import published
from benchmarks.speed.machine import machine
from benchmarks.speed.table import RESULT, write
from rare_tokens.common.effects import EFFECTS, chosen_effects

CAPTURED = 8192  # positions
METHODS = ("ours", "forward", "published", "hooked")
MATCHED = 1024  # positions whose quantiles are compared
# At most, so that each shape takes minutes on four cores
POSITIONS = {"gpt2-medium": 2048, "pythia-410m": 2048, "gpt2-large": 1024, "gpt2-xl": 1024}
POSITIONS |= {"pythia-2.8b": 512, "llama-3-8b": 256}


def measure(
    name: str,
    layer: Layer,
    shape: Shape,
    device: str,
    seconds: float,
    real: PreTrainedModel | None = None,
    chosen: tuple[str, ...] = METHODS,
) -> list[dict[str, Any]]:
    """One row per method: the project's own, a forward pass, published code, and a hooked model where there is one."""
    T = len(layer.residual)
    methods: dict[str, Callable[[], dict[str, Any] | None]] = {
        "ours": partial(ours, layer, device),
        "forward": partial(forward, shape, device, T, real),
        "published": partial(published, layer, device, seconds),
        "hooked": partial(hooked, shape, device, T, seconds / 2),
    }
    rows = []
    for method in chosen:
        found = methods[method]()
        if found is not None:
            common = {"shape": name, "device": device, "threads": torch.get_num_threads(), "method": method}
            rows.append({**common, "positions": T, "neurons": layer.w_out.shape[0], **found})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def hostile_row(name: str, hostile: Hostile, pattern: Pattern, device: str) -> dict[str, Any]:
    """A hostile head's time beside that of the ordinary layer of its size, and its errors."""
    ordinary = pattern.shaped(*hostile.shape)
    usual = ours(ordinary, device, check=0)
    found = ours(hostile.bend(ordinary), device)
    size = {"vocabulary": hostile.vocabulary, "width": hostile.width}
    size |= {"positions": hostile.positions, "neurons": hostile.neurons}
    row = {"head": name, **size, "ordinary_seconds": usual["seconds"], **found}
    print(json.dumps(row), flush=True)
    return row


def exponents(layer: Layer, device: str) -> dict[str, Any]:
    """How the cost grows with T and with N: slope of log seconds on log size, construction and W Uᵀ included."""
    found: dict[str, Any] = {}
    T, N = layer.activations.shape
    for name, sizes in (("positions", [T // 8, T // 4, T // 2]), ("neurons", [N // 4, N // 2, N])):
        points = []
        for size in sizes:
            t, i = (size, N) if name == "positions" else (T // 8, size)
            few = Layer(layer.head, layer.w_out[:i], layer.residual[:t], layer.activations[:t, :i], layer.targets[:t])
            points.append((math.log(size), math.log(ours(few, device, check=0)["cpu_seconds"])))
        (mean_x, mean_y) = (sum(column) / len(points) for column in zip(*points, strict=True))
        slope = sum((p - mean_x) * (q - mean_y) for p, q in points) / sum((p - mean_x) ** 2 for p, _ in points)
        found[name] = {"sizes": sizes, "cpu_seconds": [math.exp(q) for _, q in points], "exponent": slope}
    return found


def effects_cost(layer: Layer, device: str, positions: int) -> list[dict[str, Any]]:
    """The loss alone, and with each further effect."""
    few = layer.first(positions)
    return [
        {"effect": effect, "positions": positions, **ours(few, device, chosen_effects([effect]), check=0)}
        for effect in EFFECTS
    ]


def matched(name: str, layer: Layer, wanted: dict[str, list[float]]) -> dict[str, Any]:
    """A synthetic layer's quantiles, printed beside the real ones, and where they are further apart than allowed."""
    found = quantiles(layer, MATCHED)
    differing = apart(found, wanted)
    for quantity, values in found.items():
        print(f"{name} {quantity:11}{values} against {wanted.get(quantity, '–')}")
    print(f"{name}: {'; '.join(differing) or 'all within the factor'}", flush=True)
    return {"quantiles": found, "apart": differing}


def main() -> None:
    """Measure, print, and write the JSON and the pages made from it."""
    options = _options()
    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result: dict[str, Any] = {"machine": machine(device), "rows": [], "pattern": options.pattern}
    own = _real(options)
    pattern = Pattern.of(own[options.pattern].layer)
    wanted = quantiles(pattern.layer, MATCHED)
    result["match"] = {options.pattern: {"quantiles": wanted, "apart": []}}
    for name in options.shapes:
        shape = SHAPES[name]
        T = min(options.positions, POSITIONS.get(name, options.positions), CAPTURED)
        model = own[name].model if name in own else None
        layer = own[name].layer.first(T) if name in own else pattern.shaped(*_size(shape), T)
        if name not in own:
            result["match"][name] = matched(name, layer, wanted)
        result["rows"] += measure(name, layer, shape, device, options.seconds, model)
        if name in ("gpt2-small", "novella", "smollm2"):
            result.setdefault("effects", {})[name] = effects_cost(layer, device, min(T, 256))
        if name == "gpt2-small":
            result["exponents"] = exponents(layer, device)
        _save(result, options.out)
    if not options.no_hostile:
        result["hostile"] = [hostile_row(name, hostile, pattern, device) for name, hostile in HOSTILE.items()]
        _save(result, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--smollm2", type=Path, help="its GGUF file or folder; else it is fetched")
    parser.add_argument("--pattern", default="smollm2", choices=["smollm2", "novella"], help="of the synthetic layers")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=15, help="for `published`; half as much for `hooked`")
    parser.add_argument("--no-hostile", action="store_true", help="leave out the hostile heads")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RARE_TOKENS_TEST_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, default=RESULT)
    return parser.parse_args()


def _real(options: argparse.Namespace) -> dict[str, RealModel]:
    """The real models that are asked for, or that others are made from."""
    needed = {*options.shapes, options.pattern}
    makers = {
        "smollm2": partial(smollm2, options.data, CAPTURED, options.smollm2),
        "novella": partial(novella, options.data, CAPTURED),
    }
    return {name: make() for name, make in makers.items() if name in needed}


def _size(shape: Shape) -> tuple[int, int, int]:
    return shape.vocabulary, shape.width, shape.neurons


def _save(result: dict[str, Any], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    if out.resolve() == RESULT.resolve():
        write()


if __name__ == "__main__":
    main()
