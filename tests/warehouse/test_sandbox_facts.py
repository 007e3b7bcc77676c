"""Facts in Parquet, which the engine must be able to read, are reached through relations and as files never."""

from pathlib import Path

import duckdb
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import UserError
from rare_tokens.warehouse import sandbox
from rare_tokens.warehouse.connection import open_read_only
from rare_tokens.warehouse.store import parquet_facts
from studies.synthetic.runs import make_parts
from tests.support.warehouses import hashes

SECRET = "the content of a file beside the warehouse"

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


@pytest.fixture
def file(backed: Path) -> Path:
    (file,) = parquet_facts.folder(backed).glob("run_id=run/run_key=*/block=*/*.parquet")
    return file


@pytest.mark.quick_cases(20)
@pytest.mark.parametrize("text", ON_FACTS)
def test_facts_in_parquet_are_read_through_relations_only(backed: Path, file: Path, text: str) -> None:
    before = hashes(backed.parent)
    with pytest.raises(UserError) as refusal:
        sandbox.answer(backed, text.format(folder=backed.parent, facts=parquet_facts.folder(backed), file=file))
    assert SECRET not in str(refusal.value)
    assert hashes(backed.parent) == before


def test_the_python_door_reads_them_through_relations_only_too(backed: Path, file: Path) -> None:
    before = hashes(backed.parent)
    with warehouse.open(backed) as opened:
        for text in ON_FACTS:
            asked = text.format(folder=backed.parent, facts=parquet_facts.folder(backed), file=file)
            with pytest.raises(UserError) as refusal:
                pytest.fail(f"answered: {text} {opened.sql(asked)}")
            assert SECRET not in str(refusal.value)
            assert opened.fct_effect(neuron=3).height == 64
    assert hashes(backed.parent) == before


@pytest.mark.parametrize("reader", ["read_text", "read_blob", "read_parquet", "read_csv"])
def test_the_engine_itself_reads_no_file_but_the_facts(backed: Path, file: Path, reader: str) -> None:
    """The second wall, without the first."""
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


def test_there_are_many_attempts() -> None:
    assert len(set(ON_FACTS)) >= 70
