"""How far float32's errors stay below what the model of rounding says, on pairs summed over the vocabulary.

    python -m studies.rounding [--smollm2 FILE.gguf] [--positions 4096] [--out studies/results/rounding.json]

SmolLM2-135M at positions of the C4 sample. The pairs that its series leaves over are all summed in float32, and three
sets are compared with the definition in float64: those whose modelled rounding is the largest share of their
tolerance, those whose modelled rounding is largest in itself, and random ones. The *factor* of a pair is what would
have to stand in the place of `rounding.ROUNDINGS` (docs/ablation/accuracy.md, "float32").
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.layers.layers import Layer, smollm2
from benchmarks.speed.machine import machine
from rare_tokens.common.effects import LOSS
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.layer.changes import Pairs
from rare_tokens.ingest.ablation.numerics.rounding import (
    FLOOR,
    RELATIVE_ROUNDING,
    RELATIVE_TOLERANCE,
    ROUNDINGS,
    ExactRounding,
)
from rare_tokens.ingest.ablation.reference import reference_effects
from rare_tokens.ingest.ablation.vocabulary.exact import exact_effects

RESULT = Path(__file__).parent / "results" / "rounding.json"
EACH = 1500  # pairs of a set


def left_over(layer: Layer) -> tuple[Pairs, Tensor, Tensor]:
    """P pairs that the series leaves over, their Δ loss in float32, and the modelled rounding."""
    ablation = Ablation(layer.head, layer.w_out, layer.activations.mean(0), sample=layer.residual[::16])
    there = ablation.at(layer.residual, layer.activations, layer.targets)
    block = there.first.towards(ablation.reference)
    chunks = [slice(k, k + 64) for k in range(0, len(layer.residual), 64)]
    pairs = Pairs.concatenate([there.by_series(block, at) for at in chunks])
    loss = exact_effects(ablation.folded, block.unablated, ablation.layer.w, pairs, (LOSS,), None)[LOSS]
    modelled = ExactRounding.of(ablation.folded.width, block.sizes, pairs, block.unablated.target_z, loss)
    return pairs, loss, modelled.loss


def compared(layer: Layer, pairs: Pairs, chosen: Tensor, loss: Tensor, modelled: Tensor) -> dict[str, Any]:
    """The factors of some pairs, and their errors in units of the tolerance."""
    where = torch.stack([pairs.t[chosen].long(), pairs.i[chosen].long()], dim=1)
    arrays = (layer.residual, layer.activations, layer.targets)
    truth = reference_effects(layer.head, layer.w_out, layer.activations.mean(0), *arrays, where)[LOSS]
    error = (loss[chosen].double() - truth).abs()
    # What the rare tokens' bracket may add is proven, and counted beside
    left = error - RELATIVE_ROUNDING * truth.abs() - FLOOR - pairs.rare_error[chosen]
    factor = left.clamp(min=0) / ((modelled[chosen] - FLOOR) / ROUNDINGS)
    kept = modelled[chosen] + pairs.rare_error[chosen] <= _allowed(loss[chosen])
    share = error / (1e-6 + RELATIVE_TOLERANCE * truth.abs())
    return {
        "pairs": len(chosen),
        "largest_factor": float(factor.max()),
        "above_zero": float((factor > 0).double().mean()),
        "kept_in_float32": int(kept.sum()),
        "worst_of_kept": float(share[kept].max()) if bool(kept.any()) else None,
        "worst_of_others": float(share[~kept].max()) if not bool(kept.all()) else None,
    }


def _allowed(loss: Tensor) -> Tensor:
    return 1e-6 + (RELATIVE_TOLERANCE - RELATIVE_ROUNDING) * loss.abs()


def main() -> None:
    """Compare, print and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=Path, help="its GGUF file or folder; else it is fetched")
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RARE_TOKENS_TEST_DATA", "../shared/data")))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    layer = smollm2(options.data, options.positions, options.smollm2).layer
    pairs, loss, modelled = left_over(layer)
    generator = torch.Generator().manual_seed(0)
    sets = {
        "largest share of the tolerance": (modelled / _allowed(loss)).topk(EACH).indices,
        "largest": modelled.topk(EACH).indices,
        "random": torch.randint(len(pairs), (EACH,), generator=generator),
    }
    found: dict[str, Any] = {"machine": machine("cpu"), "positions": options.positions, "left_over": len(pairs)}
    found["float64_pairs"] = int((modelled + pairs.rare_error > _allowed(loss)).sum())
    found["sets"] = {name: compared(layer, pairs, chosen, loss, modelled) for name, chosen in sets.items()}
    print(json.dumps(found, indent=1))
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
