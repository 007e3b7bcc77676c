"""The same command gives the same facts and marts bit for bit, on other threads to 1e-6; runs say what made them."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.common.version import VERSION
from rare_tokens.ingest.run.request import Options
from tests.support.commands import Commands, finish
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

FLOAT_TOLERANCE = 1e-6  # nats; docs/definitions.md, Invariants
NOT_OF_THE_COMMAND = ("created_at", "seconds", "stage_seconds", "published_at", "checked_at")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_folder(folder / "neox", SUPPORTED["gpt_neox"])
    tiny_corpus(folder / "corpus.jsonl", documents=400)
    return folder


def asked(inputs: Path, name: str) -> list[Any]:
    given = ["ingest", "--model", inputs / "neox", "--corpus", inputs / "corpus.jsonl", "--tokens", 2048]
    return [*given, "--window", 64, "--device", "cpu", "--effects", "loss,entropy,kl", "--quiet", "--warehouse", name]


def ingested(commands: Commands, inputs: Path, name: str, threads: int) -> dict[str, pl.DataFrame]:
    """Every relation of a warehouse made by one ingest in a process of its own."""
    environment = {"OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(threads)}
    engine = f"import rare_tokens.warehouse.connection as c; c.WRITE_CONFIG['threads'] = {threads}"
    ended = finish(commands.start(*asked(inputs, name), before=engine, environment=environment))
    assert ended.code == 0, ended.err
    with warehouse.open(commands.folder / name) as opened:
        names = [table.name for table in warehouse.tables(commands.folder / name) if table.kind == "view"]
        frames = {name: opened.sql(f"select * from {name} order by all") for name in names}
    return {name: frame.drop(NOT_OF_THE_COMMAND, strict=False) for name, frame in frames.items()}


@pytest.mark.slow
def test_a_command_repeats_bit_for_bit_and_within_1e_6_on_other_threads(commands: Commands, inputs: Path) -> None:
    first, second = (ingested(commands, inputs, f"{name}.duckdb", 1) for name in ("first", "second"))
    assert first["fct_effect"].height == 2048 * 80
    for name, frame in first.items():
        assert frame.equals(second[name]), name
    other = ingested(commands, inputs, "other.duckdb", 3)
    key = ["neuron", "position_id"]
    facts, others = first["fct_effect"].sort(key), other["fct_effect"].sort(key)
    assert facts.select(key).equals(others.select(key))
    for column in ("activation", "delta_loss", "delta_entropy", "delta_kl"):
        assert largest_difference(facts, others, column) <= FLOAT_TOLERANCE, column
    key = ["preset", "token_group", "neuron"]
    for column in ("influence", "mean_delta_loss"):
        influence = [frame["neuron_influence"].sort(key) for frame in (first, other)]
        assert largest_difference(*influence, column) <= FLOAT_TOLERANCE, column
    for name in ("dim_document", "dim_token", "token_frequency", "position_group"):
        assert first[name].equals(other[name]), name


def largest_difference(left: pl.DataFrame, right: pl.DataFrame, column: str) -> float:
    return float(np.abs(left[column].to_numpy().astype(np.float64) - right[column].to_numpy()).max())


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({}, "float32"),
        ({"avx512_bf16": False}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
    ],
)
def test_precision_is_a_matter_of_the_processor_not_of_how_busy_it_is(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, bool], expected: str
) -> None:
    import torch

    from rare_tokens.ingest.machine import reduced_precision

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert reduced_precision.__wrapped__(torch.device("cpu")) == getattr(torch, expected)


@pytest.mark.slow
def test_a_run_says_what_made_it(commands: Commands, inputs: Path) -> None:
    ended = commands(*asked(inputs, "w.duckdb"))
    assert ended.code == 0, ended.err
    with warehouse.open(commands.folder / "w.duckdb") as opened:
        (run,) = opened.dim_run().rows(named=True)
    assert run["code_version"] == VERSION
    packages = json.loads(run["packages"])
    assert {"python", "torch", "transformers", "tokenizers", "numpy", "duckdb", "datasets"} <= packages.keys()
    assert all(version[0].isdigit() for version in packages.values())
    for name in ("model_hash", "corpus_hash"):
        assert len(run[name]) == 64, name
    options: dict[str, Any] = json.loads(run["options"])
    names = {item.name for item in fields(Options)} - {"revisions", "trust"} | {"allow_pickle", "trust_remote_code"}
    assert names <= options.keys(), names - options.keys()
    assert (options["tokens"], options["effects"], options["seed"]) == (2048, ["loss", "entropy", "kl"], 0)
    identity = json.loads(run["identity"])
    assert {"model_hash", "revision", "tokenizer", "corpus", "frequencies", "tokens", "seed"} <= identity.keys()
    assert str(commands.folder.parent) not in json.dumps(run, default=str), "no path of this machine is stored"
