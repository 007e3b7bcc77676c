"""The attribution of every pair: against automatic differentiation of hooked models, and of hostile heads."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rare_tokens.common.effects import ATTRIBUTION, EFFECTS, LOSS
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.formulas.attribution import attribution, attribution64
from rare_tokens.ingest.ablation.reference import reference_attribution, reference_effects
from rare_tokens.ingest.model.head import PostNorm
from rare_tokens.ingest.model.norms import NormForm
from rare_tokens.ingest.model.structure import find_structure, hooked
from tests.support.ablation_layers import every_pair, made_up, trained, worst
from tests.support.float64 import float64_model
from tests.support.tiny import SUPPORTED

BOTH = (LOSS, ATTRIBUTION)
WINDOWS, WINDOW = 3, 16


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_pair_is_what_differentiating_the_hooked_model_gives(name: str) -> None:
    """The activations of the whole model are made a variable; in the last layer each reaches its own loss alone."""
    model = float64_model(SUPPORTED[name])
    found = find_structure(model)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(found.vocabulary_size, (WINDOWS, WINDOW), generator=generator)
    targets = torch.randint(found.vocabulary_size, (WINDOWS * WINDOW,), generator=generator)
    seen: dict[str, Tensor] = {}

    def vary(_module, args):
        seen["n"] = args[0].detach().requires_grad_()
        return (seen["n"],)

    def keep(_module, args):
        seen["x"] = args[0].detach().reshape(len(targets), -1)

    with hooked((found.out_projection, "before", vary), (found.final_norm, "before", keep)):
        logits = model(input_ids=inputs).logits.reshape(len(targets), -1)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, seen["n"])
    n = seen["n"].detach().reshape(len(targets), -1)
    truth = (n.mean(0) - n) * gradient.reshape(len(targets), -1)
    ablation = Ablation(
        found.head, found.w_out.float(), n.mean(0).float(), post_norm=found.post_norm, effects=BOTH, sample=seen["x"]
    )
    ours = ablation.ablate(seen["x"].float(), n.float(), targets)
    error = (ours.values[ATTRIBUTION].double() - truth).abs() / (1e-6 + 1e-4 * truth.abs())
    assert error.max() <= 1, name
    assert truth.abs().max() > 1e-2
    assert not torch.allclose(truth.float(), ours.delta_loss, rtol=0.1), "it is no effect of the edit as a whole"


@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_its_definition_is_the_slope_of_the_loss(norm: str, post: bool) -> None:
    """Against the definition of Δ alone, by differences between edits of a ten-thousandth."""
    head, w, _, x, n, y = made_up(5, norm=norm)
    post_norm = PostNorm(NormForm(norm == "layer", torch.rand(24) + 0.5, None, 1e-5), torch.ones(24)) if post else None
    pairs, h = every_pair(len(x), len(w)), 1e-4
    slope = reference_attribution(head, w, torch.zeros(len(w)), x, n.double(), y, pairs, post_norm=post_norm)
    differences = torch.zeros_like(slope)
    for t in range(len(x)):  # a reference of its own at each position: n + h·a
        here = pairs[:, 0] == t
        up, down = (
            reference_effects(head, w, n[t].double() * (1 - k), x, n.double(), y, pairs[here], post_norm=post_norm)
            for k in (h, -h)
        )
        differences[here] = (up[LOSS] - down[LOSS]) / (2 * h)
    assert slope.abs().max() > 1e-2
    torch.testing.assert_close(slope, differences, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize(
    "scale",
    [
        {"neurons": 1e-4},
        {"neurons": 1.0},
        {"neurons": 30.0},
        {"logits": 8.0},
        {"logits": 8.0, "neurons": 30.0},
        {"residual": 1e-3},
        {"residual": 1e4, "neurons": 30.0},
    ],
)
def test_hostile_heads_are_within_tolerance(norm: str, scale: dict[str, float]) -> None:
    """Huge neurons, one-hot predictions, residuals near zero norm or far larger than the edits."""
    layer = made_up(6, norm=norm, **scale)
    found = Ablation(*layer[:3], effects=BOTH).ablate(*layer[3:])
    assert worst(layer, found, every_pair(*found.delta_loss.shape), BOTH) <= 1


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    norm=st.sampled_from(["layer", "rms"]),
    logits=st.floats(0.01, 8),
    neurons=st.floats(1e-4, 30),
    residual=st.floats(0.001, 1000),
    V=st.sampled_from([40, 300, 3000]),
    d=st.sampled_from([8, 24, 96]),
)
def test_any_head_is_within_tolerance(
    seed: int, norm: str, logits: float, neurons: float, residual: float, V: int, d: int
) -> None:
    layer = made_up(seed, norm=norm, B=8, V=V, d=d, logits=logits, neurons=neurons, residual=residual)
    found = Ablation(*layer[:3], effects=BOTH).ablate(*layer[3:])
    assert worst(layer, found, every_pair(8, len(layer[1])), (ATTRIBUTION,)) <= 1


@pytest.mark.parametrize(
    "scale",
    [
        {"neurons": 1e-2},
        {"neurons": 30.0},
        {"logits": 8.0, "neurons": 1.0},
        {"residual": 1e-3},
        # Two tokens share the prediction, and their logits are large: the most that was found
        {"seed": 1629, "norm": "rms", "logits": 5.314, "neurons": 1.0, "residual": 255.0, "d": 96},
        # A narrow residual stream, and long sums over the vocabulary
        {"seed": 388119, "logits": 0.8035, "neurons": 0.2162, "residual": 10.756, "V": 12_000, "d": 8},
    ],
)
def test_the_modelled_rounding_holds(scale: dict[str, float]) -> None:
    layer = made_up(**{"seed": 10, "B": 8} | scale)
    _, estimate = series_of(layer)
    truth = reference_attribution(*layer, every_pair(8, len(layer[1]))).view(8, -1)
    share = (estimate.value - truth).abs() / estimate.rounding
    assert 0 < share.max() <= 1


def test_what_float32_cannot_hold_is_settled_in_float64_and_nothing_else_changes() -> None:
    layer = made_up(1, neurons=30.0, logits=2.0)
    ablation, estimate = series_of(layer)
    coarse = ~(estimate.rounding <= ablation.at(*layer[3:]).allowed(estimate))
    assert 0 < coarse.sum() < coarse.numel() / 2
    pairs = every_pair(*coarse.shape)
    truth = reference_attribution(*layer, pairs).view_as(coarse)
    found = ablation.ablate(*layer[3:]).values[ATTRIBUTION]
    assert torch.equal(found[coarse], truth[coarse].float())
    assert torch.equal(found[~coarse], estimate.value[~coarse])


@pytest.mark.parametrize("post", [False, True])
def test_in_float64_it_is_the_definition(post: bool) -> None:
    """With a norm after the MLP, whose scale moves too, one more function of the token takes part."""
    head, w, reference, x, n, y = layer = made_up(7, neurons=1.0)
    post_norm = PostNorm(NormForm(False, torch.rand(24) + 0.5, None, 1e-5), torch.ones(24)) if post else None
    ablation = Ablation(head, w, reference, post_norm=post_norm, effects=BOTH)
    block = ablation.at(x, n, y).first
    pairs = every_pair(len(x), len(w))
    found = attribution64(ablation.folded, block.unablated, block.edits, pairs[:, 0], pairs[:, 1])
    truth = reference_attribution(*layer, pairs, post_norm=post_norm)
    torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-12)
    ours = ablation.ablate(x, n, y).values[ATTRIBUTION].flatten()
    assert ((ours - truth).abs() / (1e-6 + 1e-4 * truth.abs())).max() <= 1


@pytest.mark.parametrize("neurons", [0.03, 1.0, 30.0])
def test_it_depends_on_no_other_effect_and_changes_none(neurons: float) -> None:
    layer = made_up(8, neurons=neurons, logits=2.0)
    counts = torch.arange(300)

    def found(*effects: str):
        return Ablation(*layer[:3], effects=effects, unigram_counts=counts).ablate(*layer[3:])

    alone, every, others = found(ATTRIBUTION), found(*EFFECTS), found(*EFFECTS.keys() - {ATTRIBUTION})
    assert torch.equal(alone.values[ATTRIBUTION], every.values[ATTRIBUTION])
    assert torch.equal(alone.delta_loss, found(LOSS).delta_loss)
    for name in others.values:
        assert torch.equal(every.values[name], others.values[name]), name
    assert every.exact_pairs == others.exact_pairs
    assert alone.exact_pairs == found(LOSS).exact_pairs > 0, "no pair goes over the vocabulary for it"


def test_it_adds_no_pair_to_the_whole_vocabulary_on_a_trained_head(real_inputs: Path) -> None:
    layer = trained(real_inputs, "stories260K", 128)
    plain, both = (Ablation(*layer[:3], effects=names).ablate(*layer[3:]) for names in ((LOSS,), BOTH))
    assert plain.exact_pairs == both.exact_pairs > 0
    assert torch.equal(plain.delta_loss, both.delta_loss)
    assert worst(layer, both, every_pair(*both.delta_loss.shape)[::5], BOTH) <= 1


def test_where_the_edit_is_small_it_is_the_effect() -> None:
    head, w, _, x, n, y = made_up(9)
    found = Ablation(head, w, n[0] + 1e-3, effects=BOTH).ablate(x[:1], n[:1], y[:1])
    assert found.values[ATTRIBUTION].abs().max() > 1e-5
    torch.testing.assert_close(found.values[ATTRIBUTION], found.delta_loss, rtol=1e-2, atol=1e-7)


def series_of(layer: tuple):
    """An ablation of a layer, and the attribution of all its pairs in float32."""
    head, w, reference, x, n, y = layer
    ablation = Ablation(head, w, reference, effects=BOTH)
    there = ablation.at(x, n, y)
    return ablation, attribution(there.expansion(there.first, slice(0, len(x))))
