"""SQL that a user typed can read the warehouse, and nothing else, and can be stopped."""

import os
import time
from pathlib import Path

import duckdb
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import LockedError, UserError
from rare_tokens.warehouse import sandbox
from rare_tokens.warehouse.store import parquet_facts
from studies.synthetic.runs import make_parts
from tests.support.warehouses import hashes

SECRET = "the content of a file beside the warehouse"


# Of a run in Parquet the engine may read files, so that is the store with the weaker wall.
STORES = [parquet_facts.PARQUET, pytest.param(parquet_facts.NATIVE, marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=STORES)
def path(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    path = tmp_path_factory.mktemp("sandbox") / "w.duckdb"
    make_parts(path.with_name("parts"), positions=64, neurons=8, window=32, run_id="run")
    warehouse.publish(path, path.with_name("parts"), line=power_law_line, store=request.param)
    path.with_name("secret.txt").write_text(SECRET)
    pl.DataFrame({"x": [SECRET]}).write_parquet(path.with_name("secret.parquet"))
    with duckdb.connect(path.with_name("other.duckdb")) as con:
        con.execute("create table t as select 1 as x")
    return path


HOSTILE = [
    # writing
    "copy dim_run to '{folder}/out.csv'",
    "copy (select 1) to '{folder}/out.parquet' (format parquet)",
    "export database '{folder}/out'",
    "create table t as select 1",
    "create temp table t as select 1",
    "create or replace view dim_run as select 1",
    "create macro f(x) as x",
    "create schema s",
    "create sequence s",
    "create type t as enum ('a')",
    "insert into store.run (run_key, run_id) values (9, 'x')",
    "update store.run set model = 'x'",
    "delete from store.fct_effect",
    "truncate store.fct_effect",
    "drop table store.fct_effect",
    "drop view dim_run",
    "alter table store.run add column x integer",
    "merge into store.run using (select 1 as run_key) as s using (run_key) when matched then delete",
    "comment on table store.run is 'x'",
    "with gone as (delete from store.run returning *) select * from gone",
    "with new as (insert into store.catalogue values ('x') returning *) select * from new",
    "with out as (copy (select 1) to '{folder}/out.csv') select 1",
    "explain analyze delete from store.run",
    "explain analyze copy (select 1) to '{folder}/out.csv'",
    "explain analyze create table t as select 1",
    "explain analyze with gone as (delete from store.run returning *) select * from gone",
    "explain (analyze, format json) delete from store.run",
    "/* select */ explain /* x */ analyze insert into store.catalogue values ('x')",
    "-- select\nexplain analyze update store.run set model = 'x'",
    "select 1; drop table store.run",
    "select 1; copy (select 1) to '{folder}/out.csv'",
    "begin; delete from store.run; commit",
    "begin",
    "prepare p as delete from store.run",
    "execute p",
    "vacuum",
    "analyze",
    "checkpoint",
    "force checkpoint",
    "call force_checkpoint()",
    "select * from force_checkpoint()",
    "import database '{folder}'",
    # other files
    "attach '{folder}/other.duckdb' as other",
    "attach '{folder}/new.duckdb'",
    "attach ':memory:' as scratch",
    "detach w",
    "use memory",
    "from '{folder}/secret.parquet'",
    "select * from '{folder}/other.duckdb'",
    "from read_parquet('{folder}/secret.parquet')",
    "select * from parquet_metadata('{folder}/secret.parquet')",
    "from parquet_schema('{folder}/secret.parquet')",
    "from read_csv('{folder}/secret.txt')",
    "from read_csv_auto('{folder}/secret.txt')",
    "from sniff_csv('{folder}/secret.txt')",
    "from read_text('{folder}/secret.txt')",
    "from read_blob('/etc/passwd')",
    "from read_json('{folder}/secret.txt')",
    "from read_ndjson_objects('{folder}/secret.txt')",
    "from glob('{folder}/*')",
    "from read_text('https://example.org')",
    "from 's3://bucket/file.parquet'",
    "from query('from read_text(''{folder}/secret.txt'')')",
    "from query_table('{folder}/secret.parquet')",
    "from query_table(['{folder}/secret.parquet'])",
    "from query('copy (select 1) to ''{folder}/out.csv''')",
    "select * from json_execute_serialized_sql(json_serialize_sql('from read_text(''{folder}/secret.txt'')'))",
    "describe '{folder}/secret.parquet'",
    "describe from read_parquet('{folder}/secret.parquet')",
    "summarize '{folder}/secret.parquet'",
    "summarize from read_csv('{folder}/secret.txt')",
    "explain analyze from read_text('{folder}/secret.txt')",
    "select (select content from read_text('{folder}/secret.txt'))",
    "pivot (from read_csv('{folder}/secret.txt')) on x",
    "pivot '{folder}/secret.parquet' on x using count(*)",
    "pivot (from '/etc/passwd') on column0 using count(*)",
    "copy (pivot dim_run on status using count(*)) to '{folder}/out.csv'",
    "create temp table t as pivot dim_run on status using count(*)",
    "insert into store.catalogue pivot dim_run on status using count(*)",
    "prepare p as pivot dim_run on status using count(*)",
    "with gone as (delete from store.run returning *) pivot gone on model using count(*)",
    "explain analyze copy (pivot dim_run on status using count(*)) to '{folder}/out.csv'",
    "select 1; pivot dim_run on status using count(*)",
    "from which_secret('s3://x', 's3')",
    "select getenv('HOME')",
    # extensions and settings
    "install httpfs",
    "install spatial from community",
    "force install httpfs from 'http://example.org'",
    "load httpfs",
    "load '{folder}/evil.duckdb_extension'",
    "update extensions",
    "set enable_external_access = true",
    "set lock_configuration = false",
    "set global threads = 1",
    "set memory_limit = '1TB'",
    "reset max_execution_time",
    "pragma threads = 1",
    "pragma enable_profiling",
    "pragma database_list",
    "call enable_logging()",
    "from enable_logging()",
    "from enable_profiling()",
    "create secret s (type s3, key_id 'x', secret 'y')",
    "create persistent secret s (type s3, key_id 'x', secret 'y')",
    "set variable x = 1",
    "select * from python_variable",
    # no query at all
    "",
    ";",
    "-- nothing",
    "select",
    "select * from no_such_table",
    "select no_such_column from dim_run",
    "select 1 +",
    "select $name",
    "select '{folder}/secret.txt'::blob::no_such_type",
    "select * from dim_run where run_id = (select run_id from dim_run, range(2))",
    "select 1::integer + 'x'",
    "\x00",
    "🦆",
]


@pytest.mark.quick_cases(28)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_sql_is_refused(path: Path, text: str) -> None:
    folder = path.parent
    before = hashes(folder)
    with pytest.raises(UserError) as refusal:
        sandbox.answer(path, text.format(folder=folder))
    message = str(refusal.value)
    assert "\n" not in message
    assert SECRET not in message
    assert hashes(folder) == before


def test_there_are_many_hostile_attempts() -> None:
    assert len(set(HOSTILE)) >= 100


@pytest.mark.parametrize("text", ["copy dim_run to '{folder}/out.csv'", "delete from store.catalogue"])
def test_an_absent_warehouse_cannot_be_written_either(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError):
        sandbox.answer(tmp_path / "absent.duckdb", text.format(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "select count(*) from fct_effect",
        "SELECT COUNT(*) FROM fct_effect;",
        "from dim_run",
        "with r as (select run_id from dim_run) select * from r",
        "values (1), (2)",
        "(select 1) union all (select 2)",
        "table dim_run",
        "describe fct_effect",
        "show tables",
        "show all tables",
        "summarize dim_run",
        "explain select 1",
        "EXPLAIN ANALYZE select count(*) from dim_run",
        "/* a remark */ select 1 -- and another",
        "select * from influence_at('run', 15)",
        "from query('select 1 as x')",
        "from query_table(['dim_run', 'dim_run'])",
        "select 7 / 2, 7 // 2, 'a/b.csv'",
        'with "a/b.csv" as (select 1) from "a/b.csv"',
        "explain analyze select sum(delta_loss) from fct_effect where run_id = 'run' and neuron = 3",
        "select * from duckdb_columns()",
        "pivot (select 1 as a, 'x' as b) on b in ('x') using sum(a)",
        "pivot neuron_influence on token_group using max(influence) group by preset",
        "from (pivot dim_run on status using count(*) group by model)",
        "with p as (pivot dim_run on status using count(*) group by model) select * from p",
        "-- a remark\npivot_wider dim_run on status using first(neurons) group by model",
        "explain pivot dim_run on status using count(*) group by model",
        "unpivot (select 1 as a, 2 as b) on a, b into name n value v",
        "pivot (select run_id, interval 1 day as i, 'x' as b from dim_run) on b using first(i)",
        "with recursive r as (select 1 as i union all select i + 1 from r where i < 5) select * from r",
        "select 'naïve → 日本語', chr(0), chr(27)",
    ],
)
def test_queries_are_answered(path: Path, text: str) -> None:
    assert sandbox.answer(path, text).num_rows > 0


def test_the_result_is_a_polars_frame(path: Path) -> None:
    frame = warehouse.run_sql(path, "select run_id, count(*) as pairs from fct_effect group by 1")
    assert frame.equals(pl.DataFrame({"run_id": ["run"], "pairs": [64 * 8]}))
    assert sandbox.answer(path, "from dim_run where false").column_names[:2] == ["run_id", "run_key"]


def test_refusals_come_back_from_the_process(path: Path) -> None:
    with pytest.raises(UserError, match=r"The SQL does not parse: .*syntax error"):
        warehouse.run_sql(path, "selec 1")
    with pytest.raises(UserError, match="no_such_table does not exist"):
        warehouse.run_sql(path, "from no_such_table")


PROPOSED = {
    "from dim_runs": "Table with name dim_runs does not exist! Did you mean dim_run?",
    "select runid from dim_run": "found in FROM clause! Candidate bindings: run_id, run_key",
    "from influence_at('run')": "Candidate macros: influence_at(run, percentile, occurrences := false,",
    "from influence_ta('run', 15)": "Did you mean influence_at?",
    "from run_warnings": "Did you mean run_warning?",
    "from effect": "Did you mean agg_effect?",  # the engine proposes a table that is not public
    "from xyzzy": "`rare-tokens tables` lists the relations.",
    "select date_trunc(1, 2, 3)": "Candidate functions: date_trunc(",
    "from influence_at('nonsense', 15)": "There is no run 'nonsense'. The warehouse has run.",
    "from neuron_target('r', 8)": "run has no neuron 8. Its neurons are 0 to 7.",
}


@pytest.mark.parametrize("text", PROPOSED)
def test_what_the_engine_proposes_is_passed_on(path: Path, text: str) -> None:
    with pytest.raises(UserError) as refusal:
        sandbox.answer(path, text)
    assert PROPOSED[text] in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "store." not in str(refusal.value)


def test_columns_that_polars_has_no_type_or_name_for(path: Path) -> None:
    frame = warehouse.run_sql(
        path,
        "select interval 3 day as i, [interval 1 day] as l, union_value(a := 1) as u, '101'::bit as b, 1::hugeint as h,"
        " 1::varint as v, map {'k': 1} as m, 'x'::variant as w",
    )
    assert frame.select("i", "u", "b", "v").row(0) == ("3 days", "1", "101", "1")
    assert sandbox.answer(path, "select 1 as a, 2 as a, 3 as a_1").to_pylist() == [{"a": 1, "a_1": 2, "a_1_1": 3}]
    for odd in ("select 1 as a, interval 1 day as a", "select date '290000-01-01'", "select timestamp 'infinity'"):
        with pytest.raises(UserError):
            sandbox.answer(path, odd)


@pytest.mark.parametrize(
    "text",
    [
        "select count(*) from range(100000000) a, range(100000000) b",
        "with recursive r as (select 1 as i union all select i + 1 from r) select count(*) from r",
        pytest.param(
            "select sum(hash(a.range + b.range)) from range(1000000) a, range(1000000) b", marks=pytest.mark.slow
        ),
    ],
)
def test_a_long_query_is_stopped(path: Path, text: str) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=r"more than 0\.3 s"):
        warehouse.run_sql(path, text, timeout=0.3)
    assert time.monotonic() - start < 15  # the start of the process on a busy machine included


def test_a_call_that_cannot_be_stopped_is_killed_with_its_process(path: Path) -> None:
    """One function call on one row: the engine's own limit is not looked at until it is over."""
    start = time.monotonic()
    with pytest.raises(UserError, match=r"more than 0\.3 s"):
        warehouse.run_sql(path, "select length(replace(repeat('a', 1000000000), 'a', 'bcd'))", timeout=0.3)
    assert time.monotonic() - start < 15


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the memory of a process")
def test_a_query_that_wants_all_memory_is_refused(path: Path) -> None:
    with pytest.raises(UserError, match=r"memory|stopped"):
        warehouse.run_sql(path, "select len(range(4000000000))", timeout=5)  # 32 GB


def test_a_timeout_must_be_positive(path: Path) -> None:
    with pytest.raises(UserError, match="above 0"):
        warehouse.run_sql(path, "select 1", timeout=0)


def test_a_locked_warehouse_is_said_to_be_locked(path: Path) -> None:
    with duckdb.connect(path), pytest.raises(LockedError, match=str(os.getpid())):
        warehouse.run_sql(path, "select 1")


def test_python_variables_are_out_of_reach(path: Path) -> None:
    python_variable = pl.DataFrame({"x": [1]})
    assert len(python_variable) == 1
    with warehouse.open(path) as opened, pytest.raises(UserError, match="python_variable"):
        opened.sql("from python_variable")


def test_the_python_door_refuses_too(path: Path) -> None:
    before = hashes(path.parent)
    with warehouse.open(path) as opened:
        for text in HOSTILE:
            with pytest.raises(UserError):
                pytest.fail(f"answered: {text} {opened.sql(text.format(folder=path.parent))}")
        assert opened.fct_effect(neuron=3).height == 64
    assert hashes(path.parent) == before
