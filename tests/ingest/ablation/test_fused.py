"""The compiled pass over the vocabulary gives what torch gives, for every effect, and what a sum in float64 gives."""

import numpy as np
import pytest
import torch

from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.formulas.effects import FORMULAS
from rare_tokens.ingest.ablation.formulas.paths import OverVocabulary
from rare_tokens.ingest.ablation.numerics import compiler
from rare_tokens.ingest.ablation.vocabulary import exact, fused, kernel
from rare_tokens.ingest.ablation.vocabulary.exact import exact_effects, torch_sums
from rare_tokens.ingest.ablation.vocabulary.fused import fused_sums
from rare_tokens.ingest.model.head import PostNorm
from rare_tokens.ingest.model.norms import NormForm
from tests.support.ablation_layers import made_up

ALL = tuple(FORMULAS)
COUNTS = torch.arange(300) ** 2


def left_over(effects: tuple[str, ...], *, post: bool = False, memory: int = 2 << 30, neurons: float = 0.1):
    """An ablation, its block and the pairs that the series leaves over."""
    head, w, reference, x, n, y = made_up(21, neurons=neurons, logits=2.0)
    form = NormForm(False, torch.rand(24) + 0.5, None, 1e-5)
    ablation = Ablation(
        head,
        w,
        reference,
        effects=effects,
        unigram_counts=COUNTS,
        sample=x,
        memory=memory,
        post_norm=PostNorm(form, None) if post else None,
    )
    there = ablation.at(x, n, y)
    block = there.first.towards(reference)
    pairs = there.by_series(block, slice(0, len(x)))
    assert len(pairs) > 50
    return ablation, block, pairs


@pytest.mark.parametrize("memory", [2 << 30, 1 << 20])
@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("effects", [("loss",), ("loss", "direct", "kl", "frequency"), ALL])
def test_the_compiled_pass_gives_what_torch_gives(effects: tuple[str, ...], post: bool, memory: int) -> None:
    assert compiler.is_available()
    ablation, block, pairs = left_over(effects, post=post, memory=memory)
    assert (block.unablated.kept_z is None) == (memory < 2 << 30)
    told = [
        exact_effects(
            ablation.folded, block.unablated, ablation.layer.w, pairs, effects, ablation.directions, compiled=compiled
        )
        for compiled in (True, False)
    ]
    if effects != ALL:
        assert 0 < int(pairs.is_in_full.sum()) < len(pairs), "both kinds of pairs"
    for name in effects:
        usable = told[0]["loss"] > -0.5  # below, the sum comes near −1 and float32 holds neither
        assert usable.float().mean() > 0.5
        torch.testing.assert_close(told[0][name][usable], told[1][name][usable], atol=2e-6, rtol=2e-5)


def test_the_compiled_pass_is_exact_to_float32() -> None:
    """Σ p (e^(δ−δ_y) − 1) of every pair, against float64 from the same float32 factors."""
    ablation, block, pairs = left_over(("loss",), neurons=0.03)
    of = OverVocabulary(pairs, block.unablated, ablation.layer.w, None)
    change = FORMULAS["loss"].change(of)
    every = torch.full_like(pairs.rare_growth, torch.nan)
    in_full = type(pairs)(**(vars(pairs) | {"rare_growth": every}))
    found = fused_sums(ablation.folded, block.unablated, ablation.layer.w, in_full, {"loss": change}, None)["loss"][0]
    U = ablation.folded.gather(torch.arange(ablation.folded.vocabulary), torch.float64)
    z, m = block.unablated.rows[0].double() @ U.T, ablation.layer.w.double() @ U.T
    p = (z + ablation.folded.bias).softmax(1)
    t, i = pairs.t.long(), pairs.i.long()
    delta = change.u[0].double()[:, None] * z[t] + change.c.double()[:, None] * m[i] - change.target.double()[:, None]
    truth = (p[t] * delta.expm1()).sum(1)
    torch.testing.assert_close(found.double(), truth, atol=3e-7, rtol=1e-5)


@pytest.mark.parametrize("tokens", [7, 64, 512])
def test_tiles_of_tokens_and_neurons_do_not_matter(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ablation, block, pairs = left_over(("loss",))
    arguments = (ablation.folded, block.unablated, ablation.layer.w, pairs, ("loss",), None)
    plain = exact_effects(*arguments)["loss"]
    monkeypatch.setattr(fused, "_TOKENS", tokens)
    monkeypatch.setattr(fused, "_NEURONS", 3)
    torch.testing.assert_close(exact_effects(*arguments)["loss"], plain, atol=1e-7, rtol=2e-6)


def test_the_compiled_pass_has_the_same_bits_whatever_the_number_of_threads() -> None:
    ablation, block, pairs = left_over(("loss",))
    arguments = (ablation.folded, block.unablated, ablation.layer.w, pairs, ("loss",), None)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(exact_effects(*arguments)["loss"])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_without_the_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(compiler, "is_available", lambda: False)
    monkeypatch.setattr(exact, "torch_sums", lambda *given: asked.append(1) or torch_sums(*given))
    head, w, reference, x, n, y = made_up(21, neurons=0.3, logits=2.0)
    Ablation(head, w, reference).ablate(x, n, y)
    assert asked


@pytest.mark.parametrize("exponent", [-40.0, -1.0, -1e-6, 0.0, 1e-6, 0.4, 1.0, 40.0])
def test_powers_of_two_do_not_cancel(exponent: float) -> None:
    """Tokens of equal probability, whose logits all move by the exponent: the sum is 2^exponent − 1."""
    single = np.float32
    nothing, zero, place = np.zeros((1, 1, 16), single), np.zeros(1, single), np.zeros(1, np.int32)
    axis, bias, u = np.full(16, exponent, single), np.full(16, -np.log(16), single), np.eye(3, 1, -2, single)
    sums = np.zeros((1, 1))
    run = kernel.compiled(False, True, False)
    run(nothing, 0, bias, zero, zero, place - 1, nothing[0], axis, place, place, u, zero, zero, 0, 1, sums)
    expected = np.expm1(np.float64(single(exponent)) * np.log(2))
    assert abs(sums[0, 0] - expected) <= 4e-7 * abs(expected)


def test_a_loop_that_cannot_be_kept_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be written, or a full disk."""
    import numba

    real, asked = numba.njit, []

    def njit(*given, cache, **named):
        asked.append(cache)
        if cache:
            raise OSError(28, "No space left on device")
        return real(*given, cache=cache, **named)

    monkeypatch.setattr(numba, "njit", njit)
    double = compiler.jit("void(f8[::1])")(_double)
    values = np.ones(3)
    double(values)
    assert values.tolist() == [2, 2, 2]
    assert asked == [True, False]


def _double(values) -> None:
    for k in range(len(values)):
        values[k] *= 2
