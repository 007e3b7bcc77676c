"""In which order marts are computed, and when they are computed anew."""

from pathlib import Path

import duckdb
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import QualityError
from rare_tokens.warehouse.publish import marts
from rare_tokens.warehouse.schema import migrations, relations
from rare_tokens.warehouse.schema.relations import Relation
from studies.synthetic.runs import make_parts
from tests.support.warehouses import SMALL, assert_same, contents, empty, parts_of, published, stored


def test_each_mart_comes_after_those_that_it_reads() -> None:
    order = marts.of_run()
    needs = {
        "neuron_influence": {"position_group"},
        "power_law_fit": {"neuron_influence"},
        "neuron_deviation": {"neuron_influence", "power_law_fit"},
        "neuron_mediation": {"neuron_influence", "position_group"},
    }
    assert len(set(order)) == len(order)
    for mart, before in needs.items():
        assert before <= set(order[: order.index(mart)]), mart


def made_up(name: str, reads: str) -> Relation:
    text = (
        f"insert into store.{name} by name with one as (select 1), {name}_x as (select 2) select $run_key from {reads}"
    )
    return Relation(
        name=name, is_macro=False, summary="", grain="", folder="", example="", columns={}, create=(), publish=(text,)
    )


def test_the_order_follows_from_what_is_read_through_views_and_common_tables_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = "create or replace view store.seen as with one as (from store.last) select * from one join two using (x)"
    known = relations._statements() | {"store.seen": view, "two": "create or replace view two as from store.middle"}
    monkeypatch.setattr(relations, "_statements", lambda: known)
    given = {
        "first": made_up("first", "one -- store.last, store.middle"),
        "seeing": made_up("seeing", "one join store.seen using (x)"),
        "last": made_up("last", "store.middle"),
        "middle": made_up("middle", "store.first"),
    }
    assert marts.in_order(given) == ["first", "middle", "last", "seeing"]
    assert relations.tables_read(given["seeing"].publish) == {"store.last", "store.middle"}


def test_a_circle_is_named() -> None:
    given = {"a": made_up("a", "store.b"), "b": made_up("b", "store.c"), "c": made_up("c", "store.a")}
    with pytest.raises(ValueError, match=r"sql/.*a, .*b"):
        marts.in_order(given)


def test_views_and_macros_are_made_after_those_that_they_name() -> None:
    made: set[str] = set()
    names = [relations._DEFINED.match(statement)[1] for statement in relations.definitions()]  # type: ignore[index]
    for name, statement in zip(names, relations.definitions(), strict=True):
        assert (relations.named(statement) & set(names)) <= made, name
        made.add(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    stored(tmp_path / "w.duckdb", "one", seed=1, effects=("loss", "kl"), neurons=256)
    published(tmp_path / "w.duckdb", "two", seed=2, neurons=256)
    return tmp_path / "w.duckdb"


def test_a_migration_that_removes_a_mart_s_rows_has_it_computed_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(path)
    number = migrations.known()[-1][0] + 1
    removing = "alter table store.power_law_fit add column more double; delete from store.power_law_fit"
    known = [*migrations.known(), (number, "another_rule", removing)]
    monkeypatch.setattr(migrations, "known", lambda: known)
    fitted = []

    def line(curves: pl.DataFrame) -> pl.DataFrame:
        fitted.append(curves)
        return power_law_line(curves).with_columns(kappa=pl.col("kappa") + 1, more=pl.lit(0.5))

    assert warehouse.migrate(path, line=line) == [f"{number:03d}_another_rule", "views"]
    after = contents(path)
    assert [curves.columns for curves in fitted] == 2 * [
        ["preset", "token_group", "neuron", "influence", "abs_mean_delta_loss", "role"]
    ]
    assert after["power_law_fit"]["kappa"].to_list() == [
        None if kappa is None else kappa + 1 for kappa in before["power_law_fit"]["kappa"]
    ]
    with duckdb.connect(path, read_only=True) as con:
        assert con.execute("select count(more) from store.power_law_fit").fetchall() == [(72,)]
    moved = after["neuron_deviation"]["deviation"] - before["neuron_deviation"]["deviation"]
    assert moved.abs().max() > 1, "what reads the fit is computed anew as well"
    same = set(before) - {"power_law_fit", "neuron_deviation", "neuron_profile"}
    assert_same({name: before[name] for name in same}, {name: after[name] for name in same})


def test_every_mart_computed_anew_is_the_same(path: Path) -> None:
    before = contents(path)
    with duckdb.connect(path) as con:
        for mart in marts.of_run():
            for table in marts._tables(relations.relations()[mart]):
                con.execute(f"delete from {table}")
        con.execute("update store.catalogue set digest = 'another version'")
    assert warehouse.migrate(path, line=power_law_line) == ["views"]
    assert_same(before, contents(path))


def test_a_line_that_is_not_that_of_its_curve_is_refused(tmp_path: Path) -> None:
    def line(curves: pl.DataFrame) -> pl.DataFrame:
        return power_law_line(curves).with_columns(beta=pl.col("beta") + 0.01)

    path = empty(tmp_path / "w.duckdb")
    make_parts(parts_of(path), run_id="run", **SMALL | {"neurons": 256})
    with pytest.raises(QualityError, match="the line with head and tail leaves a mean of 0"):
        warehouse.publish(path, parts_of(path), line=line, anyway="please")
    with duckdb.connect(path, read_only=True) as con:
        assert con.execute("from store.power_law_fit").fetchall() == []
