"""Effects compared: those of a device with their definition in float64, and one ingest's with another's."""

from typing import Any

import torch

from benchmarks.layers.hostile import cancelled_residuals, flat, huge_neurons, near_zero_norms, one_hot
from benchmarks.layers.synthetic import Pattern
from benchmarks.speed.ingested import Ingested
from rare_tokens.common.effects import ATTRIBUTION, EFFECTS, LOSS
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.numerics.rounding import RELATIVE_TOLERANCE
from rare_tokens.ingest.ablation.reference import reference_attribution, reference_effects

TOLERANCE = 1e-6
SIZE = (2000, 64, 64, 32)  # V, d, N, T of the heads whose every pair is compared with its definition
BENT = {
    "ordinary": lambda layer: layer,
    "huge neurons": huge_neurons,
    "one-hot predictions": one_hot,
    "flat predictions": flat,
    "near-zero norms": near_zero_norms,
    "cancelled residuals": cancelled_residuals,
}


def parity(pattern: Pattern, device: str, size: tuple[int, int, int, int] = SIZE) -> list[dict[str, Any]]:
    """Largest error over tolerance of each effect over all pairs of each head, against its definition in float64."""
    ordinary = pattern.shaped(*size)
    counts = torch.arange(size[0]).flip(0)
    pairs = torch.cartesian_prod(torch.arange(size[3]), torch.arange(size[2]))
    rows = []
    for name, bend in BENT.items():
        layer = bend(ordinary)
        fixed = (layer.head, layer.w_out, layer.activations.mean(0))
        at = (layer.residual, layer.activations, layer.targets)
        ablation = Ablation(*fixed, effects=tuple(EFFECTS), unigram_counts=counts, device=device)
        found = ablation.ablate(*at).values
        truth = reference_effects(*fixed, *at, pairs, unigram_counts=counts)
        truth[ATTRIBUTION] = reference_attribution(*fixed, *at, pairs)
        for effect, wanted in truth.items():
            error = (found[effect].cpu().flatten().double() - wanted).abs().nan_to_num(nan=torch.inf)
            worst = float((error / (TOLERANCE + RELATIVE_TOLERANCE * wanted.abs())).max())
            rows.append({"head": name, "effect": effect, "pairs": len(pairs), "worst_over_tolerance": worst})
    return rows


def compared(one: Ingested, other: Ingested) -> dict[str, Any]:
    """Two ingests of the same pairs: differences of Δ loss over its tolerance, and of the captured activations.

    Raises:
        ValueError: they are of different pairs.
    """
    keys = ["neuron", "position_id"]
    if not one.facts.select(keys).equals(other.facts.select(keys)):
        raise ValueError("The two ingests are of different neurons or positions.")
    left, right = (torch.from_numpy(run.facts[f"delta_{LOSS}"].to_numpy().copy()).double() for run in (one, other))
    over = (left - right).abs() / (TOLERANCE + RELATIVE_TOLERANCE * torch.maximum(left.abs(), right.abs()))
    over = over.nan_to_num(nan=torch.inf)
    n, m = (torch.from_numpy(run.facts["activation"].to_numpy().copy()).double() for run in (one, other))
    some = over[torch.randperm(len(over), generator=torch.Generator().manual_seed(0))[: 1 << 22]]
    return {
        "pairs": len(over),
        "worst_over_tolerance": float(over.max()),
        "median_over_tolerance": float(some.median()),
        "p999_over_tolerance": float(some.quantile(0.999)),
        "share_within_one": float((over <= 1).double().mean()),
        "largest_activation_difference": float((n - m).abs().max() / n.abs().max()),
        "self_check": max(one.check, other.check),
    }
