"""Macros: each has a call that works, takes the start of a run_id, and refuses what the warehouse does not have."""

import re
from collections.abc import Iterator

import duckdb
import pytest

from rare_tokens.warehouse.schema import relations
from rare_tokens.warehouse.schema.relations import Relation
from tests.support.mart_rows import empty_warehouse, given_run
from tests.support.warehouses import published, stored

MACROS = {name: relation for name, relation in relations.relations().items() if relation.is_macro}
RUNS = ("embedded-step6144-00000000", "embedded-step384-00000000")  # as in the examples
OF_A_RUN = [name for name, macro in MACROS.items() if re.search(r"\((run|runs)\b", macro.grain)]
OF_A_NEURON = [name for name, macro in MACROS.items() if "neuron_index" in macro.grain]
OF_A_PRESET = ["group_activation", "preset_of"]
OF_A_CURVE = ["power_law_fit_of", "neuron_deviation_of", "regime_decision_of"]


@pytest.fixture(scope="module")
def con(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    path = tmp_path_factory.mktemp("macros") / "w.duckdb"
    stored(path, RUNS[0])
    published(path, RUNS[1])
    with duckdb.connect(path, read_only=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def nothing() -> Iterator[duckdb.DuckDBPyConnection]:
    with empty_warehouse() as opened:
        yield opened


def called(macro: Relation, **instead: str) -> str:
    """The macro's example with other values in the places of its parameters; always a query that counts."""
    text = macro.example
    for old, new in instead.items():
        pattern = {"run": r"'embedded-step6144'", "neuron": r", 7\b", "preset": "'es'"}[old]
        text, found = re.subn(pattern, new, text, count=1)
        assert found, (macro.name, old)
    return text


def said(con: duckdb.DuckDBPyConnection, query: str) -> str:
    with pytest.raises(duckdb.InvalidInputException) as error:
        con.execute(query).fetchall()
    return str(error.value)


@pytest.mark.parametrize("name", MACROS)
def test_the_example_of_every_macro_works(con: duckdb.DuckDBPyConnection, name: str) -> None:
    example = MACROS[name].example
    assert f"{name}(" in example, "its head comment has an example"
    assert len(con.execute(example).fetchall()) > 0 or name in WITHOUT_ROWS


# What the published small runs do not have: attribution, and the results of `analyze`.
WITHOUT_ROWS = {"attribution_sum", "attribution_error", "group_activation", "group_test_across", "regime_decision_of"}
WITHOUT_ROWS |= {"token_neuron"}  # the words here are others


@pytest.mark.parametrize("name", OF_A_RUN)
def test_an_unknown_run_is_an_error_that_names_it(
    con: duckdb.DuckDBPyConnection, nothing: duckdb.DuckDBPyConnection, name: str
) -> None:
    query = called(MACROS[name], run="'nonsense'")
    assert "There is no run 'nonsense'. The warehouse has embedded-step" in said(con, query)
    assert "': the warehouse is empty. Ingest a model first." in said(nothing, query)
    assert "There is no run 'NULL'." in said(con, called(MACROS[name], run="null"))
    assert "'embedded-step' is the start of 2 runs: " in said(con, called(MACROS[name], run="'embedded-step'"))


@pytest.mark.parametrize("name", OF_A_NEURON)
def test_an_unknown_neuron_is_an_error(con: duckdb.DuckDBPyConnection, name: str) -> None:
    for neuron in ("40", "-1"):
        words = said(con, called(MACROS[name], neuron=f", {neuron}"))
        assert f"{RUNS[0]} has no neuron {neuron}. Its neurons are 0 to 39." in words


@pytest.mark.parametrize("name", OF_A_PRESET)
def test_an_unknown_preset_is_an_error(con: duckdb.DuckDBPyConnection, name: str) -> None:
    words = said(con, called(MACROS[name], preset="'ess'"))
    assert "There is no preset 'ess'. It is one of es, nc, ds, nc-matched." in words


def test_every_macro_with_a_preset_is_tried() -> None:
    assert {name for name, macro in MACROS.items() if "preset" in macro.grain.partition("(")[2]} <= set(OF_A_PRESET)


@pytest.mark.parametrize("name", OF_A_CURVE)
def test_an_unknown_curve_is_an_error(
    con: duckdb.DuckDBPyConnection, nothing: duckdb.DuckDBPyConnection, name: str
) -> None:
    for opened in (con, nothing):
        assert "There is no statistic 'mean'." in said(opened, f"from {name}('mean', 'all')")
        assert "There is no role 'up'. It is one of all, boost, suppress." in said(
            opened, f"from {name}('mean_abs', 'up')"
        )


def test_a_run_id_that_starts_another_means_itself() -> None:
    with empty_warehouse() as con:
        for key, name in ((1, "gpt2-main-12"), (2, "gpt2-main-123"), (3, "50%_off-main-1")):
            given_run(con, key, name)
        keys = [
            con.execute("select run_key_of(?)", [run]).fetchall()[0][0]
            for run in ("gpt2-main-12", "gpt2-main-123", "50%_")
        ]
        assert keys == [1, 2, 3]
        assert "is the start of 2 runs" in said(con, "select run_key_of('gpt2')")
        assert "There is no run '%'" in said(con, "select run_key_of('%')")
