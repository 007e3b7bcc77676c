"""The embedded model as it is committed: what its card promises, checked from the files alone."""

import hashlib
import json
import math
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from rare_tokens.ingest.embedded import FREQUENCIES, MODEL_FOLDER, reference_documents
from studies.embedded_model.text import OVERLAP_WORDS, is_prose, new_prose, training_text, word_runs
from studies.embedded_model.train import (
    LOG,
    TOKENIZER,
    TOKENS,
    Batches,
    Recipe,
    evaluation_windows,
    mean_loss,
    pack,
    train_worker,
    unigram_entropy,
)

LARGEST_TOTAL = 32_000_000  # bytes
SMALLEST_MARGIN = 2.0  # nats
STEPS = sorted(int(folder.name.removeprefix("step")) for folder in MODEL_FOLDER.glob("step*"))


def load(step: int) -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL_FOLDER / f"step{step}", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(MODEL_FOLDER / f"step{STEPS[-1]}")


@pytest.fixture(scope="module")
def reference_tokens(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    return pack(tokenizer, reference_documents())


@pytest.fixture(scope="module")
def last_model() -> Any:
    return load(STEPS[-1])


@pytest.fixture(scope="module")
def log() -> dict[str, Any]:
    return json.loads((MODEL_FOLDER / "training_log.json").read_text(encoding="utf-8"))


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, rare_tokens.ingest.embedded; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_committed_is_small_enough() -> None:
    files = [path for path in MODEL_FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= LARGEST_TOTAL


def test_the_series_begins_at_zero_and_is_log_spaced() -> None:
    assert STEPS[0] == 0
    assert len(STEPS) >= 6
    ratios = [later / earlier for earlier, later in pairwise(STEPS[1:])]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=0.01)
    assert ratios[0] >= 2


@pytest.mark.parametrize("step", STEPS)
def test_each_checkpoint_is_a_complete_folder_in_half_precision(step: int) -> None:
    folder = MODEL_FOLDER / f"step{step}"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    assert model.config.model_type == "gpt_neox"
    assert model.config.use_parallel_residual
    assert not model.config.tie_word_embeddings
    assert model.config.intermediate_size <= 512
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert len(words) == model.config.vocab_size
    assert words.eos_token_id == model.config.eos_token_id


def test_every_checkpoint_has_the_same_tokenizer() -> None:
    files = [(MODEL_FOLDER / f"step{step}" / "tokenizer.json").read_bytes() for step in STEPS]
    assert len(set(files)) == 1


def test_the_first_checkpoint_is_untrained(reference_tokens: np.ndarray) -> None:
    model = load(0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 1:
            assert bool((parameter == 1).all()), name
        else:
            assert float(parameter.detach().std()) == pytest.approx(model.config.initializer_range, rel=0.05), name
    loss = mean_loss(model, evaluation_windows(reference_tokens))
    assert loss == pytest.approx(math.log(model.config.vocab_size), abs=0.1)


def test_the_last_checkpoint_beats_the_unigram_entropy(last_model: Any, reference_tokens: np.ndarray) -> None:
    loss = mean_loss(last_model, evaluation_windows(reference_tokens))
    assert unigram_entropy(reference_tokens) - loss >= SMALLEST_MARGIN


@pytest.mark.slow
def test_the_logged_losses_are_what_the_committed_files_give(log: dict[str, Any], reference_tokens: np.ndarray) -> None:
    if hashlib.sha256("\0".join(reference_documents()).encode()).hexdigest() != log["reference_text"]["sha256"]:
        pytest.skip("this Python carries another edition of its language reference than the log's")
    assert [item["step"] for item in log["checkpoints"]] == STEPS
    assert unigram_entropy(reference_tokens) == pytest.approx(log["reference_text"]["unigram_entropy"], abs=1e-9)
    windows = evaluation_windows(reference_tokens)
    for item in log["checkpoints"]:
        assert mean_loss(load(item["step"]), windows) == pytest.approx(item["reference_loss"], abs=1e-4), item["step"]


def test_counts_match_the_vocabulary(log: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> None:
    counts = np.load(FREQUENCIES)
    assert counts.dtype == np.int64
    assert counts.shape == (len(tokenizer),)
    assert int(counts.min()) >= 0
    assert int(counts.sum()) == log["training_text"]["tokens"]
    separators = log["training_text"]["documents"] + log["training_text"]["separators_within_documents"]
    assert int(counts[tokenizer.eos_token_id]) == separators
    the, rare = tokenizer.encode(" the"), tokenizer.encode(" parenthesized")
    assert counts[the[0]] > 50 * min(counts[token] for token in rare)


def test_no_neuron_of_the_last_layer_is_dead(last_model: Any, reference_tokens: np.ndarray) -> None:
    captured = []
    mlp = last_model.gpt_neox.layers[-1].mlp
    hook = mlp.act.register_forward_hook(lambda _module, _inputs, output: captured.append(output.flatten(0, 1)))
    mean_loss(last_model, evaluation_windows(reference_tokens)[::5])
    hook.remove()
    activations = torch.cat(captured)
    assert float(activations.std(dim=0).min()) > 0.01
    assert bool((activations.max(dim=0).values > 0.1).all())


def test_the_card_states_the_logged_figures(log: dict[str, Any]) -> None:
    card = (MODEL_FOLDER / "CARD.md").read_text(encoding="utf-8")
    text, reference = log["training_text"], log["reference_text"]
    stated = [text["sha256"], reference["sha256"], f"{text['tokens']:,}", f"{text['characters']:,}"]
    stated += [f"{reference['unigram_entropy']:.3f}", f"{log['parameters']:,}"]
    stated += [
        f"| {item['step']:,} | {item['tokens']:,} | {item['train_loss']:.3f} | {item['reference_loss']:.3f} |"
        for item in log["checkpoints"]
    ]
    stated += [f"| {item['name']} | {item['version']} | {item['licence']} |" for item in text["sources"]]
    assert [item for item in stated if item not in card] == []


def test_reference_documents_come_in_a_fixed_order_and_are_python() -> None:
    documents = reference_documents()
    assert documents == reference_documents()
    assert len(documents) > 50
    assert re.search(r"assert_stmt\s+::=|assert_stmt:", documents[0])


def write_project(folder: Path) -> Path:
    path = folder / "pyproject.toml"
    path.write_text('[project]\ndependencies = ["click"]\n', encoding="utf-8")
    return path


def test_training_text_leaves_out_what_overlaps_the_held_out_text(tmp_path: Path) -> None:
    whole = training_text(write_project(tmp_path), [], workers=1)
    words = re.findall(r"\w+", max(whole.documents, key=len))
    held_out = " ".join(words[100 : 100 + OVERLAP_WORDS])
    clean = training_text(write_project(tmp_path), [held_out], workers=1)
    run = next(word_runs(held_out))
    assert any(run in set(word_runs(document)) for document in whole.documents)
    assert not any(run in set(word_runs(document)) for document in clean.documents)
    assert clean.overlapping > whole.overlapping == 0
    assert clean.sha256 != whole.sha256
    assert "click" in [source.name for source in clean.sources if source.documents]


def test_a_table_of_numbers_is_no_prose_and_long_paragraphs_are_kept_once() -> None:
    assert is_prose("Returns the sum of x and y.")
    assert not is_prose("1.0  2.0  3.0\n4.0  5.0  6.0")
    assert not is_prose(" \n ")
    long = "A paragraph that is long enough to count as a repetition when it is met again."
    assert list(new_prose([f"Notes\n\n{long}", f"Notes\n\n{long}"], set())) == ["Notes", long, "Notes"]


def test_the_learning_rate_rises_then_decays_to_nothing() -> None:
    recipe = Recipe()
    rates = [recipe.learning_rate(step) for step in range(recipe.checkpoints[-1] + 1)]
    assert max(rates) == pytest.approx(recipe.peak_learning_rate)
    assert rates.index(max(rates)) in (recipe.warmup_steps - 1, recipe.warmup_steps)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_batches_show_every_window_once_before_any_again() -> None:
    recipe = Recipe(context=4, windows_per_step=2)
    batches = Batches(np.arange(33), recipe)
    firsts = torch.cat([batches.next()[:, 0] for _ in range(3)])
    assert len(set(firsts.tolist())) == len(firsts)
    assert set((firsts % 4).tolist()) == {int(firsts[0]) % 4}


@pytest.mark.slow
def test_training_writes_checkpoints_and_log_and_learns(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    recipe = Recipe(width=20, layers=1, heads=1, neurons=16, context=256, windows_per_step=2, checkpoints=(0, 30))
    tokens = pack(tokenizer, ["The sum of x and y is returned as a new array. " * 2000])
    (tmp_path / TOKENIZER).write_bytes((MODEL_FOLDER / "step0" / "tokenizer.json").read_bytes())
    np.save(tmp_path / TOKENS, tokens.astype(np.uint16))
    (tmp_path / LOG).write_text('{"checkpoints": []}', encoding="utf-8")
    threads = torch.get_num_threads()
    try:
        train_worker(0, 1, recipe, tmp_path)
    finally:
        torch.set_num_threads(threads)
    first, last = json.loads((tmp_path / LOG).read_text(encoding="utf-8"))["checkpoints"]
    assert (first["step"], last["step"], last["tokens"]) == (0, 30, 30 * 2 * 256)
    assert last["train_loss"] < first["train_loss"] - 0.2
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "step30", dtype=torch.float32)
    assert mean_loss(again, evaluation_windows(tokens)) == pytest.approx(last["train_loss"], abs=1e-5)
