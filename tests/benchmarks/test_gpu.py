"""The one command for a GPU: all of its code on the processor, and what it says where something is wrong."""

import json
import math
from dataclasses import replace

import polars as pl
import pytest
import torch

from benchmarks.speed import gpu
from benchmarks.speed.facts import BENT, compared
from benchmarks.speed.ingested import Ingested
from rare_tokens.common.effects import EFFECTS


@pytest.mark.slow
def test_all_of_it_runs_on_the_processor(tmp_path, capsys) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--small", "--out", str(out)]) == 0
    assert "everything is within tolerance" in capsys.readouterr().out
    found = json.loads(out.read_text(encoding="utf-8"))
    assert {(row["head"], row["effect"]) for row in found["parity"]} >= {(head, "loss") for head in BENT}
    assert len({row["effect"] for row in found["parity"]}) == len(EFFECTS)
    assert 0 < max(row["worst_over_tolerance"] for row in found["parity"]) <= 1
    assert [(row["model"], row["pairs"]) for row in found["ingests"]] == [("embedded", 64 * 512)]
    assert [(row["shape"], row["method"]) for row in found["rows"]] == [
        (shape, method) for shape in ("embedded", "tiny") for method in gpu.ROWS
    ]
    assert found["machine"]["cpu"]


def test_without_a_device_one_sentence_says_so(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 2
    said = capsys.readouterr()
    assert said.err == "No CUDA device is available here; run this on a machine that has one.\n"
    assert not said.out
    assert not list(tmp_path.iterdir())


def test_what_is_out_of_tolerance_is_named() -> None:
    right = {
        "parity": [{"head": "flat", "effect": "kl", "worst_over_tolerance": 1.0}],
        "ingests": [{"model": "m", "worst_over_tolerance": 2.0, "self_check": 0.5}],
        "rows": [
            {"shape": "s", "method": "ours", "worst_over_tolerance": 0.9},
            {"shape": "s", "method": "published", "worst_over_tolerance": 9.0},
        ],
    }
    assert gpu.wrong(right) == []
    broken = {
        "parity": [{"head": "flat", "effect": "kl", "worst_over_tolerance": math.nan}],
        "ingests": [{"model": "m", "worst_over_tolerance": 2.5, "self_check": 1.5}],
        "rows": [{"shape": "s", "method": "ours", "worst_over_tolerance": 1.25}],
    }
    assert gpu.wrong(broken) == [
        "flat, kl: nan tolerances, not 1",
        "facts of m: 2.5 tolerances, not 2",
        "self-check of m: 1.5 tolerances, not 1",
        "losses of s: 1.25 tolerances, not 1",
    ]


def test_two_ingests_are_compared_pair_by_pair() -> None:
    facts = pl.DataFrame(
        {
            "neuron": [0, 0, 1],
            "position_id": [0, 1, 0],
            "activation": [1.0, -2.0, 0.5],
            "delta_loss": [0.0, 0.01, -1.0],
        }
    )
    one = Ingested("moments", (), {}, 0.25, facts)
    moved = facts.with_columns(delta_loss=pl.Series([1e-6, 0.01, -1.0]), activation=pl.Series([1.0, -2.0, 0.7]))
    found = compared(one, replace(one, facts=moved, check=0.5))
    assert found["worst_over_tolerance"] == pytest.approx(1, rel=1e-3)
    assert found["largest_activation_difference"] == pytest.approx(0.1)
    assert (found["pairs"], found["self_check"], found["median_over_tolerance"]) == (3, 0.5, 0)
    with pytest.raises(ValueError, match="different neurons or positions"):
        compared(one, replace(one, facts=facts[:2]))
