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
from rare_tokens.warehouse.connection import open_read_only
from rare_tokens.warehouse.store import parquet_facts
from studies.synthetic.runs import make_parts

SECRET = "the content of a file beside the warehouse"


@pytest.fixture(scope="module", params=parquet_facts.STORES)
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


def hashes(folder: Path) -> dict[Path, str]:
    return {file: parquet_facts.sha256(file) for file in folder.rglob("*") if file.is_file()}


# Attempts on what the engine must be able to read: {file} is a Parquet file of the facts, {facts} their folder.
ON_FACTS = [
    # writing there
    "copy (select 1 as x) to '{file}' (format parquet)",
    "copy (select 1 as x) to '{file}'",
    "copy dim_run to '{facts}/new.parquet'",
    "copy dim_run to '{facts}' (format parquet, partition_by (run_id), overwrite_or_ignore)",
    "copy dim_run to '{facts}/run_id=run/run_key=1/block=00000/new.parquet'",
    "copy store.parquet_effect to '{folder}/out.parquet'",
    "copy (from fct_effect) to '{folder}/out.csv'",
    "copy store.run from '{file}'",
    "export database '{facts}/out'",
    "explain analyze copy (select 1) to '{file}'",
    "with out as (copy (select 1) to '{file}') select 1",
    "from query('copy (select 1) to ''{file}''')",
    "insert into store.fact_file select * from store.fact_file",
    "update store.fact_file set path = '../secret.parquet'",
    "delete from store.fact_file",
    "create or replace view store.parquet_effect as select 1",
    "insert into store.parquet_effect select * from store.parquet_effect",
    "delete from fct_effect",
    # reading them as files
    "from '{file}'",
    'from "{file}"',
    "from read_parquet('{file}')",
    "from READ_PARQUET('{file}')",
    "from system.main.read_parquet('{file}')",
    "from parquet_scan(['{file}'])",
    "from read_text('{file}')",
    "from read_blob('{file}')",
    "from read_csv('{file}')",
    "from read_json('{file}')",
    "from sniff_csv('{file}')",
    "from glob('{facts}/**')",
    "from glob('{file}')",
    "from parquet_metadata('{file}')",
    "from parquet_schema('{file}')",
    "from parquet_file_metadata('{file}')",
    "from parquet_bloom_probe('{file}', 'neuron', 1)",
    "describe '{file}'",
    "summarize '{file}'",
    "summarize from read_parquet('{file}')",
    "explain select * from read_blob('{file}')",
    "explain analyze from '{file}'",
    "pivot (from read_parquet('{file}')) on neuron in (1) using count(*)",
    "pivot '{file}' on neuron in (1) using count(*)",
    "unpivot '{file}' on neuron",
    "select (select max(neuron) from '{file}')",
    "with x as (from read_blob('{file}')) from x",
    "with recursive x as (select 1 as a union all select neuron from '{file}') from x",
    "select * from dim_run, lateral (from read_text('{file}'))",
    "select * from dim_run where exists (from '{file}')",
    "from dim_run union all by name from '{file}'",
    "from query('from read_blob(''{file}'')')",
    "from query('from ' || '''{file}''')",
    "from query('from query(''from ''''{file}'''''')')",
    "from query_table('{file}')",
    "from query_table(['dim_run', '{file}'])",
    "select * from json_execute_serialized_sql(json_serialize_sql('from read_blob(''{file}'')'))",
    # other files by way of them
    "from read_parquet('{facts}/../secret.parquet')",
    "from read_parquet('{file}/../../../../../secret.parquet')",
    "from read_parquet(getvariable('rare_tokens_facts') || '/../secret.parquet')",
    "from read_parquet('{facts}/link.parquet')",
    "from read_parquet('{facts}/stray/run_key=9/block=00000/x.parquet')",
    "from '{facts}/**/*.parquet'",
    "from read_text('{facts}/../secret.txt')",
    "from read_parquet(['{file}', '{folder}/secret.parquet'])",
    "attach '{facts}/other.duckdb' as other",
    "attach '{file}' as other",
    # the settings that keep them apart
    "set variable rare_tokens_facts = '{folder}'",
    "set variable rare_tokens_template = '{folder}/secret.parquet'",
    "reset variable rare_tokens_facts",
    "set allowed_paths = ['{folder}/secret.parquet']",
    "set allowed_directories = ['/']",
    "set file_search_path = '{folder}'",
    "set enable_external_access = true",
    "reset enable_external_access",
    "pragma enable_object_cache",
    "install parquet",
    "load parquet",
]


@pytest.fixture(scope="module")
def backed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse whose run is in Parquet, and beside its files a link to, and a copy of, another file."""
    path = tmp_path_factory.mktemp("backed") / "w.duckdb"
    make_parts(path.with_name("parts"), positions=64, neurons=8, window=32, run_id="run")
    warehouse.publish(path, path.with_name("parts"), line=power_law_line, store=parquet_facts.PARQUET)
    path.with_name("secret.txt").write_text(SECRET)
    pl.DataFrame({"x": [SECRET]}).write_parquet(path.with_name("secret.parquet"))
    (parquet_facts.folder(path) / "link.parquet").symlink_to(path.with_name("secret.parquet"))
    stray = parquet_facts.folder(path) / "stray" / "run_key=9" / "block=00000" / "x.parquet"
    stray.parent.mkdir(parents=True)
    pl.DataFrame({"x": [SECRET]}).write_parquet(stray)
    return path


@pytest.mark.parametrize("text", ON_FACTS)
def test_facts_in_parquet_are_read_through_relations_only(backed: Path, text: str) -> None:
    (file,) = parquet_facts.folder(backed).glob("run_id=run/run_key=*/block=*/*.parquet")
    before = hashes(backed.parent)
    text = text.format(folder=backed.parent, facts=parquet_facts.folder(backed), file=file)
    with pytest.raises(UserError) as refusal:
        sandbox.answer(backed, text)
    assert SECRET not in str(refusal.value)
    with warehouse.open(backed) as opened:
        with pytest.raises(UserError) as refusal:
            opened.sql(text)
        assert opened.fct_effect(neuron=3).height == 64
    assert SECRET not in str(refusal.value)
    assert hashes(backed.parent) == before


@pytest.mark.parametrize("reader", ["read_text", "read_blob", "read_parquet", "read_csv"])
def test_the_engine_itself_reads_no_file_but_the_facts(backed: Path, reader: str) -> None:
    """The second wall, without the first."""
    (file,) = parquet_facts.folder(backed).glob("run_id=run/run_key=*/block=*/*.parquet")
    others = [
        backed.with_name("secret.parquet"),
        backed.with_name("secret.txt"),
        parquet_facts.folder(backed) / "link.parquet",
    ]
    others += [
        *parquet_facts.folder(backed).glob("stray/*/*/*"),
        file.parent / ".." / "secret.parquet",
        file.parent / "new.csv",
    ]
    with open_read_only(backed) as con:
        assert con.execute(f"select count(*) from read_blob('{file}')").fetchall() == [(1,)]
        for other in others:
            with pytest.raises(duckdb.PermissionException):
                con.execute(f"from {reader}('{other}')")
            with pytest.raises(duckdb.PermissionException):
                con.execute(f"copy (select 1 as x) to '{other}'")
        with pytest.raises(duckdb.Error, match=r"locked"):
            con.execute("set allowed_paths = ['/']")


def test_there_are_many_hostile_attempts() -> None:
    assert len(set(HOSTILE)) >= 100
    assert len(set(ON_FACTS)) >= 70


@pytest.mark.parametrize("text", [text for text in HOSTILE if "store.catalogue" in text or text.startswith("copy")])
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
        "with recursive r as (select 1 as i union all select i + 1 from r where i < 5) select * from r",
        "select 'naïve → 日本語', chr(0), chr(27)",
    ],
)
def test_queries_are_answered(path: Path, text: str) -> None:
    assert sandbox.answer(path, text).num_rows > 0


def test_the_result_is_a_polars_frame(path: Path) -> None:
    frame = warehouse.run_sql(path, "select run_id, count(*) as pairs from fct_effect group by 1")
    assert frame.equals(pl.DataFrame({"run_id": ["run"], "pairs": [64 * 8]}))
    assert warehouse.run_sql(path, "from dim_run where false").columns[:2] == ["run_id", "run_key"]


def test_refusals_come_back_from_the_process(path: Path) -> None:
    with pytest.raises(UserError, match=r"The SQL does not parse: .*syntax error"):
        warehouse.run_sql(path, "selec 1")
    with pytest.raises(UserError, match="no_such_table does not exist"):
        warehouse.run_sql(path, "from no_such_table")


def test_columns_that_polars_has_no_type_or_name_for(path: Path) -> None:
    frame = warehouse.run_sql(
        path,
        "select interval 3 day as i, [interval 1 day] as l, union_value(a := 1) as u, '101'::bit as b, 1::hugeint as h,"
        " 1::varint as v, map {'k': 1} as m, 'x'::variant as w",
    )
    assert frame.select("i", "u", "b", "v").row(0) == ("3 days", "1", "101", "1")
    assert warehouse.run_sql(path, "select 1 as a, 2 as a, 3 as a_1").rows() == [(1, 2, 3)]
    for odd in ("select 1 as a, interval 1 day as a", "select date '290000-01-01'", "select timestamp 'infinity'"):
        with pytest.raises(UserError):
            warehouse.run_sql(path, odd)


@pytest.mark.parametrize(
    "text",
    [
        "select count(*) from range(100000000) a, range(100000000) b",
        "with recursive r as (select 1 as i union all select i + 1 from r) select count(*) from r",
        "select sum(hash(a.range + b.range)) from range(1000000) a, range(1000000) b",
    ],
)
def test_a_long_query_is_stopped(path: Path, text: str) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match="more than 1 s"):
        warehouse.run_sql(path, text, timeout=1)
    assert time.monotonic() - start < 15  # the start of the process on a busy machine included


def test_a_call_that_cannot_be_stopped_is_killed_with_its_process(path: Path) -> None:
    """One function call on one row: the engine's own limit is not looked at until it is over."""
    start = time.monotonic()
    with pytest.raises(UserError, match="more than 1 s"):
        warehouse.run_sql(path, "select length(replace(repeat('a', 1000000000), 'a', 'bcd'))", timeout=1)
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


@pytest.mark.parametrize("text", [text for text in HOSTILE if "{folder}" in text][:12])
def test_the_python_door_refuses_too(path: Path, text: str) -> None:
    with warehouse.open(path) as opened, pytest.raises(UserError):
        opened.sql(text.format(folder=path.parent))
