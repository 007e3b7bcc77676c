"""Data quality: what publishing computes is checked before it is seen, and Great Expectations judges as SQL does."""

import json
import math
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from rare_tokens.common.errors import QualityError, UserError
from rare_tokens.warehouse.check import expectations
from rare_tokens.warehouse.connection import reading
from rare_tokens.warehouse.publish.audit import Verdict
from rare_tokens.warehouse.schema import relations
from studies.synthetic.runs import make_parts
from tests.support.warehouses import SMALL, change, empty, parts_of, published, stored, summary


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return empty(tmp_path / "w.duckdb")


# --- the second audit -----------------------------------------------------------------------------------------------

MARTS = [
    ("neuron_influence", "partition by preset, token_group order by abs_delta desc, neuron", "order by neuron",
     "ranks are a permutation of the neurons"),
    ("neuron_influence", "order by abs_delta desc, neuron", "order by abs_delta, neuron", "influence falls with rank"),
    ("neuron_influence", "'boost' when delta < 0", "'suppress' when delta < 0", "role is its sign"),
    ("neuron_influence", "from total\n", "from total where neuron > 0\n", "has every neuron in every group once"),
    ("neuron_influence", "        positions,\n        case", "        positions + 1 as positions,\n        case",
     "positions are those of position_group"),
    ("neuron_deviation", "fit.beta - fit.kappa", "fit.beta - 1.01 * fit.kappa", "leaves a mean of 0"),
    ("neuron_deviation", "'rapid decay'", "'decay'", "regimes are known"),
    ("neuron_deviation", "    left join fit using (preset, token_group)\n",
     "    left join fit using (preset, token_group)\n    where rank > 1\n", "has every ranked neuron"),
    ("power_law_fit", "line.* from", "line.* replace (null as reason) from", "window, r2 and values are sound"),
    ("position_group", "union all select * from matched\n",
     "union all select * from matched union all select * from drawn\n", "rare or common"),
    ("token_frequency", "count::double / occurrences as frequency", "0.9 * count / occurrences as frequency",
     "frequencies sum to 1"),
    ("token_frequency", "order by counted.count desc, counted.token_id", "order by counted.token_id",
     "in the order of the counts"),
    ("token_frequency", "100 * smaller_types", "200 * smaller_types", "percentiles are within 0 and 100"),
    ("agg_effect", "sum(abs(effect.delta)) as abs", "1 + 2 * sum(abs(effect.delta)) as abs",
     "sums agree with neuron_influence"),
    ("agg_effect", "sum(abs(effect.delta)) as abs", "0 as abs", "sums are finite and possible"),
    ("agg_effect", "select *, count(*) as positions", "select *, count(*) + 1 as positions",
     "positions of cells sum to those that have a frequency"),
    ("agg_effect", "    group by effect.neuron, member.cell\n", "    where member.cell > 1\n    group by all\n",
     "has every neuron in every cell once"),
]  # fmt: skip


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(("mart", "right", "wrong", "expectation"), MARTS)
def test_a_mart_that_comes_out_wrong_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, mart: str, right: str, wrong: str, expectation: str
) -> None:
    made = relations.relations()[mart]
    broken = tuple(statement.replace(right, wrong) for statement in made.publish)
    assert broken != made.publish, "the test breaks nothing"
    monkeypatch.setitem(relations.relations(), mart, replace(made, publish=broken))
    make_parts(parts_of(path), run_id="run", **(SMALL | {"neurons": 256}))
    with pytest.raises(QualityError) as refusal:
        warehouse.publish(path, parts_of(path), line=power_law_line, anyway="please")
    assert expectation in str(refusal.value)
    assert warehouse.status(path, "run") == "rejected"
    with warehouse.open(path) as opened:
        assert len(opened.fct_effect()) == len(opened.neuron_influence()) == len(opened.dim_token()) == 0
        failed = opened.quality_result(run="run", success=False)
        assert any(expectation in text for text in failed["expectation"])
        assert set(failed["checked_by"]) == {"publish"}


def step(path: Path, number: int, *, seed: int = 0, neurons_seed: int | None = None, **given: Any) -> Path:
    """Parts of a training step; every step of a series has the same identity but its revision and weights."""
    folder = parts_of(path, f"m-step{number}")
    identity = {"tokens": 128, "revision": f"step{number}", "model_hash": f"{number}"}
    make_parts(folder, run_id=f"m-step{number}", revision=f"step{number}", seed=seed, identity=identity,
               frequency_source_id="one", **(SMALL | given))  # fmt: skip
    if neurons_seed is not None:
        change("dim_neuron", "mean_activation", 0, 0.5)(folder)
        table = pa.parquet.read_table(parts.relation_path(folder, "dim_neuron"))
        index = table.schema.get_field_index("mean_activation")
        values = [neurons_seed + value for value in table["mean_activation"].to_pylist()]
        field = table.schema.field(index)
        pa.parquet.write_table(
            table.set_column(index, field, pa.array(values, field.type)), parts.relation_path(folder, "dim_neuron")
        )
    return folder


def louder(folder: Path) -> None:
    file = parts.effect_path(folder, 0)
    table = pa.parquet.read_table(file)
    index = table.schema.get_field_index("delta_loss")
    field = table.schema.field(index)
    scaled = pa.array([5e3 * value for value in table["delta_loss"].to_pylist()], field.type)
    pa.parquet.write_table(table.set_column(index, field, scaled), file)


DRIFT: list[tuple[Callable[[Path], Path], str]] = [
    (lambda path: step(path, 2), "mean activations are not those of the previous step"),
    (lambda path: step(path, 2, seed=1, neurons_seed=1), "targets are those of the previous step"),
    (lambda path: change_all(step(path, 2, neurons_seed=1), "loss", 3.0), "mean loss rises by at most 1 nat"),
    (lambda path: louder_step(path), "mean influence is within 1000 times"),
]


def change_all(folder: Path, column: str, by: float) -> Path:
    file = parts.relation_path(folder, "dim_position")
    table = pa.parquet.read_table(file)
    index = table.schema.get_field_index(column)
    field = table.schema.field(index)
    values = pa.array([value + by for value in table[column].to_pylist()], field.type)
    pa.parquet.write_table(table.set_column(index, field, values), file)
    return folder


def louder_step(path: Path) -> Path:
    folder = step(path, 2, neurons_seed=1)
    louder(folder)
    return folder


@pytest.fixture(scope="module")
def first_step(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with the first step of a series, to be copied."""
    path = empty(tmp_path_factory.mktemp("first") / "w.duckdb")
    warehouse.publish(path, step(path, 1), line=power_law_line)
    return path


def test_a_series_of_steps_that_only_trains_has_no_drift(path: Path) -> None:
    for number in (1, 2, 10):
        warehouse.publish(path, step(path, number, neurons_seed=number), line=power_law_line)
    with warehouse.open(path) as opened:
        drift = opened.sql("from audit_drift order by run_id")
        assert drift.select("run_id", "previous_run_id", "steps", "moved_targets").rows() == [
            ("m-step10", "m-step2", 8, 0),
            ("m-step2", "m-step1", 1, 0),
        ]
        assert len(opened.quality_result(run="m-step10", suite="drift", success=True)) == 4
        assert len(opened.quality_result(run="m-step1", suite="drift")) == 0


@pytest.mark.parametrize(("make", "expectation"), DRIFT)
def test_drift_from_the_previous_step_is_refused(
    first_step: Path, tmp_path: Path, make: Callable[[Path], Path], expectation: str
) -> None:
    path = Path(shutil.copy(first_step, tmp_path))
    folder = make(path)
    if expectation.startswith("targets"):  # the counts must be those of the first step, the positions not
        parts.relation_path(folder, "token_frequency").write_bytes(_same_counts(path).read_bytes())
    with pytest.raises(QualityError, match=expectation):
        warehouse.publish(path, folder, line=power_law_line)
    assert warehouse.status(path, "m-step2") == "rejected"


def test_drift_is_published_for_a_reason(first_step: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(first_step, tmp_path))
    make, expectation = DRIFT[2]
    warehouse.publish(path, make(path), line=power_law_line, anyway="the data of this step broke")
    with warehouse.open(path) as opened:
        (why,) = opened.dim_run(run="m-step2")["status_reason"]
        assert "the data of this step broke" in why
        assert expectation in why
        failed = opened.quality_result(run="m-step2", success=False)
        assert any(expectation in text for text in failed["expectation"])


def _same_counts(path: Path) -> Path:
    folder = parts_of(path, "counts")
    make_parts(folder, run_id="counts", seed=0, **SMALL)
    return parts.relation_path(folder, "token_frequency")


# --- values within bounds -------------------------------------------------------------------------------------------


def test_counts_that_do_not_fall_like_those_of_a_text_need_a_reason(path: Path) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", **(SMALL | {"vocabulary": 1200}))
    change_counts(folder, lambda count: 1000 + count // 1000)
    with pytest.raises(QualityError, match="Zipf"):
        warehouse.publish(path, folder, line=power_law_line)
    warehouse.publish(path, folder, line=power_law_line, anyway="a made-up language")


def test_counts_of_the_corpus_must_cover_the_sample(path: Path) -> None:
    folder = parts_of(path)
    given = {"frequency_source": "counted over a corpus", "identity": {"contexts": "sample"}}
    make_parts(folder, run_id="run", **SMALL, **given)
    change_counts(folder, lambda count: count // 10)
    with pytest.raises(QualityError, match="cover the sample drawn from it"):
        warehouse.publish(path, folder, line=power_law_line)
    change_counts(folder, lambda count: count + 200)
    warehouse.publish(path, folder, line=power_law_line)


def change_counts(folder: Path, change_one: Callable[[int], int]) -> None:
    file = parts.relation_path(folder, "token_frequency")
    table = pa.parquet.read_table(file)
    counts = pa.array([change_one(count) for count in table["count"].to_pylist()], pa.uint64())
    pa.parquet.write_table(table.set_column(1, table.schema.field(1), counts), file)


# --- what was found is stored ---------------------------------------------------------------------------------------


def test_every_fact_dimension_and_mart_is_checked_and_the_results_are_stored(path: Path) -> None:
    published(path)
    with warehouse.open(path) as opened:
        results = opened.quality_result()
    ours = {name for name in relations.relations() if name.startswith(("dim_", "fct_", "agg_"))}
    ours -= {"dim_group", "fct_group_effect"}  # of runs with groups ablated at once (tests/ingest/test_groups.py)
    ours -= set(parts.ATTENTION_RELATIONS)  # of runs with attention (tests/warehouse/test_attention.py)
    marts = {"token_frequency", "position_group", "neuron_influence", "power_law_fit", "neuron_deviation"}
    weights = {"neuron_weight", "neuron_token"}
    assert set(results["relation"]) >= ours | marts | weights
    assert results["success"].all()
    assert len(results) > 45
    assert results.filter(results["expectation"] == "frequencies sum to 1")["expected"].to_list() == ["0 to 1e-09"]


def test_a_refused_run_has_its_results_and_is_invisible_to_marts(path: Path) -> None:
    make_parts(parts_of(path), run_id="run", **SMALL)
    summary(self_check_error=1.5)(parts_of(path))
    with pytest.raises(QualityError):
        warehouse.publish(path, parts_of(path), line=power_law_line)
    with warehouse.open(path) as opened:
        (failed,) = opened.quality_result(success=False).rows(named=True)
        assert (failed["relation"], failed["observed"], failed["expected"]) == ("dim_run", 1.5, "0 to 1")
        assert len(opened.neuron_influence()) == len(opened.position_group()) == 0
    warehouse.publish(path, parts_of(path), line=power_law_line, anyway="known")
    warehouse.delete(path, "run")
    with warehouse.open(path) as opened:
        assert len(opened.quality_result()) == 0


# --- Great Expectations ---------------------------------------------------------------------------------------------

NUMBERS = [-math.inf, -1.0, 0.0, 0.5, 1.0, 1.0000001, 7.0, 1e30, math.inf]
BOUNDS = [(0.0, 0.0), (0.0, 1.0), (None, 1.0), (0.5, None)]


def test_great_expectations_judges_as_the_sql_does(tmp_path: Path) -> None:
    observed: dict[str, list[Verdict]] = {f"run {number}": [] for number in NUMBERS}
    with reading(tmp_path / "absent.duckdb") as con:
        for number in NUMBERS:
            for least, most in BOUNDS:
                query = "select audit_failures($observed::double, $least::double, $most::double)"
                ((failures,),) = con.execute(query, {"observed": number, "least": least, "most": most}).fetchall()
                name = f"is within {least} and {most}"
                observed[f"run {number}"].append(
                    Verdict("parts", "dim_run", name, number, least, most, failures, False)
                )
    held, page = expectations.judge(observed, tmp_path / "quality")
    assert len(held) == len(NUMBERS) * len(BOUNDS)
    for run_id, verdicts in observed.items():
        for verdict in verdicts:
            assert held[run_id, "parts", "dim_run", verdict.expectation] == (verdict.failures == 0), (run_id, verdict)
    assert 0 < sum(held.values()) < len(held)
    assert page.is_file()


def test_check_judges_stores_and_writes_pages_without_a_network(commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("check reached for the network")

    path = commands.folder / "rare_tokens.duckdb"
    stored(path, "sound")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    ended = commands("check", "sou", "--json")
    assert ended.code == 0, ended.err
    (row,) = json.loads(ended.out)
    assert (row["run_id"], row["failed"]) == ("sound", 0)
    assert (commands.folder / "rare_tokens_quality/gx/uncommitted/data_docs/local_site/index.html").is_file()
    with warehouse.open(path) as opened:
        results = opened.quality_result()
    assert set(results["checked_by"]) == {"check"}
    assert len(results) == row["expectations"]
    assert results["success"].all()


def test_check_ends_with_3_where_a_run_fails_and_says_why(commands: Any) -> None:
    path = commands.folder / "rare_tokens.duckdb"
    stored(path, "sound")
    make_parts(parts_of(path, "loud"), run_id="loud", **SMALL)
    summary(self_check_error=2.0)(parts_of(path, "loud"))
    with pytest.raises(QualityError):
        warehouse.publish(path, parts_of(path, "loud"), line=power_law_line)
    for anyway in (False, True):  # refused: from its parts; published for a reason: from its tables
        if anyway:
            warehouse.publish(path, parts_of(path, "loud"), line=power_law_line, anyway="for this test")
        ended = commands("check", "--explain", "--json", "--out", "pages of quality")
        assert ended.code == 3
        assert "numeric self-check is within tolerance: it is 2" in ended.err
        failed = [row for row in json.loads(ended.out) if not row["success"]]
        assert [(row["run_id"], row["observed"], row["expected"]) for row in failed] == [("loud", 2.0, "0 to 1")]
        with warehouse.open(path) as opened:
            assert len(opened.quality_result(run="loud", success=False, checked_by="check")) == 1
    assert commands("check", "nobody").code == 2


def test_check_of_nothing_and_of_a_run_without_parts(commands: Any) -> None:
    ended = commands("check")
    assert ended.code == 2
    assert "no run to check" in ended.err
    path = commands.folder / "rare_tokens.duckdb"
    warehouse.record_gap(path, run_id="m-step5", model="m", revision="step5", why="no weights")
    ended = commands("check", "m-step5")
    assert ended.code == 2
    assert "missing" in ended.err
    assert not (commands.folder / "rare_tokens_quality").exists()


def test_a_part_that_was_damaged_after_the_refusal_is_named_by_check(path: Path, tmp_path: Path) -> None:
    make_parts(parts_of(path), run_id="run", **SMALL)
    summary(self_check_error=2.0)(parts_of(path))
    with pytest.raises(QualityError):
        warehouse.publish(path, parts_of(path), line=power_law_line)
    parts.relation_path(parts_of(path), "dim_token").unlink()
    with pytest.raises(QualityError, match=r"dim_token\.parquet.*is missing"):
        warehouse.check(path, ["run"], tmp_path / "quality")
    with pytest.raises(UserError, match="no run"):
        warehouse.check(path, ["else"], tmp_path / "quality")
