"""Every pair's effects against their definition in float64, on trained heads and on hostile ones."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rare_tokens.common.effects import ATTRIBUTION, EFFECTS
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.at_positions import AtPositions
from rare_tokens.ingest.ablation.formulas.effects import FORMULAS
from rare_tokens.ingest.ablation.vocabulary.exact import weighted_rows
from rare_tokens.ingest.model.head import Head
from rare_tokens.ingest.model.norms import NormForm
from tests.support.ablation_layers import chosen_pairs, every_pair, made_up, trained, worst

ALL = tuple(EFFECTS)


def test_every_effect_has_its_formulas() -> None:
    assert [*FORMULAS, ATTRIBUTION] == list(EFFECTS), "the attribution is no effect of an edit as a whole"


@pytest.fixture(scope="module")
def novella(real_inputs: Path) -> tuple[Head, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return trained(real_inputs, "novella/step3979", 512)


@pytest.mark.parametrize("pairs", [4_000, pytest.param(40_000, marks=pytest.mark.slow)])
def test_pairs_of_a_trained_head_are_within_tolerance(novella, pairs: int) -> None:
    """Half of them those of largest effect."""
    found = Ablation(*novella[:3], sample=novella[3][::4]).ablate(*novella[3:])
    assert worst(novella, found, chosen_pairs(found, pairs)) <= 1
    share = found.exact_pairs / found.delta_loss.numel()
    assert share <= 0.15, share
    assert found.report is None, "only on request"


def test_a_report_changes_nothing_and_says_how_near_the_series_came(novella) -> None:
    head, w, reference, x, n, y = novella
    layer, some = (head, w, reference), (x[:96], n[:96], y[:96])
    plain, told = (Ablation(*layer, sample=x[::4], with_report=report).ablate(*some) for report in (False, True))
    assert torch.equal(plain.delta_loss, told.delta_loss)
    assert told.report is not None
    by_series = told.report.share_of_tolerance.isfinite()
    assert int((~by_series).sum()) == told.exact_pairs == plain.exact_pairs
    assert told.report.common_pairs > told.exact_pairs / 2, "for most, moments do for the rare tokens"
    assert told.report.float64_pairs <= told.exact_pairs / 1000


@pytest.mark.slow
def test_every_pair_of_a_trained_rms_head_is_within_tolerance(real_inputs: Path) -> None:
    layer = trained(real_inputs, "stories260K", 512)
    found = Ablation(*layer[:3]).ablate(*layer[3:])
    assert worst(layer, found, every_pair(*found.delta_loss.shape)) <= 1


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("neurons", [1e-4, 1e-2, 0.1, 1.0, 30.0])
def test_hostile_neurons(norm: str, biases: bool, neurons: float) -> None:
    counts = torch.arange(300)
    layer = made_up(1, norm=norm, biases=biases, neurons=neurons)
    found = Ablation(*layer[:3], effects=ALL, unigram_counts=counts).ablate(*layer[3:])
    assert worst(layer, found, every_pair(*found.delta_loss.shape), ALL, counts) <= 1


@pytest.mark.parametrize("scale", [{"logits": 8.0}, {"residual": 1e-3}, {"residual": 1e4, "neurons": 30.0}])
def test_hostile_positions(scale: dict[str, float]) -> None:
    """One-hot predictions, residuals near zero norm, residuals far larger than the edits."""
    layer = made_up(2, **scale)
    found = Ablation(*layer[:3]).ablate(*layer[3:])
    assert worst(layer, found, every_pair(*found.delta_loss.shape)) <= 1


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    norm=st.sampled_from(["layer", "rms"]),
    biases=st.booleans(),
    logits=st.floats(0.01, 4),
    neurons=st.floats(1e-4, 2),
    residual=st.floats(0.01, 100),
)
def test_any_head_is_within_tolerance(
    seed: int, norm: str, biases: bool, logits: float, neurons: float, residual: float
) -> None:
    layer = made_up(seed, norm=norm, biases=biases, B=8, logits=logits, neurons=neurons, residual=residual)
    found = Ablation(*layer[:3]).ablate(*layer[3:])
    assert worst(layer, found, every_pair(*found.delta_loss.shape)) <= 1


@pytest.mark.slow
def test_all_effects_of_a_trained_head_are_within_tolerance(novella) -> None:
    head, w, reference, x, n, y = novella
    layer = (head, w[:64], reference[:64], x[:128], n[:128, :64], y[:128])
    counts = torch.arange(head.unembedding.shape[0]).flip(0)
    ablation = Ablation(*layer[:3], effects=ALL, unigram_counts=counts)
    found = ablation.ablate(*layer[3:])
    assert worst(layer, found, every_pair(128, 64), ALL, counts) <= 1
    assert (
        found.exact_pairs < found.delta_loss.numel() / 2
    )  # the series of every effect is used, not only the exact path


def test_no_edit_has_no_effect() -> None:
    head, w, _, x, n, y = made_up(3)
    still = n.clone()
    still[:, 1:] += 1
    w[2] = 0  # a neuron of zero weights
    found = Ablation(head, w, n[0], effects=ALL, unigram_counts=torch.ones(300)).ablate(x[:1], n[:1], y[:1])
    for name in ALL:
        assert not found.values[name].any()
    found = Ablation(head, w, n[0] + 1, effects=ALL, unigram_counts=torch.ones(300)).ablate(x, n, y)
    for name in ALL:
        assert not found.values[name][:, 2].any()


def test_permuted_neurons_give_permuted_effects() -> None:
    head, w, reference, x, n, y = made_up(4, neurons=0.05)
    order = torch.randperm(len(w), generator=torch.Generator().manual_seed(0))
    straight = Ablation(head, w, reference).ablate(x, n, y).delta_loss
    permuted = Ablation(head, w[order], reference[order]).ablate(x, n[:, order], y).delta_loss
    torch.testing.assert_close(permuted, straight[:, order], atol=1e-6, rtol=0)


def test_blocks_threads_and_memory_do_not_matter(novella) -> None:
    head, w, reference, x, n, y = novella
    x, n, y = x[:200], n[:200], y[:200]
    whole = Ablation(head, w, reference, sample=x).ablate(x, n, y)
    small = Ablation(head, w, reference, sample=x, memory=1 << 22)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    parts = [small.ablate(x[k : k + 70], n[k : k + 70], y[k : k + 70]) for k in range(0, 200, 70)]
    torch.set_num_threads(threads)
    for name in ("delta_loss", "loss", "entropy"):
        joined = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(joined, getattr(whole, name), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rows", [128, 320, 1000])
def test_blocks_of_the_vocabulary_do_not_matter(novella, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    head, w, reference, x, n, y = novella
    x, n, y = x[:96], n[:96], y[:96]
    whole = Ablation(head, w, reference, sample=x).ablate(x, n, y)
    monkeypatch.setattr("rare_tokens.ingest.ablation.ablation.piece_size", lambda *_: rows)
    found = Ablation(head, w, reference, sample=x).ablate(x, n, y)
    torch.testing.assert_close(found.delta_loss, whole.delta_loss, atol=1e-6, rtol=0)
    for name in ("loss", "entropy"):  # of logits about 30 in size, which float32 holds to 2e-6
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), atol=5e-6, rtol=0)


def test_blocks_of_neurons_do_not_matter(novella) -> None:
    head, w, reference, x, n, y = novella
    x, n, y = x[:96], n[:96], y[:96]
    whole = Ablation(head, w, reference, sample=x).ablate(x, n, y).delta_loss
    parts = [
        Ablation(head, w[k : k + 400], reference[k : k + 400], sample=x).ablate(x, n[:, k : k + 400], y).delta_loss
        for k in range(0, len(w), 400)
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-6, rtol=0)


def test_kept_logits_change_nothing(novella) -> None:
    """Where memory allows it the exact path takes z from the first pass."""
    head, w, reference, x, n, y = novella
    layer = (head, w[:50] * 8, reference[:50], x[:40], n[:40, :50], y[:40])
    ample, tight = (Ablation(*layer[:3], memory=size) for size in (2 << 30, 1 << 20))
    kept, built = (ablation.ablate(*layer[3:]) for ablation in (ample, tight))
    assert kept.exact_pairs == built.exact_pairs > 100
    torch.testing.assert_close(kept.delta_loss, built.delta_loss, atol=1e-6, rtol=1e-6)
    assert worst(layer, kept, every_pair(40, 50)) <= 1


def test_pairs_are_settled_few_at_a_time(novella, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many the series leaves over, no more wait than there is memory for."""
    layer = tuple(value[:160] if value is novella[3] or value is novella[4] else value for value in novella[:5])
    ablation, edited, targets = Ablation(*layer[:3], sample=novella[3][::4]), layer[3:], novella[5][:160]
    at_once, sizes = ablation.ablate(*edited, targets), []
    settle = AtPositions._settle

    def counted(self: Ablation, *given) -> None:
        sizes.append(len(given[-1]))
        settle(self, *given)

    monkeypatch.setattr(AtPositions, "_settle", counted)
    monkeypatch.setattr("rare_tokens.ingest.ablation.at_positions.EXACT_PAIRS", 100)
    found = ablation.ablate(*edited, targets)
    assert len(sizes) > 1
    assert sum(sizes) == found.exact_pairs == at_once.exact_pairs
    torch.testing.assert_close(found.delta_loss, at_once.delta_loss, atol=1e-7, rtol=1e-6)


def test_weighted_rows_are_the_sum_they_stand_for() -> None:
    generator = torch.Generator().manual_seed(0)
    table, weights = torch.randn(30, 200, generator=generator), torch.randn(77, 2, generator=generator)
    rows = torch.randint(30, (77, 2), generator=generator)
    expected = (table[rows].double() * weights.double()[..., None]).sum(1)
    for fused in (True, False):
        found = weighted_rows(table, rows.int(), weights, fused=fused)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


def test_the_unablated_loss_and_entropy(novella) -> None:
    head, w, reference, x, n, y = novella
    found = Ablation(head, w[:4], reference[:4]).ablate(x, n[:, :4], y)
    gain, bias = head.norm.gain.double(), head.norm.bias.double()
    normed = torch.nn.functional.layer_norm(x.double(), x.shape[1:], gain, bias, head.norm.eps)
    log_p = (normed @ head.unembedding.double().T).log_softmax(1)
    torch.testing.assert_close(found.loss.double(), -log_p.gather(1, y[:, None])[:, 0], atol=2e-5, rtol=0)
    torch.testing.assert_close(found.entropy.double(), -(log_p.exp() * log_p).sum(1), atol=2e-5, rtol=0)


def test_positions_are_chosen_by_memory(novella) -> None:
    head, w, reference, *_ = novella
    ample, tight = (Ablation(head, w, reference, memory=size) for size in (2 << 30, 64 << 20))
    assert ample.preferred_positions(100) == 100
    assert tight.preferred_positions(25_088) < ample.preferred_positions(25_088) <= 8192


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", range(6))
def test_values_that_are_not_finite_are_refused(value: float, where: int) -> None:
    head, w, reference, x, n, y = made_up(5)
    tensors = [head.unembedding, head.norm.gain, w, reference, x, n]
    tensors[where].view(-1)[3] = value
    with pytest.raises(UserError, match="not finite"):
        Ablation(head, w, reference).ablate(x, n, y)


def test_bad_input_is_refused() -> None:
    head, w, reference, x, n, y = made_up(6)
    with pytest.raises(UserError, match="tolerance"):
        Ablation(head, w, reference, tolerance=1e-9)
    with pytest.raises(UserError, match="--effects los: unknown"):
        Ablation(head, w, reference, effects=("los",))
    with pytest.raises(UserError, match="counts"):
        Ablation(head, w, reference, effects=("kl",))
    with pytest.raises(UserError, match="wide"):
        Ablation(head, w[:, :5], reference)
    with pytest.raises(UserError, match="shape"):
        Ablation(head, w, reference).ablate(x, n[:, :5], y)
    with pytest.raises(UserError, match="not a token id"):
        Ablation(head, w, reference).ablate(x, n, y + 300)


def test_edits_that_leave_almost_nothing_of_the_residual() -> None:
    """The edited residual is a thousandth, or a hundred-thousandth, of the old one: the norm blows it up again."""
    head, w, reference, x, n, y = made_up(8, norm="rms")
    w[:3] = x[:3] * torch.tensor([[0.999], [0.99999], [0.95]])
    n[:3, :3] = reference[:3] + 1
    layer = (head, w, reference, x, n, y)
    found = Ablation(head, w, reference).ablate(x, n, y)
    assert worst(layer, found, every_pair(*n.shape)) <= 1


def test_a_residual_without_variance() -> None:
    """Defined as long as the norm adds something to the variance, refused otherwise."""
    head, w, reference, x, n, y = made_up(7)
    x[3] = 2.5
    layer = (head, w, reference, x, n, y)
    found = Ablation(head, w, reference).ablate(x, n, y)
    assert worst(layer, found, every_pair(*n.shape)) <= 1
    bare = Head(head.unembedding, None, NormForm(True, head.norm.gain, None, 0.0))
    with pytest.raises(UserError, match="no variance"):
        Ablation(bare, w, reference).ablate(x, n, y)
