"""Groups of neurons ablated at once: exact, and read from files that are refused where they make no sense."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from rare_tokens.common.errors import UserError
from rare_tokens.ingest import group_units
from rare_tokens.ingest import groups as grouped
from rare_tokens.ingest.groups import Group, read_groups
from rare_tokens.ingest.model.structure import find_structure, hooked
from rare_tokens.ingest.run.execution import execute
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.pipeline import Prepared, Workbench
from rare_tokens.ingest.run.request import Options, identify
from tests.ingest.dense.test_ablation import CONFIGS, losses, worst
from tests.support.float64 import float64_model
from tests.support.tiny import save_folder, tiny_corpus

WINDOW, POSITIONS = 16, 48
GROUPS = [
    Group("all", tuple(range(80)), "test"),
    Group("few", (3, 17, 41), "test"),
    Group("one", (5,), "test"),
]


def prepare(tmp_path: Path, name: str, **options: Any) -> Prepared:
    model = save_folder(tmp_path / name, CONFIGS[name])
    corpus = tiny_corpus(tmp_path / "corpus.jsonl")
    given = {"tokens": POSITIONS, "window": WINDOW, "device": "cpu"} | options
    return Workbench().prepare(identify(Options(str(model), corpus=(str(corpus),), **given))[0])


def computed(prepared: Prepared, folder: Path, groups: list[Group]) -> dict[str, np.ndarray]:
    """Δ (T) by the name of the group."""
    grouped.group_effects(prepared, groups, folder, LocalExecutor(quiet=True))
    facts = pl.read_parquet(folder / "fct_group_effect.parquet")
    assert facts["position_id"].to_list() == [*range(POSITIONS)] * len(groups)
    return {group.name: facts.filter(group_name=group.name)["delta_loss"].to_numpy() for group in groups}


def hooked_effect(name: str, tokens: np.ndarray, layer: int, scope: str, neurons: tuple[int, ...], value: str):
    """Δ (T) of a group in a float64 model, from whole forward passes."""
    model = float64_model(CONFIGS[name])
    found = find_structure(model, layer)
    inputs, targets = torch.from_numpy(tokens[:, :-1]), torch.from_numpy(tokens[:, 1:])
    windows, length = inputs.shape
    seen = []
    with hooked((found.out_projection, "before", lambda _m, args: seen.append(args[0]))):
        baseline = losses(model(input_ids=inputs).logits, targets)
    mean = seen[0].reshape(-1, found.neurons).mean(0)
    reference = mean[list(neurons)] if value == "mean" else torch.zeros(len(neurons), dtype=torch.float64)
    found_losses = torch.zeros_like(baseline)
    for position in [None] if scope == "window" else range(length):

        def replace(_module, args, position=position):
            edited = args[0].clone()
            rows = edited.view(windows, length, -1)[:, slice(None) if position is None else position]
            rows[..., list(neurons)] = reference
            return (edited,)

        with hooked((found.out_projection, "before", replace)):
            ablated = losses(model(input_ids=inputs).logits, targets)
        where = slice(None) if position is None else slice(position, position + 1)
        found_losses[:, where] = ablated[:, where]
    return (found_losses - baseline).flatten().numpy()


@pytest.mark.parametrize(
    ("name", "layer", "scope", "ablation"),
    [
        ("gpt2", -1, "window", "mean"),
        ("llama", -1, "window", "mean"),
        ("cohere", -1, "window", "mean"),
        ("phi", -1, "window", "zero"),
        ("gemma2", -1, "window", "mean"),
        ("gpt_neox", 0, "window", "mean"),
        ("gemma3", 0, "position", "mean"),
    ],
)
def test_every_effect_is_within_tolerance_of_the_hooked_model(name, layer, scope, ablation, tmp_path):
    prepared = prepare(tmp_path, name, layer=layer, edit_scope=scope, ablation=ablation)
    found = computed(prepared, tmp_path / "groups", GROUPS)
    for group in GROUPS:
        truth = hooked_effect(name, prepared.material.sample.tokens, layer, scope, group.neurons, ablation)
        assert np.abs(truth).max() > 1e-3
        assert worst(found[group.name], truth) <= 1, group.name
    described = pl.read_parquet(tmp_path / "groups" / "dim_group.parquet")
    assert described["k"].to_list() == [80, 3, 1]
    assert described["structural_check_error"].is_between(0, 1).all()


@pytest.mark.parametrize(("name", "layer"), [("gpt2", -1), ("olmo2", -1), ("llama", 0)])
def test_a_group_of_one_neuron_is_that_neuron(name, layer, tmp_path):
    prepared = prepare(tmp_path, name, layer=layer)
    execute(prepared, tmp_path / "parts", LocalExecutor(quiet=True))
    facts = pl.concat(pl.read_parquet(path) for path in (tmp_path / "parts" / "fct_effect").iterdir())
    found = computed(prepared, tmp_path / "groups", [Group(str(n), (n,), "test") for n in (0, 33, 79)])
    for neuron, effects in found.items():
        alone = facts.filter(neuron=int(neuron)).sort("position_id")["delta_loss"].to_numpy()
        assert worst(effects, alone) <= 1


def test_a_group_is_not_the_sum_of_its_neurons(tmp_path):
    prepared = prepare(tmp_path, "gpt2")
    found = computed(prepared, tmp_path / "groups", [GROUPS[1], *(Group(str(n), (n,), "test") for n in (3, 17, 41))])
    alone = sum(found[str(n)] for n in (3, 17, 41))
    assert worst(alone, found["few"]) > 10


def test_a_wrong_effect_is_refused(tmp_path, monkeypatch):
    prepared = prepare(tmp_path, "gpt2")
    exact = group_units.exact_loss
    monkeypatch.setattr(group_units, "exact_loss", lambda *given: 1.1 * exact(*given))
    with pytest.raises(UserError, match="--group few: its effects differ from the hooked GPT2LMHeadModel by"):
        computed(prepared, tmp_path / "groups", [GROUPS[1]])
    assert not (tmp_path / "groups" / "fct_group_effect.parquet").exists()


# --- files ----------------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_files_of_groups(tmp_path):
    both = [("first", (1, 5)), ("second", (2,))]
    files = {
        write(tmp_path / "a.json", '{"first": [5, 1], "second": [2]}'): both,
        write(tmp_path / "b.json", "[7, 3]"): [("b", (3, 7))],
        write(tmp_path / "c.csv", "group_name,neuron\nfirst,5\nsecond,2\nfirst,1\n"): both,
        write(tmp_path / "d.CSV", "neuron\n4\n"): [("d", (4,))],
        write(tmp_path / "e.txt", "9\n\n 8\n"): [("e", (8, 9))],
    }
    for file, wanted in files.items():
        found = read_groups(file)
        assert [(group.name, group.neurons) for group in found] == wanted
        assert {group.source for group in found} == {f"file {Path(file).name}"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"x": 3}', "its JSON has another form"),
        ("a.json", "{}", "there is no group in it"),
        ("a.json", '{"x": []}', "x is empty"),
        ("a.json", '{"x": [1, 1]}', "x has neuron 1 twice"),
        ("a.json", '{"x": [1], "x": [2]}', "the name x is given twice"),
        ("a.json", '{"x": [1.5]}', "1.5 is not a whole number"),
        ("a.json", '{"x": [true]}', "True is not a whole number"),
        ("a.json", '{" ": [1]}', "a group has no name"),
        ("a.csv", "index\n3\n", "no column neuron"),
        ("a.csv", "group_name,neuron\n", "there is no group in it"),
        ("a.csv", "group_name,neuron\nx\n", "x holds something other than indices"),
        ("a.txt", "", "a is empty"),
        ("a.txt", "3 four", "a holds something other than indices"),
        ("a.parquet", "3", "a file of groups must end in .json, .csv or .txt"),
    ],
)
def test_a_file_that_is_no_group_is_refused(name, text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_groups(write(tmp_path / name, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_groups(str(tmp_path / "absent.json"))
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_groups(str(tmp_path / "latin.txt"))
