"""The audit before publishing: broken and doubtful runs are refused, and leave no trace in the facts."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError, UserError
from rare_tokens.warehouse import connection
from studies.synthetic.runs import make_parts
from tests.support.warehouses import (
    SMALL,
    assert_same,
    change,
    contents,
    drop_row,
    empty,
    parts_of,
    published,
    stored,
    summary,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return empty(tmp_path / "w.duckdb")


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
        warehouse.publish(path, parts_of(path), line=power_law_line, anyway=anyway)
    assert expectation in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert parts_of(path).is_dir()
    assert warehouse.status(path, "run") == "rejected"
    with warehouse.open(path) as opened:
        assert expectation in opened.dim_run()["status_reason"].item()
        assert len(opened.fct_effect()) == len(opened.dim_token()) == 0


@pytest.mark.quick_cases(5)
@pytest.mark.parametrize(("damage", "expectation"), INTEGRITY)
def test_a_broken_run_is_refused_whatever_the_reason(
    path: Path, damage: Callable[[Path], None], expectation: str
) -> None:
    make_parts(parts_of(path), run_id="run", **SMALL)
    damage(parts_of(path))
    assert_refused(path, expectation, anyway="please")


@pytest.mark.quick_cases(3)
@pytest.mark.parametrize(("damage", "expectation"), PLAUSIBILITY)
def test_a_doubtful_run_is_refused_without_a_reason(
    path: Path, damage: Callable[[Path], None], expectation: str
) -> None:
    make_parts(parts_of(path), run_id="run", **SMALL)
    damage(parts_of(path))
    assert_refused(path, expectation, anyway=None)


@pytest.mark.parametrize(
    ("damage", "expectation"),
    [*PLAUSIBILITY[:2], *(pytest.param(*case, marks=pytest.mark.slow) for case in PLAUSIBILITY[2:])],
)
def test_a_doubtful_run_is_published_for_a_reason(path: Path, damage: Callable[[Path], None], expectation: str) -> None:
    make_parts(parts_of(path), run_id="run", **SMALL)
    damage(parts_of(path))
    warehouse.publish(path, parts_of(path), line=power_law_line, anyway="a test of the fallback")
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
        warehouse.publish(path, folder, line=power_law_line)


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
        warehouse.publish(path, folder, line=power_law_line, anyway="please")
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
        warehouse.publish(path, folder, line=power_law_line)
    assert warehouse.status(path, "run") == "rejected"


def test_a_rejected_run_can_be_ingested_again(path: Path) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    summary(self_check_error=9.0)(folder)
    with pytest.raises(QualityError):
        warehouse.publish(path, folder, line=power_law_line)
    shutil.rmtree(folder)
    warehouse.begin(path, make_parts(folder, run_id="run", **SMALL))
    assert warehouse.publish(path, folder, line=power_law_line) == "run"
    with warehouse.open(path) as opened:
        assert opened.dim_run()["status_reason"].to_list() == [None]


def test_a_refused_new_version_leaves_the_published_one(path: Path) -> None:
    stored(path)
    before = contents(path)
    make_parts(parts_of(path), run_id="run", **SMALL)
    summary(self_check_error=9.0)(parts_of(path))
    with pytest.raises(QualityError):
        warehouse.publish(path, parts_of(path), line=power_law_line)
    assert_same(before, contents(path))


@pytest.mark.parametrize(
    ("relation", "column", "row", "value"), [("token_frequency", "count", 1, 12345), ("dim_token", "text", 1, "other")]
)
def test_other_contents_under_the_same_id_are_refused(
    path: Path, relation: str, column: str, row: int, value: Any
) -> None:
    stored(path, "first")
    before = contents(path, leave_out=("dim_run",))
    folder = parts_of(path, "second")
    make_parts(folder, run_id="second", **SMALL)
    change(relation, column, row, value)(folder)
    with pytest.raises(QualityError, match=f"other contents in {relation}"):
        warehouse.publish(path, folder, line=power_law_line)
    assert warehouse.status(path, "second") == "rejected"
    assert_same(before, contents(path, leave_out=("dim_run",)))


def test_unfinished_parts_are_not_published(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    folder = parts_of(path)
    with pytest.raises(UserError, match="holds no parts"):
        warehouse.publish(path, folder, line=power_law_line)
    make_parts(folder, run_id="run", staged=False, **SMALL)
    with pytest.raises(UserError, match="not finished"):
        warehouse.publish(path, folder, line=power_law_line)
    assert not path.exists()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse of three runs."""
    path = empty(tmp_path_factory.mktemp("three") / "w.duckdb")
    for seed, name in enumerate(("one", "two", "three")):
        published(path, name, model_seed=seed)
    return path


@pytest.mark.parametrize("view", ["audit_group", "audit_influence"])
def test_the_second_audit_of_a_run_reads_no_other(three: Path, view: str) -> None:
    """Or publishing would take longer and more memory with every run that is there."""
    with connection.reading(three) as con:
        ((_, plan),) = con.execute(
            f"explain (analyze, format json) select * from {view} where run_id = 'two'"
        ).fetchall()
        of_runs = dict(
            con.execute(
                "select table_name, estimated_size from duckdb_tables() where schema_name = 'store' and table_name in"
                " (select table_name from duckdb_columns() where column_name = 'run_key')"
            ).fetchall()
        )
    read = [(name, rows) for name, rows in scanned(json.loads(plan)) if name in of_runs.keys() - {"run"}]
    assert read
    for name, rows in read:
        assert rows <= of_runs[name] / 3, name


def scanned(plan: Any) -> Iterator[tuple[str, int]]:
    """Tables that a plan read, and how many rows."""
    if isinstance(plan, dict):
        if table := plan.get("extra_info", {}).get("Table"):
            yield table.rpartition(".")[2], plan["intermediate_rows"]
        plan = list(plan.values())
    if isinstance(plan, list):
        for part in plan:
            yield from scanned(part)
