"""The bound of every pair's series is one: on trained heads and hostile ones, whether or not the pair would pass."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.reference import reference_effects
from rare_tokens.ingest.ablation.series.entropy import mean_power
from rare_tokens.ingest.ablation.series.series import Estimate, Series, g_above, g_below
from tests.support.ablation_layers import chosen_pairs, every_pair, made_up, trained


def series_of_all_pairs(layer: tuple, reduced: torch.dtype, common_mass: float | None = None) -> Series:
    """Every pair's series."""
    head, w, reference, x, n, y = layer
    ablation = Ablation(head, w, reference)
    ablation.reduced = reduced
    if common_mass is not None:
        ablation.folded = ablation.folded.ordered_by(ablation._typical_prediction(x), common_mass)
    there = ablation.at(x, n, y)
    return there.expansion(there.first, slice(0, len(x))).series


def share_of_bound(layer: tuple, estimate: Estimate, pairs: Tensor) -> Tensor:
    """|error| / bound of each pair that has a finite bound."""
    truth = reference_effects(*layer, pairs)["loss"]
    t, i = pairs.unbind(1)
    bound = (estimate.truncation + estimate.rounding)[t, i].double()
    error = (estimate.value[t, i].double() - truth).abs()
    usable = bound.isfinite() & (bound < 10)
    assert usable.any()
    return (error / bound)[usable]


@pytest.mark.parametrize("reduced", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("common_mass", [None, 0.6, 0.95])
@pytest.mark.parametrize("neurons", [1e-3, 0.03, 0.3])
@pytest.mark.parametrize("logits", [0.3, 4.0])
def test_the_bound_holds_on_made_up_heads(
    reduced: torch.dtype, common_mass: float | None, neurons: float, logits: float
) -> None:
    layer = made_up(11, neurons=neurons, logits=logits)
    estimate = series_of_all_pairs(layer, reduced, common_mass).loss()
    assert share_of_bound(layer, estimate, every_pair(16, 20)).max() <= 1


@pytest.mark.parametrize("common_mass", [None, 0.6])
def test_no_logit_changes_by_more_than_the_reach(common_mass: float | None) -> None:
    head, w, reference, x, n, y = made_up(11, neurons=0.3, logits=4.0)
    ablation = Ablation(head, w, reference)
    if common_mass is not None:
        ablation.folded = ablation.folded.ordered_by(ablation._typical_prediction(x), common_mass)
    there = ablation.at(x, n, y)
    edits, spans = there.first.edits, there.sums.spans()
    factors = edits.factors(slice(0, len(x))).change
    U = ablation.folded.gather(torch.arange(ablation.folded.vocabulary), torch.float64)
    z, m = edits.exact_rows[0] @ U.T, ablation.layer.w.double() @ U.T
    change = factors.u[0].double()[..., None] * z[:, None] + factors.c.double()[..., None] * m[None]
    change -= change.gather(2, y[:, None, None].expand(-1, len(w), 1))
    reach = factors.u[0].abs() * spans.z[0, :, None] + factors.c.abs() * spans.m
    share = change.abs().amax(2) / reach
    assert 0.5 < share.max() <= 1 + 1e-5


@pytest.mark.parametrize("reduced", [torch.float32, torch.bfloat16])
def test_the_bound_holds_on_a_trained_head(real_inputs: Path, reduced: torch.dtype) -> None:
    layer = trained(real_inputs, "stories260K", 512)
    estimate = series_of_all_pairs(layer, reduced, 0.9).loss()
    pairs = every_pair(*layer[4].shape)[::4]
    assert share_of_bound(layer, estimate, pairs).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["step0", "step256", "step3979"])
def test_the_bound_holds_on_every_step_of_novella(real_inputs: Path, step: str) -> None:
    """40,000 pairs a step, half of them those of largest effect."""
    layer = trained(real_inputs, f"novella/{step}", 512)
    estimate = series_of_all_pairs(layer, torch.bfloat16, 0.95).loss()
    found = Ablation(*layer[:3], sample=layer[3][::4]).ablate(*layer[3:])
    assert share_of_bound(layer, estimate, chosen_pairs(found, 40_000)).max() <= 1


@pytest.mark.parametrize("reduced", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("neurons", [0.03, 0.3])
def test_the_rare_tokens_share_is_within_its_bound(neurons: float, reduced: torch.dtype) -> None:
    """Against the sum over the same tokens one by one, in float64."""
    head, w, reference, x, n, y = made_up(12, neurons=neurons, logits=4.0)
    ablation = Ablation(head, w, reference, sample=x)
    ablation.reduced = reduced
    there = ablation.at(x, n, y)
    edits, series = there.first.edits, there.expansion(there.first, slice(0, len(x))).series
    U = ablation.folded.gather(torch.arange(ablation.folded.vocabulary), torch.float64)
    z, m = edits.exact_rows[0] @ U.T, ablation.layer.w.double() @ U.T
    bias = 0 if ablation.folded.bias is None else ablation.folded.bias
    p = (z + bias).softmax(1)
    u, c = series.change.u[0].double(), series.change.c.double()
    change = u[..., None] * z[:, None] + c[..., None] * m[None]
    above = change - change.gather(2, y[:, None, None].expand(-1, len(w), 1))
    rare = ablation.folded.order[ablation.folded.common :]
    assert len(rare) > 20
    truth = (p[:, None, rare] * above[..., rare].expm1()).sum(2)
    found, bound = series.rare_growth()
    whole = (p[:, None] * above.exp()).sum(2)  # exp Δ: the error of Δ is that of the share over it
    error = (found - truth).abs() / whole
    usable = bound < 1
    assert usable.float().mean() > 0.5
    assert (error / (bound + 1e-6))[usable].max() <= 1


def test_the_brackets_hold() -> None:
    x = torch.linspace(-60, 60, 600_001, dtype=torch.float64)
    x = x[x.abs() > 1e-4]  # nearer, g by its definition cancels
    g = (x.expm1() - x) / (x * x)
    assert (g_below(x) <= g).all()
    assert (g_above(x) >= g).all()
    near = x.abs() < 0.5
    assert (g_above(x) / g_below(x))[near].max() < 1.01
    assert ((2 + x) * g >= mean_power(x) * (1 - 1e-12))[x >= 0].all()
    assert (mean_power(x).diff() > 0).all()


@pytest.mark.parametrize("function", [g_above, g_below, mean_power])
def test_the_brackets_are_smooth_in_float32(function) -> None:
    x = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    values = function(x)
    assert ((function(x.float()).double() - values).abs() <= 1e-5 * values).all()
    assert function(torch.zeros(1)).item() == function(torch.zeros(1, dtype=torch.float64)).item() in (0.5, 1.0)
