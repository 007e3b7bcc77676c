"""The dense path: Δ of every pair of a whole ingest against a hooked float64 model, at any layer."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from rare_tokens.common.errors import UserError
from rare_tokens.common.parts import EFFECT_COLUMNS, effect_path, read_manifest, read_summary
from rare_tokens.ingest.ablation.stages.capture import mean_activations
from rare_tokens.ingest.dense import ablation as dense
from rare_tokens.ingest.model.structure import find_structure, hooked
from rare_tokens.ingest.run.execution import execute
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.pipeline import Prepared, Workbench
from rare_tokens.ingest.run.request import Options, identify
from tests.support.float64 import float64_model
from tests.support.tiny import DENSE, SUPPORTED, save_folder, tiny_corpus, tiny_model

WINDOW, POSITIONS = 16, 32
CONFIGS = SUPPORTED | DENSE
ALL_EFFECTS = tuple(EFFECT_COLUMNS)

CASES = [
    ("gemma2", -1, "window"),
    ("granite", -1, "window"),
    ("gpt2", 0, "window"),
    ("gpt2", 0, "position"),
    ("gpt_neox", 0, "position"),
    ("gpt_neox", -2, "window"),
    ("gpt_neo", 0, "window"),
    ("gpt_neo", 0, "position"),
    ("gemma2", 0, "window"),
    ("gemma2", 0, "position"),
    ("gemma3", 0, "position"),
    ("olmo2", 0, "position"),
    ("opt", 0, "window"),
    ("opt", 0, "position"),
    ("gptj", 0, "position"),
    ("llama", 0, "position"),
]


def ingest(tmp_path: Path, name: str, **options: Any) -> tuple[pl.DataFrame, Path, Prepared]:
    model = save_folder(tmp_path / name, CONFIGS[name])
    corpus = tiny_corpus(tmp_path / "corpus.jsonl")
    given = {"tokens": POSITIONS, "window": WINDOW, "device": "cpu"} | options
    wanted = Options(str(model), corpus=(str(corpus),), **given)
    prepared = Workbench().prepare(identify(wanted)[0])
    folder = tmp_path / "parts"
    execute(prepared, folder, LocalExecutor(quiet=True))
    blocks = [pl.read_parquet(path) for path in sorted((folder / "fct_effect").iterdir())]
    return pl.concat(blocks).sort("position_id", "neuron"), folder, prepared


def losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(
        targets.shape
    )


def hooked_effects(name: str, tokens: np.ndarray, layer: int, scope: str, value: str = "mean") -> np.ndarray:
    """Δ (windows × positions × neurons) from whole forward passes in float64, one or more a neuron."""
    model = float64_model(CONFIGS[name])
    found = find_structure(model, layer)
    inputs, targets = torch.from_numpy(tokens[:, :-1]), torch.from_numpy(tokens[:, 1:])
    windows, length = inputs.shape
    seen = []
    with hooked((found.out_projection, "before", lambda _m, args: seen.append(args[0]))):
        baseline = losses(model(input_ids=inputs).logits, targets)
    mean = seen[0].reshape(-1, found.neurons).mean(0)
    effects = torch.zeros(windows, length, found.neurons, dtype=torch.float64)
    for neuron in range(found.neurons):
        reference = mean[neuron] if value == "mean" else 0.0

        def everywhere(_module, args, neuron=neuron, reference=reference):
            edited = args[0].clone()
            edited[..., neuron] = reference
            return (edited,)

        def one_each(_module, args, neuron=neuron, reference=reference):
            edited = args[0].clone()
            edited.view(windows, length, length, -1).diagonal(dim1=1, dim2=2)[:, neuron] = reference
            return (edited,)

        if scope == "window":
            with hooked((found.out_projection, "before", everywhere)):
                effects[..., neuron] = losses(model(input_ids=inputs).logits, targets) - baseline
        else:  # each window as many times as it has positions, edited at another one each time
            with hooked((found.out_projection, "before", one_each)):
                logits = model(input_ids=inputs.repeat_interleave(length, 0)).logits
            ablated = losses(logits, targets.repeat_interleave(length, 0)).view(windows, length, length)
            effects[..., neuron] = ablated.diagonal(dim1=1, dim2=2) - baseline
    return effects.numpy()


def worst(ours: np.ndarray, truth: np.ndarray) -> float:
    return float(np.max(np.abs(ours - truth) / (1e-6 + 1e-4 * np.abs(truth))))


@pytest.mark.quick_cases(6)
@pytest.mark.parametrize(("name", "layer", "scope"), CASES)
def test_every_pair_is_within_tolerance_of_the_hooked_model(name, layer, scope, tmp_path):
    facts, folder, prepared = ingest(tmp_path, name, layer=layer, edit_scope=scope)
    truth = hooked_effects(name, prepared.material.sample.tokens, layer, scope)
    ours = facts["delta_loss"].to_numpy().reshape(truth.shape)
    assert np.abs(truth).max() > 1e-2, "the model's neurons must matter for the test to mean anything"
    assert worst(ours, truth) <= 1
    summary, manifest = read_summary(folder), read_manifest(folder)
    assert summary is not None
    assert manifest is not None
    assert 0 < summary.self_check_error <= 1
    assert 0 < summary.structural_check_error <= 1
    assert summary.exact_pairs == ours.size
    assert manifest.layer == layer % 2
    assert manifest.facts["path"] == "dense"
    assert manifest.facts["between"] == list(prepared.structure.between) != []


def test_the_two_edit_scopes_differ_below_the_last_layer(tmp_path):
    tokens = np.arange(34).reshape(2, 17) * 7 % 300
    window, position = (hooked_effects("gpt2", tokens, 0, scope) for scope in ("window", "position"))
    assert worst(window[:, 0], position[:, 0]) <= 1, "the first position has none before it"
    assert worst(window, position) > 1_000


def test_the_edit_scope_is_part_of_a_runs_identity_below_the_last_layer(tmp_path):
    model = str(save_folder(tmp_path / "gpt2", SUPPORTED["gpt2"]))
    corpus = (str(tiny_corpus(tmp_path / "corpus.jsonl")),)

    def run_id(layer: int, scope: str) -> str:
        wanted = Options(model, corpus=corpus, tokens=32, window=16, layer=layer, edit_scope=scope)
        return identify(wanted)[0].run_id

    assert run_id(-1, "window") == run_id(1, "position"), "in the last layer both agree"
    assert run_id(0, "window") == run_id(-2, "window")
    assert len({run_id(1, "window"), run_id(0, "window"), run_id(0, "position")}) == 3


def test_zero_ablation_of_an_earlier_layer(tmp_path):
    facts, _, prepared = ingest(tmp_path, "llama", layer=0, ablation="zero")
    truth = hooked_effects("llama", prepared.material.sample.tokens, 0, "window", "zero")
    assert worst(facts["delta_loss"].to_numpy().reshape(truth.shape), truth) <= 1


@pytest.mark.parametrize("scope", ["window", "position"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "cohere"])
def test_all_effects_of_the_dense_path_are_those_of_the_ablation_by_moments(name, scope, tmp_path, monkeypatch):
    """In the last layer of a plain decoder both paths hold, so each checks the other."""
    fast, _, prepared = ingest(tmp_path / "fast", name, effects=ALL_EFFECTS)
    structure = prepared.structure
    sample, counts = prepared.material.sample, torch.from_numpy(prepared.material.counts.counts)
    reference = torch.from_numpy(mean_activations_of(fast, structure.neurons))
    found = dense.DenseAblation(
        prepared.model, structure, reference, edit_scope=scope, effects=ALL_EFFECTS, unigram_counts=counts
    )
    found.at_once = scope == "window"
    for window, tokens in enumerate(sample.tokens):
        effects = found.window(tokens).values
        rows = fast.filter(pl.col("position_id") // WINDOW == window)
        for effect, column in EFFECT_COLUMNS.items():
            assert worst(effects[effect], rows[column].to_numpy().reshape(WINDOW, -1)) <= 1.5, effect


def mean_activations_of(facts: pl.DataFrame, neurons: int) -> np.ndarray:
    return facts["activation"].to_numpy().reshape(-1, neurons).mean(0, dtype=np.float64).astype(np.float32)


@pytest.mark.parametrize("scope", ["window", "position"])
def test_results_do_not_depend_on_the_batch(scope):
    model = tiny_model(DENSE["gemma2"])
    structure = find_structure(model, 0)
    tokens = np.arange(17) * 11 % 300
    seen = []
    for memory in (1 << 18, 1 << 31):
        ablation = dense.DenseAblation(model, structure, torch.zeros(80), edit_scope=scope, memory=memory)
        seen.append(ablation.window(tokens).values["loss"])
    np.testing.assert_allclose(seen[0], seen[1], rtol=0, atol=1e-7)


def test_only_the_predicted_positions_of_a_window_are_given():
    model = tiny_model(SUPPORTED["gpt_neox"])
    tokens = np.arange(17) * 13 % 300
    for scope in ("window", "position"):
        ablation = dense.DenseAblation(model, find_structure(model, 0), torch.zeros(80), edit_scope=scope)
        whole, last = ablation.window(tokens), ablation.window(tokens, predicted=3)
        np.testing.assert_allclose(last.values["loss"], whole.values["loss"][-3:], rtol=0, atol=1e-7)
        np.testing.assert_allclose(last.loss, whole.loss[-3:], rtol=0, atol=1e-7)


def test_an_edit_of_nothing_and_a_neuron_of_zero_weights_change_nothing():
    model = tiny_model(SUPPORTED["olmo2"])
    structure = find_structure(model)
    structure.out_projection.weight.data[:, 5] = 0
    tokens = np.arange(17) * 13 % 300
    effects = dense.DenseAblation(model, structure, torch.zeros(80)).window(tokens).values["loss"]
    assert np.abs(effects[:, 5]).max() == 0
    assert np.abs(effects[:, 4]).max() > 1e-3


def test_the_cost_is_said_before_the_work_starts(tmp_path, caplog, monkeypatch):
    started = []
    run = dense.DenseAblation.window

    def window(*given: Any, **named: Any) -> Any:
        started.append([record.message for record in caplog.records])
        return run(*given, **named)

    monkeypatch.setattr(dense.DenseAblation, "window", window)
    with caplog.at_level(logging.INFO, "rare_tokens"):
        ingest(tmp_path, "gpt2", layer=0)
    said = [text for text in started[0] if "Dense path" in text]
    assert len(said) == 1
    assert "layer 0 of 2 is below the last" in said[0]
    assert "2,560 positions run again through 1 layer and the unembedding, in float64 on cpu" in said[0]


def test_half_precision_is_computed_one_precision_above(tmp_path):
    _, folder, prepared = ingest(tmp_path, "gemma2", dtype="bfloat16")
    assert prepared.model.dtype == torch.bfloat16
    summary = read_summary(folder)
    assert summary is not None
    assert any("Computed in float32 from bfloat16" in warning for warning in summary.warnings)


def test_a_wrong_effect_fails_the_self_check(tmp_path, monkeypatch):
    measure = dense._Base.measure
    monkeypatch.setattr(
        dense._Base, "measure", lambda *given: {name: 1.01 * value for name, value in measure(*given).items()}
    )
    with pytest.raises(UserError, match="Self-check failed"):
        ingest(tmp_path, "gpt2", layer=0)


def test_a_model_that_cannot_be_run_from_its_middle_is_refused_by_name(monkeypatch):
    model = tiny_model(SUPPORTED["gpt2"])
    structure = find_structure(model, 0)
    model.transformer.h[1].ln_1.register_forward_hook(
        lambda _m, _args, output: output * (1 + 1e-3 * structure.out_projection.calls)
    )
    structure.out_projection.calls = 0

    def count(module, _args):
        module.calls += 1

    structure.out_projection.register_forward_pre_hook(count)
    with pytest.raises(UserError, match=r"GPT2LMHeadModel needs the dense path .layer 0 of 2"):
        dense.confirm_replay(model, structure, "window")


def test_effects_that_are_not_finite_are_refused():
    model = tiny_model(SUPPORTED["gpt2"])
    structure = find_structure(model, 0)
    reference = torch.zeros(80)
    reference[3] = float("inf")
    with pytest.raises(UserError, match="loss is NaN or infinite"):
        dense.DenseAblation(model, structure, reference).window(np.arange(17))


def test_interrupted_it_goes_on_with_the_windows_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("rare_tokens.ingest.dense.parts.PAIRS_PER_PART", 1)
    whole, folder, prepared = ingest(tmp_path, "gemma3", layer=0)
    assert len(list((folder / "fct_effect").iterdir())) == POSITIONS // WINDOW
    again = tmp_path / "again"
    run, calls = dense.DenseAblation.window, []

    def window(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(*given, **named)

    monkeypatch.setattr(dense.DenseAblation, "window", window)
    with pytest.raises(KeyboardInterrupt):
        execute(prepared, again, LocalExecutor(quiet=True))
    assert [path.name for path in (again / "fct_effect").iterdir()] == ["00000.parquet"]
    execute(prepared, again, LocalExecutor(quiet=True))
    assert len(calls) == 3
    for block in range(2):
        assert pl.read_parquet(effect_path(again, block)).equals(pl.read_parquet(effect_path(folder, block)))
    assert whole.height == POSITIONS * 80


@pytest.mark.parametrize("name", ["gemma3", "olmo2", "olmo3", "llama"])
def test_the_fast_path_gives_what_the_dense_path_gives(name, tmp_path):
    """A norm after the MLP included: the same model, once by moments and once run again for each neuron."""
    facts, _, prepared = ingest(tmp_path, name)
    structure = prepared.structure
    assert structure.between == ()
    reference = torch.from_numpy(mean_activations(captured_again(prepared)).astype(np.float32))
    slow = dense.DenseAblation(prepared.model, structure, reference)
    sample = prepared.material.sample
    effects = np.concatenate([slow.window(tokens).values["loss"] for tokens in sample.tokens])
    ours = facts["delta_loss"].to_numpy().reshape(effects.shape)
    assert np.abs(effects).max() > 1e-3
    assert (np.abs(ours - effects) / (2e-6 + 2e-4 * np.abs(effects))).max() <= 1


def captured_again(prepared: Prepared) -> np.ndarray:
    """Activations at all positions, by hooks."""
    seen = []
    keep = (prepared.structure.out_projection, "before", lambda _module, args: seen.append(args[0].flatten(0, 1)))
    with torch.inference_mode(), hooked(keep):
        for tokens in prepared.material.sample.tokens:
            prepared.model(input_ids=torch.from_numpy(tokens[None, :-1]))
    return torch.cat(seen).numpy()
