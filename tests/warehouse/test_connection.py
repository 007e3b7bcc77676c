"""Opening a warehouse: what is not a warehouse, what is locked, what is too new or too old."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import LockedError, UserError
from rare_tokens.warehouse import connection
from rare_tokens.warehouse.publish import marts
from rare_tokens.warehouse.schema import migrations, relations
from studies.synthetic.runs import make_parts
from tests.conftest import REPOSITORY
from tests.support.warehouses import empty, stored


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.duckdb"


def read(path: Path) -> None:
    with connection.reading(path) as con:
        con.execute("select count(*) from fct_effect").fetchall()


def write(path: Path) -> None:
    warehouse.require_writable(path, line=power_law_line)


BOTH = pytest.mark.parametrize("use", [read, write])


@contextmanager
def held_by_another_process(path: Path, read_only: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    code = (
        "import sys, duckdb; con = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == 'True');"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path), str(read_only)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        try:
            yield other
        finally:
            other.stdin.close()


@BOTH
def test_a_folder_is_no_warehouse(tmp_path: Path, use: Callable[[Path], None]) -> None:
    with pytest.raises(UserError, match="is a folder"):
        use(tmp_path)


@BOTH
@pytest.mark.parametrize("content", [b"", b"hello " * 2000, bytes(20_000)])
def test_another_file_is_no_warehouse(path: Path, use: Callable[[Path], None], content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a DuckDB file"):
        use(path)
    assert path.read_bytes() == content


@BOTH
def test_a_database_of_someone_else_is_left_alone(path: Path, use: Callable[[Path], None]) -> None:
    with duckdb.connect(path) as con:
        con.execute("create table theirs as select 1 as x")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"not a (rare-tokens )?warehouse"):
        use(path)
    assert path.read_bytes() == before


def test_a_truncated_warehouse_is_named(path: Path) -> None:
    stored(path, positions=2048, neurons=128)
    data = path.read_bytes()
    path.write_bytes(data[:1_000_000])
    with pytest.raises(UserError, match=r"w\.duckdb"), warehouse.open(path) as opened:
        opened.sql("select sum(delta_loss) from fct_effect")


def test_a_warehouse_damaged_in_its_middle_is_named(path: Path) -> None:
    stored(path, positions=2048, neurons=128)
    data = bytearray(path.read_bytes())
    for start in range(20_000, len(data), 50_000):
        data[start : start + 50] = b"\xaa" * 50
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"), warehouse.open(path) as opened:
        opened.sql("select sum(delta_loss), sum(activation) from fct_effect")


def test_reading_never_makes_a_warehouse(path: Path) -> None:
    with warehouse.open(path) as opened:
        assert len(opened.fct_effect()) == 0
        assert opened.sql("select count(*) as n from dim_run")["n"].to_list() == [0]
    assert warehouse.runs(path).is_empty()
    assert warehouse.run_sql(path, "select count(*) as n from fct_effect")["n"].to_list() == [0]
    assert list(path.parent.iterdir()) == []


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        write(tmp_path / "nowhere" / "w.duckdb")
    read(tmp_path / "nowhere" / "w.duckdb")  # an absent warehouse is an empty one
    assert list(tmp_path.iterdir()) == []


def test_a_question_mark_in_the_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="question mark"):
        write(tmp_path / "what?.duckdb")


@BOTH
def test_a_newer_schema_is_refused(path: Path, use: Callable[[Path], None]) -> None:
    empty(path)
    with duckdb.connect(path) as con:
        con.execute("insert into store.migration values (999, 'from_the_future', now()::timestamp)")
    with pytest.raises(UserError, match="schema 999"):
        use(path)


def test_another_version_s_views_are_refused_until_migrated(path: Path) -> None:
    empty(path)
    with duckdb.connect(path) as con:
        con.execute("update store.catalogue set digest = 'another version'")
        con.execute("create view gone as select 1 as x")
        con.execute("drop view dim_run")
    with pytest.raises(UserError, match="rare-tokens migrate"):
        read(path)
    assert warehouse.migrate(path, line=power_law_line) == ["views"]
    assert warehouse.migrate(path, line=power_law_line) == []
    with connection.reading(path) as con:
        names = {name for (name,) in con.execute("select view_name from duckdb_views() where not internal").fetchall()}
    assert "dim_run" in names
    assert "gone" not in names


def test_writing_brings_a_warehouse_up_to_date(path: Path) -> None:
    empty(path)
    with duckdb.connect(path) as con:
        con.execute("update store.catalogue set digest = 'another version'")
    write(path)
    read(path)


def test_migrations_are_numbered_without_gaps_and_recorded(path: Path) -> None:
    numbers = [number for number, _, _ in migrations.known()]
    assert numbers == list(range(1, len(numbers) + 1))
    empty(path)
    with connection.reading(path) as con:
        recorded = con.execute("select number, name from store.migration order by 1").fetchall()
    assert recorded == [(number, name) for number, name, _ in migrations.known()]


def test_a_warehouse_with_data_takes_a_new_migration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = path.with_name("parts")
    make_parts(folder, positions=64, neurons=4, run_id="run")
    warehouse.publish(path, folder, line=power_law_line)
    number = migrations.known()[-1][0] + 1
    more = (
        number,
        "more",
        "alter table store.run add column extra integer; create table store.added (run_key usmallint)",
    )
    known = [*migrations.known(), more]
    monkeypatch.setattr(migrations, "known", lambda: known)
    with pytest.raises(UserError, match="rare-tokens migrate"):
        read(path)
    assert warehouse.migrate(path, line=power_law_line) == [f"{number:03d}_more", "views"]
    with warehouse.open(path) as opened:
        assert len(opened.fct_effect()) == 256
        assert opened.sql("select extra from store.run")["extra"].to_list() == [None]


def test_a_failing_migration_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty(path)
    broken = (
        migrations.known()[-1][0] + 1,
        "broken",
        "create table store.added (x integer); select no_such_function()",
    )
    known = [*migrations.known(), broken]
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "known", lambda: known)
        with pytest.raises(duckdb.CatalogException):
            warehouse.migrate(path, line=power_law_line)
    read(path)
    with connection.reading(path) as con:
        assert con.execute("select * from duckdb_tables() where table_name = 'added'").fetchall() == []


@BOTH
def test_a_writer_locks_others_out_and_is_named(path: Path, use: Callable[[Path], None]) -> None:
    empty(path)
    with held_by_another_process(path) as other, pytest.raises(LockedError, match=f"process {other.pid}"):
        use(path)


def test_readers_share_and_keep_writers_out(path: Path) -> None:
    empty(path)
    with held_by_another_process(path, read_only=True) as other:
        read(path)
        with pytest.raises(LockedError, match=f"process {other.pid}"):
            write(path)


def test_waiting_for_a_lock(path: Path) -> None:
    empty(path)
    with held_by_another_process(path) as other:
        start = time.monotonic()
        with pytest.raises(LockedError):
            warehouse.runs(path, wait=0.5)
        assert 0.4 < time.monotonic() - start < 5
        threading.Timer(0.5, other.kill).start()
        assert warehouse.runs(path, wait=30).is_empty()


def test_one_process_cannot_write_to_what_it_reads(path: Path) -> None:
    empty(path)
    with warehouse.open(path), pytest.raises(LockedError, match="This very process"):
        write(path)
    write(path)


def test_a_read_only_file_is_refused_to_writers(path: Path) -> None:
    empty(path)
    error = duckdb.IOException(f'IO Error: Cannot open file "{path}": Permission denied')
    with pytest.raises(UserError, match="permission denied"), connection.engine_errors(path):
        raise error


def test_a_full_disk_is_the_user_s_to_solve(path: Path) -> None:
    error = duckdb.IOException('IO Error: Could not write file "w.duckdb": No space left on device')
    with pytest.raises(UserError, match="disk is full"), connection.engine_errors(path):
        raise error


def test_other_errors_of_the_engine_pass(path: Path) -> None:
    with pytest.raises(duckdb.BinderException), connection.reading(path) as con:
        con.execute("select no_such_column from fct_effect")


def test_readers_reach_nothing_but_the_file(path: Path) -> None:
    other = path.with_name("other.csv")
    other.write_text("x\n1\n")
    empty(path)
    with connection.reading(path) as con:
        for attempt in (f"from '{other}'", f"attach '{path.with_name('o.duckdb')}'", "set threads = 1"):
            with pytest.raises(duckdb.Error, match=r"disabled|locked"):
                con.execute(attempt)


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_every_relation_and_column_is_described(path: Path) -> None:
    with connection.reading(path) as con:
        columns = con.execute(
            "select table_name, list(column_name order by column_index), list(comment order by column_index)"
            " from duckdb_columns() where schema_name = 'main' and not internal group by 1"
        ).fetchall()
        views = con.execute(
            "select view_name, comment from duckdb_views() where schema_name = 'main' and not internal"
        ).fetchall()
        macros = con.execute(
            "select function_name, comment from duckdb_functions() where not internal and schema_name = 'main'"
        ).fetchall()
    documented = relations.relations() | relations.audit_relations()
    of_views = {name: relation for name, relation in documented.items() if not relation.is_macro}
    assert {name for name, *_ in columns} == of_views.keys()
    for name, names, comments in columns:
        assert names == list(of_views[name].columns), f"{name}: head comment and view differ"
        assert comments == list(of_views[name].columns.values())
        assert all(comments)
    assert all(comment and "One row per" in comment for _, comment in views)
    assert {name for name, _ in macros} == documented.keys() - of_views.keys()
    assert all(comment and comment.endswith(".") for _, comment in macros)


ARGUMENTS = {  # of the table macros that take others than a run and a percentile
    "power_law_at": ("'run'", "1", "15"),
    "group_activation": ("'run'", "'es'"),
    "attribution_sum": ("'run'",),
    "attribution_error": ("'run'",),
    "group_test_across": ("['run']",),
}


def test_table_macros_give_the_columns_they_describe(path: Path) -> None:
    empty(path)
    with connection.reading(path) as con:
        for relation in relations.relations().values():
            if relation.is_macro and relation.columns:
                given = ", ".join(ARGUMENTS.get(relation.name, ("'run'", "15")))
                assert con.sql(f"from {relation.name}({given})").columns == list(relation.columns)


def test_every_computed_relation_is_filled_by_publishing() -> None:
    computed = {name for name, relation in relations.relations().items() if relation.publish}
    assert computed == {*marts.of_run(), *marts.of_attention(), "token_frequency"}
    assert marts.of_attention() == ("attention_impact",)


def test_the_sql_is_written_as_agreed() -> None:
    files = sorted((REPOSITORY / "sql").rglob("*.sql"))
    assert len(files) > 20
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{file.name}:{number}"
            assert len(line) <= 100, where
            assert line == line.rstrip(), where
            code = re.sub(r"'[^']*'", "", line.split("--")[0])
            assert not re.search(r"\b[A-Z]{2,}\b", code), where


def test_the_documentation_of_the_schema() -> None:
    text = relations.markdown()
    for relation in relations.relations().values():
        assert f"### `{relation.name}`" in text
        assert all(f"| `{column}` |" in text for column in relation.columns)
