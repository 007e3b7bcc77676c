"""The bound of every pair's series is one: on trained heads and hostile ones, whether or not the pair would pass."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.moments import accumulate
from rare_tokens.ingest.ablation.reference import reference_effects
from rare_tokens.ingest.ablation.series import CentralMoments, Estimate, Series, h_above, h_below
from tests.support.ablation_layers import chosen_pairs, every_pair, made_up, trained


def series_of_all_pairs(
    layer: tuple, reduced: torch.dtype, common_mass: float | None = None
) -> tuple[Estimate, Tensor]:
    """Loss of every pair by the series alone, and the bound on order 2's error."""
    head, w, reference, x, n, y = layer
    ablation = Ablation(head, w, reference)
    folded = ablation.folded
    if common_mass is not None:
        folded = folded.ordered_by(ablation._typical_prediction(x), common_mass / 2, common_mass)
    normed, scale = ablation._norm(x)
    sums = accumulate(folded, normed, ablation._w, reduced)
    block = ablation._begin(x, n, y, normed, scale, sums)
    everywhere = slice(0, len(x))
    factors = ablation._factors(block, everywhere)
    target_rows = folded.gather(y)
    target_z = (normed * target_rows).sum(1)
    moments = CentralMoments(sums, everywhere, ablation._w, target_rows, target_z, reduced)
    series = Series(moments, factors.u, factors.c, head.norm.centre(w.double()).norm(dim=1).float())
    return series.loss(), series.order2_error()


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
    estimate, _ = series_of_all_pairs(layer, reduced, common_mass)
    assert share_of_bound(layer, estimate, every_pair(16, 20)).max() <= 1


@pytest.mark.parametrize("common_mass", [None, 0.6])
def test_no_logit_changes_by_more_than_the_reach(common_mass: float | None) -> None:
    head, w, reference, x, n, y = made_up(11, neurons=0.3, logits=4.0)
    ablation = Ablation(head, w, reference)
    if common_mass is not None:
        ablation.folded = ablation.folded.ordered_by(ablation._typical_prediction(x), common_mass / 2, common_mass)
    normed, scale = ablation._norm(x)
    sums = accumulate(ablation.folded, normed, ablation._w, torch.float32)
    spans, factors = sums.spans(), ablation._factors(ablation._begin(x, n, y, normed, scale, sums), slice(0, len(x)))
    U = ablation.folded.gather(torch.arange(ablation.folded.vocabulary), torch.float64)
    z, m = normed.double() @ U.T, ablation._w.double() @ U.T
    change = factors.u.double()[..., None] * z[:, None] + factors.c.double()[..., None] * m[None]
    change -= change.gather(2, y[:, None, None].expand(-1, len(w), 1))
    reach = factors.u.abs() * spans.z[:, None] + factors.c.abs() * spans.m
    share = change.abs().amax(2) / reach
    assert 0.5 < share.max() <= 1 + 1e-5


@pytest.mark.parametrize("reduced", [torch.float32, torch.bfloat16])
def test_the_bound_holds_on_a_trained_head(real_inputs: Path, reduced: torch.dtype) -> None:
    layer = trained(real_inputs, "stories260K", 512)
    estimate, _ = series_of_all_pairs(layer, reduced, 0.9)
    pairs = every_pair(*layer[4].shape)[::4]
    assert share_of_bound(layer, estimate, pairs).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["step0", "step256", "step3979"])
def test_the_bound_holds_on_every_step_of_novella(real_inputs: Path, step: str) -> None:
    """40,000 pairs a step, half of them those of largest effect."""
    layer = trained(real_inputs, f"novella/{step}", 512)
    estimate, _ = series_of_all_pairs(layer, torch.bfloat16, 0.95)
    found = Ablation(*layer[:3], sample=layer[3][::4]).ablate(*layer[3:])
    assert share_of_bound(layer, estimate, chosen_pairs(found, 40_000)).max() <= 1


def test_the_brackets_of_the_rest_hold() -> None:
    x = torch.linspace(1e-3, 40, 20_000, dtype=torch.float64)
    for sign in (1, -1):
        exact = sum(
            (sign * x) ** k / torch.exp(torch.lgamma(torch.tensor(k + 5.0, dtype=torch.float64))) for k in range(160)
        )
        if sign > 0:
            assert (h_above(x) >= exact * (1 - 1e-12)).all()
            assert (h_above(x)[x < 2] <= exact[x < 2] * (1 + 2e-3)).all()
        else:
            few = x < 15  # beyond, the alternating sum has cancelled away
            assert (h_below(-x)[few] <= exact[few] * (1 + 1e-9)).all()
