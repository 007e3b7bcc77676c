"""The benchmark's layers and its float64 errors: what they are made from, and whether an error would be seen."""

from dataclasses import replace

import pytest
import torch

from benchmarks.layers.hostile import cancelled_residuals, flat, huge_neurons, near_zero_norms, one_hot
from benchmarks.layers.layers import Layer, captured, fetched, smollm2
from benchmarks.layers.match import LEVELS, apart, quantiles
from benchmarks.layers.synthetic import Pattern
from benchmarks.methods.accuracy import errors, exact_losses, telling_pairs
from benchmarks.methods.ours import ours
from benchmarks.methods.published import published
from rare_tokens.ingest.ablation.numerics.timing import STAGES
from rare_tokens.ingest.ablation.reference import reference_effects
from rare_tokens.ingest.embedded import MODEL_FOLDER, REVISIONS, reference_documents
from tests.support.ablation_layers import every_pair, made_up


@pytest.fixture(scope="module")
def real() -> Layer:
    return captured(MODEL_FOLDER / REVISIONS[-1], reference_documents(), 512).layer


@pytest.fixture(scope="module")
def pattern(real: Layer) -> Pattern:
    return Pattern.of(real)


def drawn(seed: int, norm: str = "layer") -> Layer:
    head, w, _, x, n, y = made_up(seed, norm=norm, V=500, d=32, N=40, B=24)
    return Layer(head, w, x, n, y)


def test_a_layer_is_captured_in_windows_of_the_text(real: Layer) -> None:
    """The residual of each position predicts its target far better than chance."""
    logits = real.head.norm(real.residual) @ real.head.unembedding.T
    loss = torch.nn.functional.cross_entropy(logits, real.targets)
    assert real.residual.shape[0] == real.activations.shape[0] == len(real.targets) == 512
    assert float(loss) < 0.8 * torch.tensor(float(len(real.head.unembedding))).log()


def test_a_wider_larger_layer_has_the_real_ones_predictions_and_edits(real: Layer, pattern: Pattern) -> None:
    V, d = real.head.unembedding.shape
    made = pattern.shaped(V + 700, d + 60, len(real.w_out) * 2, 256)
    assert made.head.unembedding.shape == (V + 700, d + 60)
    assert made.activations.shape == (256, len(real.w_out) * 2)
    differing = apart(quantiles(made), quantiles(real), within=1.3)
    assert [one for one in differing if not one.startswith("outside")] == [], "more tokens make a longer tail"


def test_a_wider_layer_has_the_very_effects_of_the_real_one(real: Layer) -> None:
    """Turned into more dimensions, with nothing copied, every loss and every effect stays."""
    few = replace(real.first(16), w_out=real.w_out[:32], activations=real.activations[:16, :32])
    V, d = few.head.unembedding.shape
    made = Pattern.of(few).shaped(V, d + 64, 32, 16)

    def effects(of: Layer) -> torch.Tensor:
        captured = (of.residual, of.activations, of.targets)
        pairs = every_pair(16, 32)
        return reference_effects(of.head, of.w_out, torch.zeros(32), *captured, pairs)["loss"].sort().values

    torch.testing.assert_close(effects(made), effects(few), atol=1e-5, rtol=1e-4)
    assert effects(few).abs().max() > 1e-2


def test_a_smaller_layer_keeps_the_likeliest_tokens_and_has_a_target_everywhere(pattern: Pattern) -> None:
    made = pattern.shaped(300, 32, 50, 64)
    assert made.head.unembedding.shape == (300, 32)
    assert (made.w_out.shape, made.residual.shape) == ((50, 32), (64, 32))
    assert 0 <= int(made.targets.min()) <= int(made.targets.max()) < 300


def test_quantiles_apart_are_named() -> None:
    one = {"u": [1.0] * len(LEVELS), "c": [1.0, 2.0, 3.0, 4.0, 5.0]}
    other = {"u": [1.0, 1.0, 1.6, 1.0, 1.0], "c": [1.4, 2.0, 3.0, 4.0, 2.0]}
    assert apart(one, other) == ["c at 0.999: 5 against 2", "u at 0.9: 1 against 1.6"]


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_float64_losses_are_those_of_the_definition(norm: str) -> None:
    layer = drawn(3, norm)
    reference = layer.activations.mean(0)
    pairs = every_pair(*layer.activations.shape)
    defined = reference_effects(
        layer.head, layer.w_out, reference, layer.residual, layer.activations, layer.targets, pairs
    )["loss"]  # fmt: skip
    threads = torch.get_num_threads()
    torch.testing.assert_close(exact_losses(layer, reference, pairs), defined, atol=1e-11, rtol=1e-11)
    assert torch.get_num_threads() == threads


def test_an_error_is_seen_and_a_missing_value_is_infinitely_wrong() -> None:
    layer = drawn(4)
    reference, pairs = layer.activations.mean(0), every_pair(*layer.activations.shape)
    right = exact_losses(layer, reference, pairs).reshape(layer.activations.shape)
    assert errors(layer, reference, right, pairs)["worst_over_tolerance"] < 1e-6
    wrong = right.clone()
    wrong[5, 7] += 2e-6 + 2e-4 * right[5, 7].abs()
    assert errors(layer, reference, wrong, pairs)["worst_over_tolerance"] == pytest.approx(2, rel=1e-3)
    wrong[5, 7] = torch.nan
    assert errors(layer, reference, wrong, pairs)["worst_over_tolerance"] == float("inf")


def test_as_many_pairs_are_checked_as_asked_and_the_largest_are_among_them() -> None:
    found = torch.randn(50, 60, generator=torch.Generator().manual_seed(0))
    bounds = found.abs()  # so that two thirds of the choice are the same pairs
    pairs = telling_pairs(found, bounds, 900)
    assert len(pairs) == len(pairs.unique(dim=0)) == 900
    largest = found.abs().flatten().topk(300).indices
    assert torch.isin(largest, pairs[:, 0] * 60 + pairs[:, 1]).all()
    assert len(telling_pairs(found, None, 100_000)) == 3000


def test_rows_hold_time_by_stage_memory_and_errors(real: Layer) -> None:
    few = replace(real.first(64), w_out=real.w_out[:64], activations=real.activations[:64, :64])
    row = ours(few, "cpu", check=600)
    assert set(row["stage_seconds"]) == {*STAGES, "other"}
    assert sum(row["stage_seconds"].values()) == pytest.approx(row["seconds"])
    assert row["checked_pairs"] == 600
    assert row["worst_over_tolerance"] <= 1
    assert 0 <= row["float64_share"] <= row["vocabulary_share"] < 1
    slow = published(few, "cpu", 0.05)
    assert slow["seconds"] > row["seconds"]
    assert slow["worst_over_tolerance"] < 100


@pytest.mark.parametrize("bend", [huge_neurons, one_hot, flat, near_zero_norms, cancelled_residuals])
def test_hostile_heads_are_within_tolerance(pattern: Pattern, bend) -> None:
    ordinary = pattern.shaped(400, 48, 60, 32)
    bent = bend(ordinary)
    row = ours(bent, "cpu")
    assert row["checked_pairs"] == 32 * 60
    assert row["worst_over_tolerance"] <= 1


def test_hostile_heads_are_what_they_are_called(pattern: Pattern) -> None:
    layer = pattern.shaped(400, 48, 60, 32)

    def largest(of: Layer) -> float:
        logits = of.head.norm(of.residual) @ of.head.unembedding.T
        return float(logits.softmax(1).amax(1).median())

    assert largest(flat(layer)) < 0.01 < largest(layer) < 0.9 < largest(one_hot(layer))
    assert huge_neurons(layer).w_out.norm() == pytest.approx(30 * float(layer.w_out.norm()))
    assert float(near_zero_norms(layer).residual.square().mean()) < layer.head.norm.eps / 100
    bent = cancelled_residuals(layer)
    t = torch.arange(32)
    a = bent.activations.mean(0)[t] - bent.activations[t, t]
    left = bent.residual[t] + a[:, None] * bent.w_out[t]
    assert (left.norm(dim=1) < 0.0011 * bent.residual.norm(dim=1)).all()


def test_without_the_real_model_the_option_that_gives_it_is_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("benchmarks.layers.layers.REAL_MODEL", tmp_path / "absent.sh")
    with pytest.raises(FileNotFoundError, match=r"--smollm2 FILE\.gguf"):
        smollm2(tmp_path, 256)
    fails = tmp_path / "fails.sh"
    fails.write_text("echo no network >&2; exit 1")
    monkeypatch.setattr("benchmarks.layers.layers.REAL_MODEL", fails)
    with pytest.raises(FileNotFoundError, match="no network"):
        fetched(tmp_path)


@pytest.mark.slow
def test_other_shapes_have_the_real_models_quantiles(real_inputs) -> None:
    """SmolLM2 in GPT-2 small's shape: what decides the ablation's cost and error is within a factor of 1.5."""
    try:
        real = smollm2(real_inputs, 2048).layer
    except FileNotFoundError as error:
        pytest.skip(f"REAL MODEL ABSENT: {error}")
    made = Pattern.of(real).shaped(50_257, 768, 3072, 512)
    found, wanted = quantiles(made), quantiles(real, 2048)
    assert apart(found, wanted) == []
    assert wanted["entropy"][1] > 2, "predictions of a real model are flat"
