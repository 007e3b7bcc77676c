"""A series goes on: past a twin, past a checkpoint that fails or is refused, and over several models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rare_tokens import warehouse
from rare_tokens.common.parts import parts_root
from tests.support.commands import Commands, Ended
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

SHAPE = ("--tokens", 256, "--window", 32, "--device", "cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("text") / "corpus.jsonl", documents=200)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three checkpoints of a training."""
    folder = tmp_path_factory.mktemp("steps")
    return [save_folder(folder / str(seed), SUPPORTED["gpt_neox"], seed=seed) for seed in range(3)]


def edit(folder: Path, change: Any) -> None:
    """Change the weights of a checkpoint."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def ingest(commands: Commands, corpus: Path, *more: object) -> tuple[Ended, dict[str, dict[str, Any]]]:
    """Run an ingest; how it ended, and its table by revision."""
    ended = commands("ingest", "--corpus", corpus, *SHAPE, "--json", *more)
    return ended, {row["revision"]: row for row in json.loads(ended.out or "[]")}


@pytest.mark.slow
def test_a_twin_is_recorded_and_the_series_goes_on(commands: Commands, corpus: Path, steps: list[Path]) -> None:
    folder = commands.folder / "grown"
    for name, source in (("step0", 0), ("step1", 0), ("step64", 1), ("step256", 2)):
        shutil.copytree(steps[source], folder / name)
    config = json.loads((folder / "step1/config.json").read_text())
    (folder / "step1/config.json").write_text(json.dumps(config | {"transformers_version": "0.0.1"}))
    ended, rows = ingest(commands, corpus, "--model", folder, "--revisions", "step0..step256:log")
    assert ended.code == 0, ended.err
    assert {name: row["status"] for name, row in rows.items()} == {
        "step0": "published", "step1": "twin", "step64": "published", "step256": "published"
    }  # fmt: skip
    twin, first = rows["step1"], rows["step0"]
    assert twin["twin_of"] == first["run_id"]
    assert twin["model_hash"] != first["model_hash"], "the configurations differ in what does not matter"
    assert [row["training_step"] for row in rows.values()] == [0, 1, 64, 256]
    assert f"{twin['run_id']} is a twin of {first['run_id']}" in ended.err
    assert not parts_root(commands.folder / "rare_tokens.duckdb").exists() or not any(
        parts_root(commands.folder / "rare_tokens.duckdb").iterdir()
    )
    with warehouse.open("rare_tokens.duckdb") as opened:
        assert opened.fct_effect(run_id=twin["run_id"]).is_empty()
        assert sorted(opened.sql("from audit_drift select run_id, previous_run_id, steps").rows()) == sorted(
            [
                (rows["step64"]["run_id"], first["run_id"], 64),
                (rows["step256"]["run_id"], rows["step64"]["run_id"], 192),
            ]
        )
    again, found = ingest(commands, corpus, "--model", folder, "--revisions", "step0..step256:log")
    assert (again.code, found) == (0, rows), "nothing is computed again, nor recorded anew"
    assert again.err.count("is already published") == 3


@pytest.mark.slow
def test_the_same_weights_in_another_architecture_are_no_twin(
    commands: Commands, corpus: Path, steps: list[Path]
) -> None:
    for name in ("step0", "step1"):
        shutil.copytree(steps[0], commands.folder / "grown" / name)
    file = commands.folder / "grown/step1/config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"use_parallel_residual": not config["use_parallel_residual"]}))
    ended, rows = ingest(commands, corpus, "--model", commands.folder / "grown", "--revisions", "0..1")
    assert ended.code == 0, ended.err
    assert [row["status"] for row in rows.values()] == ["published", "published"]


@pytest.mark.slow
def test_what_fails_is_recorded_with_its_reason_and_tried_again(
    commands: Commands, corpus: Path, steps: list[Path]
) -> None:
    folder = commands.folder / "grown"
    for name, source in (("checkpoint-1", 0), ("checkpoint-2", 1), ("checkpoint-3", 1), ("checkpoint-4", 2)):
        shutil.copytree(steps[source], folder / name)
    edit(folder / "checkpoint-2", lambda weights: weights["embed_out.weight"].fill_(torch.nan))
    (folder / "checkpoint-3/tokenizer.json").unlink()
    ended, rows = ingest(commands, corpus, "--model", folder, "--revisions", "checkpoint-1..checkpoint-4")
    assert ended.code == 2
    assert [row["status"] for row in rows.values()] == ["published", "failed", "failed", "published"]
    assert "2 of 4 runs failed" in ended.err
    assert "NaN" in rows["checkpoint-2"]["status_reason"]
    assert "no tokenizer" in rows["checkpoint-3"]["status_reason"]
    assert str(commands.folder) not in json.dumps(rows), "what is stored is passed on: no folder of this machine"
    for broken, source in (("checkpoint-2", 1), ("checkpoint-3", 1)):
        shutil.rmtree(folder / broken)
        shutil.copytree(steps[source], folder / broken)
    again, rows = ingest(commands, corpus, "--model", folder, "--revisions", "checkpoint-1..checkpoint-4")
    assert again.code == 0, again.err
    assert again.err.count("is already published") == 2
    assert [row["status"] for row in rows.values()] == ["published", "published", "twin", "published"]
    assert len(json.loads(commands("runs", "--json").out)) == 4, "no record of the failures is left"


@pytest.mark.slow
def test_a_refused_checkpoint_does_not_end_the_series(commands: Commands, corpus: Path, steps: list[Path]) -> None:
    folder = commands.folder / "grown"
    for number in range(3):
        shutil.copytree(steps[number], folder / f"step{number}")
    edit(folder / "step1", lambda weights: weights["embed_out.weight"].mul_(100))
    ended, rows = ingest(commands, corpus, "--model", folder, "--revisions", "step0..step2")
    assert (ended.code, [row["status"] for row in rows.values()]) == (3, ["published", "rejected", "published"])
    assert "mean loss rises" in rows["step1"]["status_reason"]
    assert "1 of 3 runs failed" in ended.err


def test_a_wrong_option_ends_a_series_at_once_and_leaves_nothing(
    commands: Commands, corpus: Path, steps: list[Path]
) -> None:
    for number in range(2):
        shutil.copytree(steps[number], commands.folder / "grown" / f"step{number}")
    for option, value in (("--window", 128), ("--layer", 9), ("--frequencies", "none.npy"), ("--tokens", 2**20)):
        given = ("--tokens", 128) if option == "--window" else ()
        ended, _ = ingest(commands, corpus, "--model", "grown", "--revisions", "step0..step1", *given, option, value)
        assert ended.code == 2
        assert "of 2 runs failed" not in ended.err
        assert not commands.runs(), option


def test_a_named_checkpoint_that_a_folder_lacks_is_refused_before_any_work(
    commands: Commands, corpus: Path, steps: list[Path]
) -> None:
    shutil.copytree(steps[0], commands.folder / "grown/step0")
    ended, _ = ingest(commands, corpus, "--model", "grown", "--revision", "step0", "--revision", "step9")
    assert (ended.code, "There are step0" in ended.err) == (2, True)
    assert not commands.runs()


@pytest.mark.slow
def test_several_models_are_one_table_and_one_that_fails_does_not_stop_the_others(
    commands: Commands, corpus: Path, steps: list[Path]
) -> None:
    for name, source in (("seed1", 0), ("seed2", 1)):
        shutil.copytree(steps[source], commands.folder / name)
    models = [part for name in ("seed1", "./gone", "seed2") for part in ("--model", name)]
    ended = commands("ingest", "--corpus", corpus, *SHAPE, "--json", *models)
    rows = json.loads(ended.out)
    assert [(row["model"], row["status"]) for row in rows] == [
        ("seed1", "published"), ("gone", "failed"), ("seed2", "published")
    ]  # fmt: skip
    assert (ended.code, "1 of 3 runs failed" in ended.err, "does not exist" in rows[1]["status_reason"]) == (
        2,
        True,
        True,
    )
    assert json.loads(rows[0]["options"])["model"] == "seed1"
    estimate = commands("ingest", "--corpus", corpus, *SHAPE, "--json", "--dry-run", *models)
    assert (estimate.code, len(json.loads(estimate.out))) == (2, 2)
    twice = commands("ingest", "--corpus", corpus, *SHAPE, "--model", "seed1", "--model", "seed1")
    assert (twice.code, "given twice" in twice.err) == (2, True)


@pytest.mark.slow
def test_each_of_several_models_has_its_own_series(commands: Commands, corpus: Path, steps: list[Path]) -> None:
    for number in range(2):
        shutil.copytree(steps[number], commands.folder / "seed1" / f"step{number}")
        shutil.copytree(steps[number + 1], commands.folder / "seed2" / f"ckpt_{number:03d}")
    shutil.copytree(steps[0], commands.folder / "single")
    models = [part for name in ("seed1", "single", "seed2") for part in ("--model", name)]
    ended = commands("ingest", "--corpus", corpus, *SHAPE, "--json", *models, "--revisions", "0..1")
    rows = json.loads(ended.out)
    assert [(row["model"], row["revision"], row["status"], row["training_step"]) for row in rows] == [
        ("seed1", "step0", "published", 0),
        ("seed1", "step1", "published", 1),
        ("single", "0..1", "failed", None),
        ("seed2", "ckpt_000", "published", 0),
        ("seed2", "ckpt_001", "published", 1),
    ]
    assert (ended.code, "is one model, not a series" in rows[2]["status_reason"]) == (2, True)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("revision", [("--revisions", "checkpoint-500..checkpoint-1000"), ("--revision", "500")])
def test_a_trainer_s_folder_is_a_series_and_lends_its_tokenizer(
    commands: Commands, corpus: Path, steps: list[Path], revision: tuple[str, str]
) -> None:
    """The folder has the last model and the tokenizer; its checkpoints have weights and a configuration."""
    folder = Path(shutil.copytree(steps[2], commands.folder / "out"))
    for name, source in (("checkpoint-500", 0), ("checkpoint-1000", 1)):
        shutil.copytree(steps[source], folder / name, ignore=shutil.ignore_patterns("tokenizer*"))
    ended, rows = ingest(commands, corpus, "--model", "out", *revision)
    assert ended.code == 0, ended.err
    assert list(rows) == ["checkpoint-500", "checkpoint-1000"][: len(rows)]
    for row in rows.values():
        assert (row["status"], json.loads(row["facts"])["tokenizer"]) == ("published", "of the folder above")
        assert row["training_step"] in (500, 1000)
