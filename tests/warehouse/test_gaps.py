"""Runs without facts: twins and failed checkpoints, in every relation and command that meets them."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import UserError
from rare_tokens.warehouse.connection import writing
from rare_tokens.warehouse.store import run_records
from tests.support.commands import Commands
from tests.support.old_schema import make_old
from tests.support.warehouses import empty, published

ASKED = {"seed": 1, "layer": 3}


def identity(weights: str, revision: str) -> dict[str, Any]:
    return ASKED | {"model_hash": weights, "revision": revision}


def step(path: Path, number: int, **given: Any) -> str:
    """Publish a checkpoint whose weights are those of its number."""
    revision = given.pop("revision", f"step{number}")
    facts = {"weights_hash": f"w{number}"} if given.pop("knows", True) else {}
    return published(
        path, f"m-{revision}", seed=1, model_seed=number, revision=revision, model="m", model_hash=f"m{number}",
        identity=identity(f"m{number}", revision), facts=facts, **given,
    )  # fmt: skip


def twin(path: Path, revision: str, weights: str, model_hash: str = "other", **given: Any) -> str | None:
    asked = {"model": "m", "identity": identity(model_hash, revision)} | given
    return warehouse.find_twin(path, run_id=f"m-{revision}", revision=revision, weights_hash=weights, **asked)


@pytest.fixture
def path(commands: Commands) -> Path:
    """A warehouse of two checkpoints and a twin of the first, where commands look for it."""
    path = empty(commands.folder / "rare_tokens.duckdb")
    step(path, 1)
    step(path, 4)
    known = {"model_hash": "again", "identity": identity("again", "step2"), "options": {"model": "m"}}
    warehouse.record_twin(path, "m-step2", "m-step1", revision="step2", known=known)
    return path


def test_a_twin_is_found_by_weights_within_its_series(path: Path) -> None:
    assert twin(path, "step3", "w1") == "m-step1"
    assert twin(path, "step3", "w4") == "m-step4"
    assert twin(path, "step3", "w9") is None
    assert twin(path, "main", "w1") is None, "no checkpoint by its name"
    assert twin(path, "step1", "w4") is None, "published itself"
    assert twin(path, "step3-seed2", "w1") is None, "of another branch"
    assert twin(path, "step3", "w1", model="n") is None
    assert twin(path, "step3", "w1", identity=identity("other", "step3") | {"seed": 2}) is None
    step(path, 5, revision="step5", knows=False)
    assert twin(path, "step6", "w5", model_hash="m5") == "m-step5", "of an earlier version: by the whole hash"
    assert twin(path, "step6", "w5", model_hash="m6") is None


def test_what_is_recorded_of_a_twin(path: Path) -> None:
    with warehouse.open(path) as opened:
        first, found = (opened.dim_run(run_id=run).row(0, named=True) for run in ("m-step1", "m-step2"))
        assert opened.fct_effect(run_id="m-step2").is_empty()
    assert (found["status"], found["twin_of"], found["training_step"]) == ("twin", "m-step1", 2)
    assert found["status_reason"] == "its weights are those of m-step1"
    assert found["model_hash"] == "again"
    for column in ("model", "positions", "neurons", "layer", "corpus_hash", "tokenizer_id"):
        assert found[column] == first[column], column


def test_emergence_has_the_rows_of_a_twin_at_its_own_step(path: Path) -> None:
    with writing(path) as con:
        for run in ("m-step1", "m-step4"):
            key = run_records.run_key(con, run)
            con.execute(
                "insert into store.emergence by name"
                " select $key as run_key, 'es' as preset, 'kappa' as quantity, $key / 10 as value",
                {"key": key},
            )
    warehouse.record_gap(path, run_id="m-step3", model="m", revision="stage1-step3", why="NaN", status="failed")
    with warehouse.open(path) as opened:
        query = "select run_id, training_stage, training_step, value, reason from emergence order by training_step"
        rows = opened.sql(query).rows()
    assert rows == [
        ("m-step1", None, 1, 0.1, None),
        ("m-step2", None, 2, 0.1, None),
        ("m-step3", 1, 3, None, "no effects: the run failed"),
        ("m-step4", None, 4, 0.2, None),
    ]


def test_commands_say_what_a_twin_is(path: Path, commands: Commands) -> None:
    checked = commands("check", "m-step2")
    assert (checked.code, "is a twin of m-step1 and holds nothing itself" in checked.err) == (2, True)
    assert commands("check").code == 0, "the runs with facts"
    reported = commands("report", "m-step2")
    assert (reported.code, "its weights are those of m-step1" in reported.err) == (2, True)
    assert "twin" in commands("runs").out
    assert commands("export", "out").code == commands("attach", "out", "--warehouse", "copy.duckdb").code == 0
    with warehouse.open("copy.duckdb") as copied, warehouse.open(path) as opened:
        columns = ["run_id", "status", "twin_of", "training_step"]
        assert copied.dim_run().select(columns).sort("run_id").equals(opened.dim_run().select(columns).sort("run_id"))


def test_a_run_takes_its_twins_with_it(path: Path, commands: Commands) -> None:
    ended = commands("delete", "m-step1")
    assert (ended.code, "m-step1 and its twins m-step2 are removed" in ended.err) == (0, True)
    assert commands.runs() == ["m-step4"]


def test_a_twin_takes_the_place_of_what_was_refused(path: Path, commands: Commands) -> None:
    """As an earlier version left it: refused for drift, its parts kept."""
    with pytest.raises(Exception, match="activations are not those of the previous step"):
        published(path, "m-step5", seed=1, model_seed=4, revision="step5", model="m", identity=identity("m4", "step5"))
    assert warehouse.status(path, "m-step5") == "rejected"
    known = {"model_hash": "m4", "identity": identity("m4", "step5"), "options": {}}
    warehouse.record_twin(path, "m-step5", "m-step4", revision="step5", known=known)
    assert warehouse.status(path, "m-step5") == "twin"
    with warehouse.open(path) as opened:
        assert opened.quality_result(run_id="m-step5").is_empty()
    assert not (path.with_name("rare_tokens.duckdb.parts") / "m-step5").exists()


def test_a_run_that_is_published_at_last_is_no_twin_and_no_failure(path: Path) -> None:
    published(path, "m-step2", seed=1, model_seed=2, revision="step2", model="m", identity=identity("m2", "step2"))
    for run, asked in (
        ("lost", identity("x", "step2")),
        ("gap", None),
        ("others", identity("x", "step2") | {"seed": 7}),
    ):
        known = {"identity": asked} if asked else {}
        warehouse.record_gap(path, run_id=run, model="m", revision="step2", why="no", status="failed", known=known)
    warehouse.record_gap(path, run_id="m-step2", model="m", revision="step2", why="no", status="failed")
    warehouse.forget_gaps(
        path, run_id="m-step2", gap_ids=["other", "gap"], model="m", revision="step2", identity=identity("m2", "step2")
    )
    with warehouse.open(path) as opened:
        found = opened.sql("from dim_run select run_id, status, twin_of order by run_id").rows()
    assert found == [
        ("m-step1", "published", None), ("m-step2", "published", None), ("m-step4", "published", None),
        ("others", "failed", None),
    ]  # fmt: skip


def test_stages_and_branches_decide_which_step_is_the_previous_one(tmp_path: Path) -> None:
    path = empty(tmp_path / "w.duckdb")
    names = ["stage1-step8", "stage1-step9-tokens4B", "stage2-step1", "stage2-step3", "stage1-step9-seed2", "main"]
    for number, revision in enumerate(names):
        step(path, number, revision=revision)
    with warehouse.open(path) as opened:
        found = opened.sql("from audit_drift select run_id, previous_run_id, steps order by run_id").rows()
        places = opened.sql(
            "from dim_run select revision, training_stage, training_step, training_tokens, training_branch"
        ).rows()
    assert found == [
        ("m-stage1-step9-tokens4B", "m-stage1-step8", 1),
        ("m-stage2-step1", "m-stage1-step9-tokens4B", None),
        ("m-stage2-step3", "m-stage2-step1", 2),
    ]
    assert places == [
        ("stage1-step8", 1, 8, None, None),
        ("stage1-step9-tokens4B", 1, 9, 4 * 10**9, None),
        ("stage2-step1", 2, 1, None, None),
        ("stage2-step3", 2, 3, None, None),
        ("stage1-step9-seed2", 1, 9, None, "seed2"),
        ("main", None, None, None, None),
    ]


def test_runs_of_an_earlier_version_are_placed_in_training_when_they_are_migrated(tmp_path: Path) -> None:
    new = empty(tmp_path / "new.duckdb")
    for number, revision in enumerate(["stage1-step8-tokens3B", "checkpoint-9_merged", "main"]):
        step(new, number, revision=revision)
    old = make_old(tmp_path / "old.duckdb", new, 14)
    with duckdb.connect(old) as con:
        assert "training_step" not in [row[0] for row in con.execute("describe store.run").fetchall()]
    warehouse.migrate(old, line=power_law_line)
    with warehouse.open(old) as opened, warehouse.open(new) as expected:
        assert opened.dim_run()["training_step"].to_list() == [8, 9, None]
        assert opened.dim_run().drop("published_at").equals(expected.dim_run().drop("published_at"))
    warehouse.record_gap(old, run_id="gap", model="m", revision="step2", why="gone")
    with pytest.raises(UserError, match="is missing and has no finished parts"):
        warehouse.check(old, ["gap"], tmp_path / "quality")
