"""Stages on workers: one makes bit for bit what this process makes, and nothing is made twice."""

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rare_tokens.ingest import group_units
from rare_tokens.ingest.ablation.stages import capture
from rare_tokens.ingest.attention import cells, units
from rare_tokens.ingest.attention.measure import AttentionRequest, measure_attention
from rare_tokens.ingest.groups import Group, group_effects
from rare_tokens.ingest.run.execution import execute, folders_of
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.pipeline import Prepared, Workbench
from rare_tokens.ingest.run.request import Options, identify
from rare_tokens.ingest.run.shared_storage import Place
from rare_tokens.ingest.run.stages import Loaded, Stage
from tests.support.attention_runs import halves
from tests.support.tiny import DENSE, SUPPORTED, save_folder, tiny_corpus

WINDOW, WINDOWS = 16, 7
GROUPS = [Group("few", (3, 17, 41), "test"), Group("one", (5,), "test")]
CONFIGS = SUPPORTED | DENSE


class Elsewhere(LocalExecutor):
    """Computes units as a worker does: from what is sent, with a model that it loads itself."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.computed: list[tuple[str, int]] = []

    def spread(self, stage: Stage, loaded: Loaded, place: Place, units: Sequence[int]) -> Iterator[int]:
        sent, recipe = pickle.loads(pickle.dumps(stage)), pickle.loads(pickle.dumps(loaded.recipe))
        work = sent.build(recipe.load(), place)
        for unit in reversed(units):  # workers end in any order
            work(unit)
            self.computed.append((stage.title, unit))
            yield unit


@pytest.fixture(autouse=True)
def several_units(monkeypatch):
    """Two windows are a unit, so that seven make four."""
    monkeypatch.setattr(capture, "POSITIONS_PER_BATCH", 2 * WINDOW)
    monkeypatch.setattr(cells, "LEAST_UNITS", 4)


def prepare(tmp_path: Path, name: str, **options: Any) -> Prepared:
    model = save_folder(tmp_path / name, CONFIGS[name])
    corpus = tiny_corpus(tmp_path / "corpus.jsonl")
    given = {"tokens": WINDOW * WINDOWS, "window": WINDOW, "device": "cpu"} | options
    return Workbench().prepare(*identify(Options(str(model), corpus=(str(corpus),), **given)), whole=True)


def parts(folder: Path) -> dict[str, pl.DataFrame]:
    found = {path.stem: pl.read_parquet(path) for path in folder.glob("*.parquet")}
    return {name: frame.drop("seconds", strict=False) for name, frame in found.items()}


def same(first: Path, second: Path) -> bool:
    one, other = parts(first), parts(second)
    assert one
    assert one.keys() == other.keys()
    return all(frame.equals(other[name]) for name, frame in one.items())


def places(tmp_path: Path, folder: Path) -> dict[str, Place]:
    return {"beside": Place(folder), "elsewhere": Place(tmp_path / "elsewhere" / "groups")}


@pytest.mark.parametrize("name", ["gpt2", "olmo2"])
def test_effects_of_a_worker_are_those_of_this_process(tmp_path, name):
    prepared, elsewhere = prepare(tmp_path, name, effects=("loss", "attribution")), Elsewhere()
    execute(prepared, tmp_path / "here", LocalExecutor(quiet=True))
    execute(prepared, tmp_path / "there", elsewhere, place=Place(tmp_path / "place"))
    assert {title for title, _ in elsewhere.computed} == {"forward pass", "ablation"}
    here, there = (sorted((tmp_path / folder / "fct_effect").iterdir()) for folder in ("here", "there"))
    assert [path.read_bytes() for path in here] == [path.read_bytes() for path in there]


@pytest.mark.parametrize("where", ["beside", "elsewhere"])
def test_references_of_a_worker_are_those_of_this_process(tmp_path, where):
    """Resampled activations come from windows that other units captured."""
    prepared = prepare(tmp_path, "llama", ablation="mean,zero,resample:2,optimal")
    here, there = tmp_path / "here" / "first", tmp_path / "there" / "first"
    execute(prepared, here, LocalExecutor(quiet=True))
    execute(prepared, there, Elsewhere(), place=places(tmp_path, there)[where])
    for one, other in zip(folders_of(prepared, here), folders_of(prepared, there), strict=True):
        assert same(one, other)
        assert same(one / "fct_effect", other / "fct_effect")


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("where", ["beside", "elsewhere"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("gpt2", {}), ("gemma2", {}), ("gpt_neox", {"layer": 0, "edit_scope": "position", "ablation": "zero"})],
)
def test_groups_of_a_worker_are_those_of_this_process(tmp_path, name, options, where):
    prepared = prepare(tmp_path, name, **options)
    group_effects(prepared, GROUPS, tmp_path / "here", LocalExecutor(quiet=True))
    away = Elsewhere()
    group_effects(prepared, GROUPS, tmp_path / "there", away, places(tmp_path, tmp_path / "there")[where])
    assert sorted(unit for title, unit in away.computed if title == "groups") == [0, 1, 2, 3]
    assert same(tmp_path / "here", tmp_path / "there")
    assert not list((tmp_path / "there").glob("units")), "what is not published goes"


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize("ablation", ["zero", "mean", "uniform"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_attention_of_a_worker_is_that_of_this_process(tmp_path, name, ablation):
    prepared, request = prepare(tmp_path, name), AttentionRequest(ablation=ablation)
    groups = halves(prepared.manifest.positions)
    measure_attention(prepared, groups, tmp_path / "here", request, LocalExecutor(quiet=True))
    away = Elsewhere()
    place = Place(tmp_path / "elsewhere")
    measure_attention(prepared, groups, tmp_path / "there", request, away, place)
    assert len(away.computed) >= 4
    assert same(tmp_path / "here", tmp_path / "there")


def cut_off(monkeypatch, kind: type, after: int) -> list[int]:
    """Let a kind of units be interrupted after some; returns the units that were run, from now on."""
    real, ran = kind.run, []

    def run(self, unit):
        if len(ran) == after:
            raise KeyboardInterrupt
        real(self, unit)
        ran.append(unit)

    monkeypatch.setattr(kind, "run", run)
    return ran


@pytest.mark.parametrize("where", [None, "beside", "elsewhere"])
def test_interrupted_groups_go_on(tmp_path, monkeypatch, where):
    prepared, folder = prepare(tmp_path, "gpt2"), tmp_path / "there"
    group_effects(prepared, GROUPS, tmp_path / "here", LocalExecutor(quiet=True))
    place = None if where is None else places(tmp_path, folder)[where]
    with monkeypatch.context() as patch:
        first = cut_off(patch, group_units.GroupUnits, 2)
        with pytest.raises(KeyboardInterrupt):
            group_effects(prepared, GROUPS, folder, LocalExecutor(quiet=True), place)
    again = cut_off(monkeypatch, group_units.GroupUnits, 99)
    group_effects(prepared, GROUPS, folder, LocalExecutor(quiet=True), place)
    assert (first, again) == ([0, 1], [2, 3])
    assert same(tmp_path / "here", folder)


@pytest.mark.parametrize("where", ["beside", "elsewhere"])
def test_interrupted_attention_goes_on(tmp_path, monkeypatch, where):
    prepared, folder = prepare(tmp_path, "llama"), tmp_path / "there"
    given = (prepared, halves(prepared.manifest.positions))
    measure_attention(*given, tmp_path / "here", AttentionRequest(), LocalExecutor(quiet=True))
    place = places(tmp_path, folder)[where]
    with monkeypatch.context() as patch:
        first = cut_off(patch, units.AttentionUnits, 3)
        with pytest.raises(KeyboardInterrupt):
            measure_attention(*given, folder, AttentionRequest(), LocalExecutor(quiet=True), place)
    again = cut_off(monkeypatch, units.AttentionUnits, 99)
    measure_attention(*given, folder, AttentionRequest(), LocalExecutor(quiet=True), place)
    assert len(first) == 3
    assert not {*first} & {*again}, "what was done is not done again"
    assert same(tmp_path / "here", folder)


@pytest.mark.parametrize("where", [None, "beside", "elsewhere"])
def test_units_of_other_groups_are_not_taken_for_these(tmp_path, monkeypatch, where):
    prepared, folder = prepare(tmp_path, "gpt2"), tmp_path / "there"
    others = [Group("few", (1, 2, 3), "test"), Group("one", (6,), "test")]
    group_effects(prepared, GROUPS, tmp_path / "here", LocalExecutor(quiet=True))
    place = None if where is None else places(tmp_path, folder)[where]
    with monkeypatch.context() as patch:
        cut_off(patch, group_units.GroupUnits, 2)
        with pytest.raises(KeyboardInterrupt):
            group_effects(prepared, others, folder, LocalExecutor(quiet=True), place)
    group_effects(prepared, GROUPS, folder, LocalExecutor(quiet=True), place)
    assert same(tmp_path / "here", folder)
