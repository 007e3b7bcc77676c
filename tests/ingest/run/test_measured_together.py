"""One command, several references: what it publishes, refuses, extends, and leaves when it is killed."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.common.errors import QualityError
from rare_tokens.common.parts import parts_root
from rare_tokens.warehouse.publish import runs
from tests.support.commands import Commands, Ended
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

SHAPE = ("--tokens", 256, "--window", 32, "--device", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tmp_path_factory.mktemp("model") / "tiny", SUPPORTED["llama"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_corpus(tmp_path_factory.mktemp("text") / "corpus.jsonl", documents=200)


def ingest(commands: Commands, model: Path, corpus: Path, ablation: str, *more: object) -> Ended:
    return commands("ingest", "--model", model, "--corpus", corpus, *SHAPE, "--ablation", ablation, *more)


def published(commands: Commands) -> pl.DataFrame:
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        return opened.dim_run().filter(pl.col("status") == "published").sort("ablation")


def facts(commands: Commands, where: str = "true") -> pl.DataFrame:
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        return opened.sql(
            "select ablation, neuron, position_id, activation, delta_loss from fct_effect join dim_run using (run_id)"
            f" where {where} order by all"
        )


def test_each_reference_is_a_run_and_another_one_joins(commands: Commands, model: Path, corpus: Path) -> None:
    ended = ingest(commands, model, corpus, "mean,zero", "--json")
    assert ended.code == 0, ended.err
    assert len(json.loads(ended.out)) == 2
    found = published(commands)
    assert found["ablation"].to_list() == ["mean", "zero"]
    assert found["run_id"].n_unique() == 2
    assert not list(parts_root(commands.folder / "rare_tokens.duckdb").glob("*/*.parquet"))
    before = facts(commands)
    ended = ingest(commands, model, corpus, "resample:2,mean,optimal")
    assert ended.code == 0, ended.err
    assert "is already published" in ended.err
    found = published(commands)
    assert found["ablation"].to_list() == ["mean", "optimal", "resample:2", "zero"]
    assert facts(commands, "ablation in ('mean', 'zero')").equals(before)
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        known = opened.sql(
            "select ablation, count(reference_activation) as values, count(reference_error) as errors,"
            " count(reference_is_outside) as flags, max(reference_error) as error, count(*) as neurons"
            " from dim_neuron join dim_run using (run_id) group by all order by all"
        ).rows(named=True)
    values = {row["ablation"]: row for row in known}
    assert {name: row["values"] == row["neurons"] for name, row in values.items()} == {
        "mean": True, "zero": True, "optimal": True, "resample:2": False
    }  # fmt: skip
    assert values["resample:2"]["values"] == 0
    assert values["optimal"]["flags"] == values["optimal"]["neurons"]
    assert values["mean"]["errors"] == values["mean"]["flags"] == 0
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        means = opened.sql(
            "select ablation, avg(delta_loss) as loss from fct_effect join dim_run using (run_id) group by all"
        )
    by_name = dict(means.rows())
    assert by_name["optimal"] <= min(by_name["mean"], by_name["zero"]) + 1e-6


@pytest.mark.parametrize(
    ("ablation", "more", "why"),
    [
        ("mean,mean", (), "mean is named twice"),
        ("resample:0", (), "no number of draws"),
        ("median", (), "no reference 'median'"),
        ("resample", ("--tokens", 32), "a single window has no other one"),
        ("mean,zero", ("--attention",), "--attention with --ablation mean,zero"),
        ("resample", ("--group", "boost"), "--group with --ablation resample"),
        ("mean,optimal", ("--layer", 0), "dense path"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(
    commands: Commands, model: Path, corpus: Path, ablation: str, more: tuple[object, ...], why: str
) -> None:
    ended = ingest(commands, model, corpus, ablation, *more)
    assert ended.code == 2
    assert why in ended.err
    assert "Traceback" not in ended.err
    assert not list(parts_root(commands.folder / "rare_tokens.duckdb").glob("*/*"))


@pytest.mark.slow
def test_on_the_dense_path_the_mean_and_zero_are_measured_together(
    commands: Commands, model: Path, corpus: Path
) -> None:
    ended = ingest(commands, model, corpus, "mean,zero", "--layer", 0, "--tokens", 64)
    assert ended.code == 0, ended.err
    together = facts(commands)
    for name in ("mean", "zero"):
        alone = commands.folder / f"{name}.duckdb"
        ended = ingest(commands, model, corpus, name, "--layer", 0, "--tokens", 64, "--warehouse", alone)
        assert ended.code == 0, ended.err
        with warehouse.open(alone) as opened:
            (found,) = opened.sql("select sum(delta_loss), count(*) from fct_effect").rows()
        of_both = together.filter(ablation=name)
        assert found[1] == of_both.height
        assert abs(found[0] - of_both["delta_loss"].sum()) < 1e-6


def test_a_dry_run_of_several_says_what_each_takes(commands: Commands, model: Path, corpus: Path) -> None:
    ended = ingest(commands, model, corpus, "mean,zero,resample,optimal", "--dry-run", "--json")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)
    assert len({row["run_id"] for row in rows}) == 4
    assert all(row["minutes"] > 0 and row["stage_seconds"]["references"] > 0 for row in rows)
    alone = json.loads(ingest(commands, model, corpus, "mean", "--dry-run", "--json").out)
    assert alone[0]["fact_rows"] == rows[0]["fact_rows"]
    assert 4 * rows[0]["disk_bytes"] < 4 * alone[0]["disk_bytes"], "what is captured is shared"
    assert "references" not in alone[0]["stage_seconds"]


def refuse_zero(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let publishing refuse each run whose reference is 0, after it was loaded; returns what loads otherwise."""
    load: Any = runs._load

    def refused(con: Any, path: Path, staged: Any, *given: Any, **more: Any) -> None:
        load(con, path, staged, *given, **more)
        if staged.manifest.ablation == "zero":
            raise QualityError("made up")

    monkeypatch.setattr(runs, "_load", refused)
    return load


def records(commands: Commands) -> list[dict[str, Any]]:
    return warehouse.runs(commands.folder / "rare_tokens.duckdb").sort("model", "ablation").to_dicts()


def test_a_refusal_of_one_keeps_all_out(
    commands: Commands, model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = refuse_zero(monkeypatch)
    ended = ingest(commands, model, corpus, "mean,zero,resample")
    assert ended.code == 3
    assert published(commands).is_empty()
    assert facts(commands).is_empty()
    mean, resample, zero = records(commands)
    assert (zero["status"], zero["status_reason"]) == ("rejected", "made up")
    for sibling in (mean, resample):
        assert sibling["status"] == "staged", "its parts are kept, and the same command publishes them"
        assert f"run {zero['run_id']}, measured together with this one, was refused" in sibling["status_reason"]
    monkeypatch.setattr(runs, "_load", load)
    ended = ingest(commands, model, corpus, "mean,zero,resample")
    assert ended.code == 0, ended.err
    assert published(commands)["ablation"].to_list() == ["mean", "resample", "zero"]
    assert published(commands)["status_reason"].to_list() == [None] * 3


def test_a_refusal_among_several_models_is_told_by_each_sibling(
    commands: Commands, model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = save_folder(commands.folder / "other", SUPPORTED["llama"])
    refuse_zero(monkeypatch)
    ended = ingest(commands, model, corpus, "mean,zero", "--model", other)
    assert (ended.code, "4 of 4 runs failed" in ended.err) == (3, True)
    found = records(commands)
    assert [row["status"] for row in found] == ["staged", "rejected"] * 2
    for sibling, refused in zip(found[::2], found[1::2], strict=True):
        assert sibling["model"] == refused["model"]
        assert f"run {refused['run_id']}, measured together" in sibling["status_reason"]


def test_a_refusal_leaves_what_a_published_sibling_says(
    commands: Commands, model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ingest(commands, model, corpus, "mean").code == 0
    before = published(commands)
    refuse_zero(monkeypatch)
    assert ingest(commands, model, corpus, "mean,zero", "--again").code == 3
    assert published(commands).equals(before)


KILL = """
import os, signal
from rare_tokens.warehouse.publish import runs
from rare_tokens.ingest.ablation.stages import parts
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
"""
AT = {
    "between references": KILL + """
write, seen = parts.write_effects, []
def counted(path, *given, **more):
    write(path, *given, **more)
    seen.append(path)
    len(seen) == 2 and die()
parts.write_effects = counted
""",
    "within publishing": KILL + """
timed, seen = runs._timed, []
def counted(name):
    name == 'facts' and seen.append(name)
    len(seen) == 2 and die()
    return timed(name)
runs._timed = counted
""",
    "at the commit": KILL + """
timed = runs._timed
def counted(name):
    name == 'commit' and die()
    return timed(name)
runs._timed = counted
""",
    "after the commit": KILL + """
timed = runs._timed
def counted(name):
    name == 'checkpoint' and die()
    return timed(name)
runs._timed = counted
""",
}  # fmt: skip


@pytest.mark.parametrize("moment", [pytest.param(moment, marks=pytest.mark.slow) for moment in AT])
def test_killed_at_any_moment_none_or_all_are_published(
    commands: Commands, model: Path, corpus: Path, moment: str
) -> None:
    given = ("ingest", "--model", model, "--corpus", corpus, *SHAPE, "--ablation", "mean,zero,resample")
    started = commands.start(*given, before=f"exec({AT[moment]!r})")
    _, err = started.communicate(timeout=300)
    assert started.returncode == -9, err
    there = published(commands)["ablation"].to_list()
    assert there == (["mean", "resample", "zero"] if moment == "after the commit" else [])
    ended = ingest(commands, model, corpus, "mean,zero,resample")
    assert ended.code == 0, ended.err
    assert published(commands)["ablation"].to_list() == ["mean", "resample", "zero"]
    resumed = facts(commands)
    undisturbed = commands.folder / "undisturbed.duckdb"
    for name in ("mean", "zero", "resample"):
        ended = ingest(commands, model, corpus, name, "--warehouse", undisturbed)
        assert ended.code == 0, ended.err
    with warehouse.open(undisturbed) as opened:
        alone = opened.sql(
            "select ablation, neuron, position_id, activation, delta_loss from fct_effect join dim_run using (run_id)"
            " order by all"
        )
    assert alone.equals(resumed)
