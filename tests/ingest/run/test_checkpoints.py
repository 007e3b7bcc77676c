"""Ranges of checkpoints: how they are found one ahead, and what becomes of a missing one."""

import json
import shutil
import threading

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from rare_tokens import warehouse
from rare_tokens.analyses.across_runs.emergence import series
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model import locate
from rare_tokens.ingest.run.checkpoints import one_ahead
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus


def test_the_next_is_found_while_one_is_worked_on():
    found, both = [], threading.Event()

    def items():
        for number in range(3):
            found.append(number)
            if number == 1:
                both.set()
            yield number

    taken = one_ahead(items())
    assert next(taken) == 0
    assert both.wait(10), "the second is sought before the first is done with"
    assert [*taken] == [1, 2]
    assert found == [0, 1, 2]


def test_what_goes_wrong_ahead_is_raised_in_its_turn():
    def items():
        yield "first"
        raise UserError("the second is broken")

    taken = one_ahead(items())
    assert next(taken) == "first"
    with pytest.raises(UserError, match="the second is broken"):
        next(taken)


def test_the_revisions_of_a_hub_model_and_without_a_hub_those_in_the_cache(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OfflineModeIsEnabled("no network")

    monkeypatch.setattr(HfApi, "list_repo_refs", offline)
    monkeypatch.setattr(locate, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"not in the local cache.*no network"):
        locate.available_revisions("owner/name")
    refs = tmp_path / "models--owner--name" / "refs"
    refs.mkdir(parents=True)
    for name in ("step0", "step512"):
        (refs / name).write_text("0" * 40)
    assert locate.available_revisions("owner/name") == ["step0", "step512"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A folder of checkpoints: one without weights, one that is gone."""
    folder = tmp_path_factory.mktemp("series") / "grown"
    for seed, step in enumerate((0, 2, 4)):
        save_folder(folder / f"step{step}", SUPPORTED["gpt_neox"], seed=seed)
    shutil.copytree(folder / "step2", folder / "step3", ignore=shutil.ignore_patterns("*.safetensors"))
    return folder, tiny_corpus(folder.parent / "corpus.jsonl", documents=200)


@pytest.mark.slow
def test_a_series_is_ingested_and_its_gaps_are_recorded(commands, grown):
    folder, corpus = grown
    asked = ["ingest", "--model", folder, "--corpus", corpus, "--tokens", 512, "--window", 64, "--device", "cpu"]
    ended = commands(*asked, "--revisions", "step0..step4:1", "--json")
    assert ended.code == 0, ended.err
    rows = {row["revision"]: row for row in json.loads(ended.out)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "step0": "published", "step1": "missing", "step2": "published", "step3": "missing", "step4": "published"
    }  # fmt: skip
    assert "there is no such checkpoint" in rows["step1"]["status_reason"]
    assert "no weights" in rows["step3"]["status_reason"]
    samples = set()
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        for name in ("step0", "step2", "step4"):
            position = opened.dim_position(run_id=rows[name]["run_id"]).sort("position_id")
            samples.add(tuple(position["target_token_id"]))
        assert len(samples) == 1, "all steps share one sample"
        gaps = opened.sql("select training_step, reason from emergence where value is null order by all").rows()
    assert gaps == [(1, "no effects: the run is missing"), (3, "no effects: the run is missing")]
    assert commands(*asked, "--layer", -2, "--revisions", "step0..step4:1", "--json").code == 0
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        parts = series(opened.dim_run())
    steps = [part.select("layer", "revision").rows() for part in parts]
    assert sorted(steps) == [[(layer, f"step{step}") for step in range(5)] for layer in (0, 1)], "each its own gaps"
    again = commands(*asked, "--revisions", "step0..step4:1", "--json")
    assert {row["run_id"] for row in json.loads(again.out)} == {row["run_id"] for row in rows.values()}
    estimate = commands(*asked, "--revisions", "step0..step4", "--dry-run", "--json")
    assert len(json.loads(estimate.out)) == 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--revisions", "step0"], "not a range"),
        (["--revisions", "step0..step4", "--revision", "step2"], "give one of the two"),
        (["--revisions", "step7..step9"], "It has step0 to step4"),
    ],
)
def test_a_wrong_range_is_the_user_s_error(commands, grown, more, said):
    folder, corpus = grown
    ended = commands("ingest", "--model", folder, "--corpus", corpus, "--tokens", 512, "--window", 64, *more)
    assert ended.code == 2
    assert said in ended.err
    assert not any(commands.folder.glob("*.parts/*"))
