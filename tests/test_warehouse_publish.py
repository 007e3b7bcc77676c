"""Write, audit, publish: what gets in, what is refused, and what a crash leaves."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import warehouse
from common import parts
from common.errors import LockedError, QualityError, UserError
from tests.synthetic import make_parts, write_summary
from warehouse import connection, processes, publishing

SMALL: dict[str, Any] = {"positions": 128, "neurons": 40, "window": 32, "vocabulary": 60}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.duckdb"


def parts_of(path: Path, name: str = "run") -> Path:
    return parts.parts_root(path) / name


def published(path: Path, name: str = "run", **given: Any) -> str:
    make_parts(parts_of(path, name), run_id=name, **(SMALL | given))
    return warehouse.publish(path, parts_of(path, name))


def contents(path: Path, leave_out: tuple[str, ...] = ()) -> dict[str, pl.DataFrame]:
    """Every public view, rows in a fixed order, without what differs between two times of publishing."""
    frames = {}
    with warehouse.open(path) as opened:
        for table in warehouse.tables(path):
            if table.kind == "view" and table.name not in leave_out:
                frame = opened.sql(f"select * from {table.name} order by all")
                frames[table.name] = frame.drop("published_at", strict=False)
    return frames


def assert_same(left: dict[str, pl.DataFrame], right: dict[str, pl.DataFrame]) -> None:
    assert left.keys() == right.keys()
    for name, frame in left.items():
        assert frame.equals(right[name]), name


# --- what gets in ---------------------------------------------------------------------------------------------------


def test_a_run_is_begun_staged_and_published(path: Path) -> None:
    folder = parts_of(path)
    manifest = make_parts(folder, run_id="run", staged=False, **SMALL)
    warehouse.begin(path, manifest)
    assert warehouse.status(path, "run") == "running"
    write_summary(folder)
    assert warehouse.status(path, "run") == "staged"
    assert warehouse.publish(path, folder) == "run"
    assert warehouse.status(path, "run") == "published"
    assert not folder.exists()


def test_the_stored_facts_are_the_parts(path: Path) -> None:
    folder = parts_of(path)
    effects = ("loss", "direct", "kl")
    make_parts(folder, run_id="run", position_block=50, effects=effects, layer=7, **SMALL)
    blocks = [pl.read_parquet(parts.effect_path(folder, block)) for block in range(3)]
    others = {name: pl.read_parquet(parts.relation_path(folder, name)) for name in parts.RELATIONS}
    warehouse.publish(path, folder)
    with warehouse.open(path) as opened:
        stored = opened.sql("select * from store.fct_effect order by rowid")
        assert stored.drop("run_key", "delta_entropy", "frozen_frequency_delta_loss").equals(
            pl.concat(blocks).sort("neuron", "position_id")
        )
        for name in ("delta_entropy", "frozen_frequency_delta_loss"):
            assert stored[name].null_count() == len(stored)
        assert opened.fct_effect()["layer"].unique().to_list() == [7]
        for name, part in others.items():
            assert opened.sql(f"select {', '.join(part.columns)} from {name} order by all").equals(
                part.select(pl.all()).sort(pl.all(), nulls_last=True)
            ), name


def test_the_manifest_and_summary_are_in_dim_run(path: Path) -> None:
    folder = parts_of(path)
    manifest = make_parts(folder, run_id="run", created_at="2026-11-21T03:00:00+02:00", **SMALL)
    summary = parts.read_summary(folder)
    warehouse.publish(path, folder)
    with warehouse.open(path) as opened:
        run = opened.dim_run().row(0, named=True)
    for name in ("model", "revision", "layer", "positions", "neurons", "seed", "tolerance", "effects", "code_version"):
        assert run[name] == getattr(manifest, name), name
    assert summary is not None
    for name in ("device", "exact_pairs", "self_check_error", "structural_check_error", "seconds", "warnings"):
        assert run[name] == getattr(summary, name), name
    assert str(run["created_at"]) == "2026-11-21 01:00:00"
    assert run["options"] == '{"tokens": 128, "window": 32}'


def test_publishing_again_replaces_the_run(path: Path) -> None:
    published(path, seed=0)
    published(path, "other", seed=5)
    before = contents(path)
    published(path, seed=0, code_version="0.2.0", model_hash="n" * 64)
    after = contents(path)
    assert after.pop("dim_run")["code_version"].to_list().count("0.2.0") == 1
    before.pop("dim_run")
    assert_same(before, after)


def test_a_run_extended_by_an_effect_replaces_the_run(path: Path) -> None:
    published(path)
    published(path, effects=("loss", "direct"))
    with warehouse.open(path) as opened:
        facts = opened.fct_effect()
    assert len(facts) == 128 * 40
    assert facts["direct_delta_loss"].null_count() == 0


def test_marts_are_the_same_bit_for_bit_on_any_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Large enough that the engine works with several threads: 16 blocks of 122,880 rows.
    seen = []
    for threads in (1, 4, 3):
        monkeypatch.setitem(connection.WRITE_CONFIG, "threads", threads)
        path = tmp_path / f"{threads}.duckdb"
        make_parts(parts_of(path), positions=4096, neurons=512, vocabulary=5000, window=256, run_id="run")
        warehouse.publish(path, parts_of(path))
        seen.append(contents(path, leave_out=("fct_effect", "neuron_weight", "dim_position", "position_frequency")))
    assert_same(seen[0], seen[1])
    assert_same(seen[0], seen[2])


def test_marts_do_not_depend_on_how_the_facts_were_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for block, facts in ((50, 1), (128, 10**9)):
        monkeypatch.setattr(publishing, "FACTS_PER_STATEMENT", facts)
        path = tmp_path / f"{block}.duckdb"
        make_parts(parts_of(path), run_id="run", position_block=128, **(SMALL | {"neurons": 150}))
        _cut(parts_of(path), block)
        warehouse.publish(path, parts_of(path))
        seen.append(contents(path))
    assert_same(*seen)


def _cut(folder: Path, block: int) -> None:
    """Cut the one part of fct_effect into parts of `block` positions."""
    whole = pq.read_table(parts.effect_path(folder, 0))
    manifest = parts.read_manifest(folder)
    assert manifest is not None
    parts.write_manifest(folder, replace(manifest, position_block=block))
    of_block = whole["position_id"].to_numpy() // block
    for number in range(of_block.max() + 1):
        pq.write_table(whole.filter(pa.array(of_block == number)), parts.effect_path(folder, number))


def test_tokens_and_frequencies_are_stored_once(path: Path) -> None:
    published(path, "first", seed=3)
    published(path, "second", seed=3)
    published(path, "third", seed=4)
    with warehouse.open(path) as opened:
        assert len(opened.dim_token()) == 60
        assert len(opened.token_frequency()) == 2 * 60
        assert len(opened.position_group(run="second")) == len(opened.position_group(run="first")) > 0


@pytest.mark.parametrize("folder", ["with space", "it's", "we[ird]*", "ünï çødé", 'say "hi"'])
def test_paths_with_odd_characters(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "w.duckdb"
    path.parent.mkdir()
    assert published(path) == "run"
    with warehouse.open(path) as opened:
        assert len(opened.fct_effect()) == 128 * 40


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert published(Path("w.duckdb")) == "run"
    assert warehouse.status(Path("w.duckdb"), "run") == "published"


def test_hostile_texts_of_tokens_are_kept_as_they_are(path: Path) -> None:
    texts = [
        "<script>alert(1)</script>",
        "\x1b[31mred",
        "null\x00byte",
        "\u202eright to left",
        "'; drop table t; --",
        "x" * 10**7,
    ]
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    for row, text in enumerate(texts, 1):
        change("dim_token", "text", row, text)(folder)
    warehouse.publish(path, folder)
    with warehouse.open(path) as opened:
        assert opened.dim_token(token_id=[*range(1, 7)]).sort("token_id")["text"].to_list() == texts
    assert warehouse.run_sql(path, "select max(length(text)) as n from dim_token")["n"].to_list() == [10**7]


def test_a_run_without_rare_tokens_is_published(path: Path) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    table = pq.read_table(parts.relation_path(folder, "token_frequency"))
    even = table.set_column(1, "count", pa.array(np.full(60, 7, dtype=np.uint64)))
    pq.write_table(even, parts.relation_path(folder, "token_frequency"))
    warehouse.publish(path, folder)
    with warehouse.open(path) as opened:
        fits = opened.power_law_fit(preset="es").sort("token_group")
        assert fits["reason"].to_list() == ["no position in the group", None]  # all types tie at percentile 0


# --- what is refused ------------------------------------------------------------------------------------------------


def change(relation: str, column: str, row: int, value: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = parts.effect_path(folder, 0) if relation == "fct_effect" else parts.relation_path(folder, relation)
        table = pq.read_table(file)
        index = table.schema.get_field_index(column)
        values = table[column].to_pylist()
        values[row] = value
        pq.write_table(
            table.set_column(index, table.schema.field(index), pa.array(values, table.schema.types[index])), file
        )

    return apply


def drop_row(relation: str, row: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = parts.effect_path(folder, 0) if relation == "fct_effect" else parts.relation_path(folder, relation)
        table = pq.read_table(file)
        pq.write_table(pa.concat_tables([table.slice(0, row), table.slice(row + 1)]), file)

    return apply


def summary(**values: Any) -> Callable[[Path], None]:
    return lambda folder: write_summary(folder, **values)


INTEGRITY = [
    (drop_row("fct_effect", 5), "has every neuron at every position once"),
    (change("fct_effect", "position_id", 5, 6), "has every neuron at every position once"),
    (change("fct_effect", "neuron", 0, 1), "has every neuron at every position once"),
    (change("fct_effect", "neuron", 0, 40), "has facts of every neuron"),
    (change("fct_effect", "delta_loss", 9, float("nan")), "delta_loss is finite"),
    (change("fct_effect", "delta_loss", 9, float("-inf")), "delta_loss is finite"),
    (change("fct_effect", "activation", 9, float("inf")), "activation is finite"),
    (change("fct_effect", "activation", 9, None), "has no NULL"),
    (change("fct_effect", "delta_loss", 9, 1e30), "|delta_loss| × window_length is below 2^23"),
    (drop_row("dim_position", 0), "has every position once"),
    (change("dim_position", "position_id", 1, 0), "has every position once"),
    (change("dim_position", "window_offset", 1, 0), "position_id tells window and offset"),
    (change("dim_position", "target_token_id", 1, 999), "tokens are in dim_token"),
    (drop_row("token_frequency", 1), "targets are in token_frequency"),
    (drop_row("dim_neuron", 39), "has every neuron once"),
    (drop_row("neuron_weight", 39), "has the weights of every neuron once"),
    (change("neuron_token", "rank", 1, 1), "has each direction and rank once"),
    (change("dim_token", "token_id", 1, 2), "has every token once"),
    (change("token_frequency", "token_id", 1, 2), "counts every token once"),
]
PLAUSIBILITY = [
    (change("dim_position", "document_id", 1, 77), "documents are in dim_document"),
    (change("dim_position", "loss", 1, float("nan")), "loss and entropy are finite"),
    (change("dim_position", "loss", 1, -1.0), "loss and entropy are not negative"),
    (change("dim_document", "first_position", 0, 128), "has every document once, inside the run"),
    (change("dim_neuron", "w_out_norm", 0, float("inf")), "values are finite"),
    (change("dim_neuron", "null_space_share", 0, 1.5), "shares and correlations are in range"),
    (change("neuron_weight", "w_out", 0, [1.0]), "vectors are of one length and finite"),
    (change("neuron_token", "direction", 0, "left"), "directions, tokens and logits are sound"),
    (change("neuron_token", "token_id", 0, 999), "directions, tokens and logits are sound"),
    (summary(self_check_error=1.01), "numeric self-check is within tolerance"),
    (summary(structural_check_error=float(2)), "structural self-check is within tolerance"),
]


def assert_refused(path: Path, expectation: str, anyway: str | None) -> None:
    with pytest.raises(QualityError) as refusal:
        warehouse.publish(path, parts_of(path), anyway=anyway)
    assert expectation in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert parts_of(path).is_dir()
    assert warehouse.status(path, "run") == "rejected"
    with warehouse.open(path) as opened:
        assert expectation in opened.dim_run()["status_reason"].item()
        assert len(opened.fct_effect()) == len(opened.dim_token()) == 0


@pytest.mark.parametrize(("damage", "expectation"), INTEGRITY)
def test_a_broken_run_is_refused_whatever_the_reason(
    path: Path, damage: Callable[[Path], None], expectation: str
) -> None:
    make_parts(parts_of(path), run_id="run", **SMALL)
    damage(parts_of(path))
    assert_refused(path, expectation, anyway="please")


@pytest.mark.parametrize(("damage", "expectation"), PLAUSIBILITY)
def test_a_doubtful_run_is_refused_unless_there_is_a_reason(
    path: Path, damage: Callable[[Path], None], expectation: str
) -> None:
    make_parts(parts_of(path), run_id="run", **SMALL)
    damage(parts_of(path))
    assert_refused(path, expectation, anyway=None)
    warehouse.publish(path, parts_of(path), anyway="a test of the fallback")
    with warehouse.open(path) as opened:
        (why,) = opened.dim_run()["status_reason"]
        assert "a test of the fallback" in why
        assert expectation in why
        assert len(opened.sql("from audit_verdict where failures > 0")) > 0
        assert len(opened.fct_effect()) == 128 * 40


def test_a_sound_run_keeps_to_every_expectation(path: Path) -> None:
    published(path, effects=("loss", "direct", "entropy", "kl", "frequency"))
    with warehouse.open(path) as opened:
        verdict = opened.sql("from audit_verdict")
    assert len(verdict) > 25
    assert verdict["failures"].sum() == 0


def test_a_missing_effect_is_refused(path: Path) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", effects=("loss", "direct"), **SMALL)
    change("fct_effect", "direct_delta_loss", 3, None)(folder)
    with pytest.raises(QualityError, match="has each effect that was asked for"):
        warehouse.publish(path, folder)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: parts.effect_path(folder, 0).unlink(), "is missing"),
        (lambda folder: parts.relation_path(folder, "dim_token").write_bytes(b"PAR1 is not enough"), "cannot be read"),
        (lambda folder: pq.write_table(pa.table({"neuron": [1]}), parts.effect_path(folder, 0)), "other columns"),
    ],
)
def test_a_part_that_is_no_part_is_named(path: Path, damage: Callable[[Path], None], what: str) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    damage(folder)
    with pytest.raises(QualityError, match=what) as refusal:
        warehouse.publish(path, folder, anyway="please")
    assert ".parquet" in str(refusal.value)
    assert warehouse.status(path, "run") == "rejected"


def test_a_part_damaged_in_its_middle_is_refused(path: Path) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    file = parts.effect_path(folder, 0)
    data = bytearray(file.read_bytes())
    data[100:5000] = bytes(4900)
    file.write_bytes(data)
    with pytest.raises(QualityError):
        warehouse.publish(path, folder)
    assert warehouse.status(path, "run") == "rejected"


def test_a_rejected_run_can_be_ingested_again(path: Path) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    summary(self_check_error=9.0)(folder)
    with pytest.raises(QualityError):
        warehouse.publish(path, folder)
    shutil.rmtree(folder)
    warehouse.begin(path, make_parts(folder, run_id="run", **SMALL))
    assert warehouse.publish(path, folder) == "run"
    with warehouse.open(path) as opened:
        assert opened.dim_run()["status_reason"].to_list() == [None]


def test_a_refused_new_version_leaves_the_published_one(path: Path) -> None:
    published(path)
    before = contents(path)
    make_parts(parts_of(path), run_id="run", **SMALL)
    summary(self_check_error=9.0)(parts_of(path))
    with pytest.raises(QualityError):
        warehouse.publish(path, parts_of(path))
    assert_same(before, contents(path))


@pytest.mark.parametrize(
    ("relation", "column", "row", "value"), [("token_frequency", "count", 1, 12345), ("dim_token", "text", 1, "other")]
)
def test_other_contents_under_the_same_id_are_refused(
    path: Path, relation: str, column: str, row: int, value: Any
) -> None:
    published(path, "first")
    before = contents(path, leave_out=("dim_run",))
    folder = parts_of(path, "second")
    make_parts(folder, run_id="second", **SMALL)
    change(relation, column, row, value)(folder)
    with pytest.raises(QualityError, match=f"other contents in {relation}"):
        warehouse.publish(path, folder)
    assert warehouse.status(path, "second") == "rejected"
    assert_same(before, contents(path, leave_out=("dim_run",)))


def test_unfinished_parts_are_not_published(path: Path) -> None:
    folder = parts_of(path)
    with pytest.raises(UserError, match="holds no parts"):
        warehouse.publish(path, folder)
    make_parts(folder, run_id="run", staged=False, **SMALL)
    with pytest.raises(UserError, match="not finished"):
        warehouse.publish(path, folder)
    assert not path.exists()


# --- crashes and other processes ------------------------------------------------------------------------------------


def test_parts_left_by_a_crash_after_the_commit_are_only_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    kept = path.with_name("kept")
    shutil.copytree(folder, kept)
    warehouse.publish(path, folder)
    before = contents(path)
    shutil.copytree(kept, folder)
    monkeypatch.setattr(publishing.audit, "audit_parts", lambda _: pytest.fail("published a second time"))
    assert warehouse.publish(path, folder) == "run"
    assert not folder.exists()
    assert_same(before, contents(path))


KILLED = """
import os, signal, sys
from pathlib import Path
import warehouse
from warehouse import publishing
path, folder, stage = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
original = publishing._timed
def timed(name):
    if name == stage:
        die()
    return original(name)
publishing._timed = timed
warehouse.publish(path, folder)
"""


@pytest.mark.parametrize("stage", ["audit", "facts", "commit", "checkpoint"])
@pytest.mark.parametrize("again", [False, True])
def test_a_kill_leaves_the_old_state_or_the_new(path: Path, stage: str, again: bool) -> None:
    published(path, "other", seed=9)
    if again:
        published(path, seed=0)
    before = contents(path, leave_out=("dim_run",))
    folder = parts_of(path)
    make_parts(folder, run_id="run", code_version="0.2.0", **(SMALL | {"seed": 1}))
    killed = subprocess.run([sys.executable, "-c", KILLED, path, folder, stage], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert folder.is_dir()
    if stage == "checkpoint":  # after the commit
        assert warehouse.status(path, "run") == "published"
        assert contents(path)["dim_run"].filter(pl.col("run_id") == "run")["code_version"].item() == "0.2.0"
    else:
        assert_same(before, contents(path, leave_out=("dim_run",)))
    warehouse.publish(path, folder)
    undisturbed = path.with_name("undisturbed.duckdb")
    published(undisturbed, "other", seed=9)
    published(undisturbed, seed=1, code_version="0.2.0")
    keyed = ("dim_run",)
    assert_same(contents(undisturbed, leave_out=keyed), contents(path, leave_out=keyed))


def test_a_run_whose_process_is_gone_is_interrupted(path: Path) -> None:
    manifest = make_parts(parts_of(path), run_id="run", staged=False, **SMALL)
    code = (
        "import sys; from pathlib import Path; import warehouse; from common import parts;"
        "warehouse.begin(Path(sys.argv[1]), parts.read_manifest(Path(sys.argv[2])))"
    )
    subprocess.run([sys.executable, "-c", code, path, parts_of(path)], check=True)
    assert warehouse.status(path, "run") == "interrupted"
    assert warehouse.runs(path)["status"].to_list() == ["interrupted"]
    warehouse.begin(path, manifest)
    assert warehouse.status(path, "run") == "running"


def test_a_run_that_another_process_writes_is_locked(path: Path) -> None:
    manifest = make_parts(parts_of(path), run_id="run", staged=False, **SMALL)
    code = (
        "import sys; from pathlib import Path; import warehouse; from common import parts;"
        "warehouse.begin(Path(sys.argv[1]), parts.read_manifest(Path(sys.argv[2]))); print('begun', flush=True);"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path), str(parts_of(path))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for refused in (lambda: warehouse.begin(path, manifest), lambda: warehouse.delete(path, "run")):
            with pytest.raises(LockedError, match=str(other.pid)):
                refused()
        assert warehouse.runs(path)["pid"].to_list() == [other.pid]
        other.communicate()
    warehouse.begin(path, manifest, wait=5)
    assert warehouse.status(path, "run") == "running"


def test_a_claim_is_held_by_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "parts" / "run"
    code = (
        "import sys; from pathlib import Path; import warehouse\n"
        "with warehouse.claim(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(LockedError, match=str(other.pid)), warehouse.claim(folder, wait=0.2):
            pytest.fail("claimed twice")
        other.kill()
    with warehouse.claim(folder, wait=5):  # its holder is gone
        pass
    with warehouse.claim(folder):
        pass


def test_processes_of_other_hosts_count_as_alive() -> None:
    assert processes.holder(processes.current()) is not None
    assert processes.other_holder(processes.current()) is None
    assert processes.holder("some-other-host 1 0.0") == 1
    host, pid, _ = processes.current().rsplit(" ", 2)
    assert processes.holder(f"{host} {pid} 1.0") is None  # the PID was used again


def test_a_missing_revision_is_recorded(path: Path) -> None:
    warehouse.record_missing(path, run_id="m-step5", model="m", revision="step5", why="no weights at step5")
    assert warehouse.status(path, "m-step5") == "missing"
    with warehouse.open(path) as opened:
        assert opened.dim_run(run="m-step5")["status_reason"].item() == "no weights at step5"
    published(path, "m-step5")
    warehouse.record_missing(path, run_id="m-step5", model="m", revision="step5", why="gone")
    assert warehouse.status(path, "m-step5") == "published"
