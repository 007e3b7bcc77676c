"""The attribution on the dense path, in both edit scopes: against automatic differentiation and differences."""

import json
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rare_tokens.common.effects import ATTRIBUTION, LOSS
from rare_tokens.ingest.dense.ablation import DenseAblation, Unrounded
from rare_tokens.ingest.dense.parts import attribution_bytes, dense_cost
from rare_tokens.ingest.model.structure import find_structure, hooked
from tests.ingest.dense.test_ablation import CASES, CONFIGS, losses
from tests.support.float64 import float64_model
from tests.support.tiny import save_folder, tiny_corpus, tiny_model

BOTH = (LOSS, ATTRIBUTION)
WINDOW, NEURONS = 16, 80
TOKENS = np.arange(WINDOW + 1) * 11 % 300
REFERENCE = torch.linspace(-0.3, 0.3, NEURONS)
MORE = [("olmo3", 0, "window"), ("qwen3", 0, "window"), ("phi", 0, "position"), ("cohere", 0, "window")]


def ablation_of(name: str, layer: int = 0, scope: str = "window", **options: Any) -> DenseAblation:
    model = tiny_model(CONFIGS[name])
    given = {"effects": BOTH} | options
    return DenseAblation(model, find_structure(model, layer), REFERENCE, edit_scope=scope, **given)


def differentiated(name: str, layer: int, scope: str) -> np.ndarray:
    """Attributions (positions × neurons) from whole passes of a float64 model whose activations are a variable."""
    model = float64_model(CONFIGS[name])
    found = find_structure(model, layer)
    inputs, targets = (torch.from_numpy(some)[None] for some in (TOKENS[:-1], TOKENS[1:]))
    seen: list[torch.Tensor] = []

    def vary(_module, args):
        seen.append(args[0].detach().requires_grad_())
        return (seen[0],)

    with hooked((found.out_projection, "before", vary)):
        loss = losses(model(input_ids=inputs).logits, targets)[0]
    gradients = [torch.autograd.grad(loss[t], seen[0], retain_graph=True)[0] for t in range(WINDOW)]
    gradient = torch.stack(gradients).view(WINDOW, WINDOW, NEURONS)  # of the loss at t by the activations at s
    shift = REFERENCE.double() - seen[0].detach().view(WINDOW, NEURONS)
    if scope == "window":
        return (gradient * shift).sum(1).numpy()
    return (gradient.diagonal(dim1=0, dim2=1).T * shift).numpy()


@pytest.mark.parametrize(("name", "layer", "scope"), CASES + MORE)
def test_every_pair_is_what_differentiating_the_whole_model_gives(name, layer, scope):
    ours = ablation_of(name, layer, scope).window(TOKENS).values[ATTRIBUTION]
    truth = differentiated(name, layer, scope)
    assert np.abs(truth).max() > 1e-2
    assert np.max(np.abs(ours - truth) / (1e-6 + 1e-4 * np.abs(truth))) <= 1


@pytest.mark.parametrize(
    ("name", "layer", "scope"),
    [("gpt2", 0, "window"), ("gpt2", 0, "position"), ("gemma2", -1, "window"), ("gemma3", 0, "window")],
)
def test_it_is_the_slope_of_the_effect(name, layer, scope, monkeypatch):
    """Effects of edits a ten-thousandth as large, to either side: what replaces n is n + h·a."""
    ablation = ablation_of(name, layer, scope)
    ours, record, slopes = ablation.window(TOKENS).values[ATTRIBUTION], ablation._record, []
    for h in (1e-4, -1e-4):

        def nearer(*given, h=h):
            base, shift = record(*given)
            return base, h * shift

        monkeypatch.setattr(ablation, "_record", nearer)
        slopes.append(ablation.window(TOKENS).values[LOSS].astype(np.float64) / h)
    np.testing.assert_allclose(ours, np.mean(slopes, axis=0), rtol=1e-4, atol=1e-6)


def test_the_edit_scopes_have_different_slopes():
    window, position = (
        ablation_of("gpt2", 0, scope).window(TOKENS).values[ATTRIBUTION] for scope in ("window", "position")
    )
    np.testing.assert_allclose(window[0], position[0], rtol=1e-5, atol=1e-7, err_msg="the first has none before it")
    assert np.abs(window - position).max() > 1e-2


@pytest.mark.parametrize("scope", ["window", "position"])
def test_only_the_predicted_positions_are_given_and_no_other_effect_matters(scope):
    ablation = ablation_of("gpt_neox", 0, scope)
    whole, last = ablation.window(TOKENS).values, ablation.window(TOKENS, predicted=3).values
    np.testing.assert_allclose(last[ATTRIBUTION], whole[ATTRIBUTION][-3:], rtol=0, atol=1e-7)
    counts = torch.arange(300)
    every = ablation_of("gpt_neox", 0, scope, effects=(LOSS, "direct", "kl", ATTRIBUTION), unigram_counts=counts)
    assert np.array_equal(every.window(TOKENS).values[ATTRIBUTION], whole[ATTRIBUTION])
    plain = ablation_of("gpt_neox", 0, scope, effects=(LOSS,)).window(TOKENS).values
    assert np.array_equal(plain[LOSS], whole[LOSS])
    assert ATTRIBUTION not in plain
    assert ATTRIBUTION not in ablation.window(TOKENS, [[1, 2], [3]]).values, "groups have none"


def test_half_precision_is_differentiated_one_precision_above():
    model = tiny_model(CONFIGS["gpt2"]).to(torch.bfloat16)
    ablation = DenseAblation(model, find_structure(model, 0), REFERENCE, effects=BOTH)
    exact = DenseAblation(model.float(), find_structure(model, 0), REFERENCE, effects=BOTH)
    ours, truth = (one.window(TOKENS).values[ATTRIBUTION] for one in (ablation, exact))
    assert ablation.dtype == torch.float32
    np.testing.assert_allclose(ours, truth, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("predicted", [1, 3, WINDOW])
def test_its_time_is_told_from_a_few_positions(predicted, monkeypatch):
    """A clock by which an attribution takes 2 s, and 3 s for each of its positions; the first one 100 s more."""
    ablation, clock = ablation_of("gpt2"), [0.0]
    taken = iter((100.0, 0.0, 0.0))

    def of(shift, targets):
        clock[0] += 2 + 3 * len(targets) + next(taken)
        return shift

    monkeypatch.setattr(ablation, "_attribution", SimpleNamespace(of=of))
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert ablation.attribution_seconds(TOKENS, predicted) == 2 + 3 * predicted
    assert ablation_of("gpt2", effects=(LOSS,)).attribution_seconds(TOKENS, WINDOW) == 0


@pytest.mark.parametrize("scope", ["window", "position"])
def test_its_time_can_be_tried_in_either_scope(scope):
    assert 0 < ablation_of("gpt2", 0, scope).attribution_seconds(TOKENS, WINDOW) < 10


def test_its_operations_are_reckoned():
    model = tiny_model(CONFIGS["gpt2"])
    rows = NEURONS * 100  # of 100 positions
    plain, attributed = (dense_cost(model, 0, rows, effects, WINDOW).operations for effects in ((LOSS,), BOTH))
    block = sum(weight.numel() for weight in model.transformer.h[1].parameters())
    assert attributed - plain == 2 * 100 * WINDOW * block
    assert dense_cost(model, 1, rows, BOTH, WINDOW).operations == dense_cost(model, 1, rows).operations


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "opt"])
def test_what_the_backward_passes_keep_fits_the_memory_that_is_told(name):
    ablation = ablation_of(name)
    weights = {weight.untyped_storage().data_ptr() for weight in ablation.model.parameters()}
    kept: dict[int, int] = {}

    def see(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with Unrounded(), torch.inference_mode():
        base, shift = ablation._record(TOKENS, None)
        with torch.autograd.graph.saved_tensors_hooks(see, lambda value: value):
            ablation._attribution.of(shift, base.before.targets)
    told = attribution_bytes(ablation.model, 0, WINDOW, 8)
    assert told / 3 < sum(kept.values()) <= told


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("more", [(), ("--layer", 0, "--edit-scope", "position", "--attention")])
def test_a_published_run_holds_it_and_its_groups_do_without(commands, tmp_path, more):
    model, corpus = save_folder(tmp_path / "gpt2", CONFIGS["gpt2"]), tiny_corpus(tmp_path / "corpus.jsonl")
    group = tmp_path / "groups.json"
    group.write_text(json.dumps({"few": [1, 2]}))
    asked = ("ingest", "--model", model, "--corpus", corpus, "--tokens", 32, "--window", 16, "--device", "cpu", *more)
    assert commands(*asked, "--effects", "loss,attribution", "--group", group).code == 0
    (row,) = json.loads(
        commands(
            "sql",
            "select count(*) as pairs, count(attributed_delta_loss) as known, corr(attributed_delta_loss, delta_loss) "
            "as likeness, max(abs(attributed_delta_loss - delta_loss)) as apart, "
            "(select count(*) from fct_group_effect) as group_pairs from fct_effect",
            "--json",
        ).out
    )
    assert (row["pairs"], row["known"], row["group_pairs"]) == (32 * NEURONS, 32 * NEURONS, 32)
    assert row["likeness"] > 0.5
    assert row["apart"] > 1e-4, "it is the effect to first order only"
