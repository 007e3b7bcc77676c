"""The command `tables`: relations in groups, what each is, how a macro is called, the closest name for a wrong one."""

import json

import pytest

from rare_tokens.warehouse.schema import relation_groups, relations
from tests.support.warehouses import stored

RUN = "embedded-step6144-00000000"
KNOWN = relations.relations()


@pytest.fixture
def published(commands):
    stored(commands.folder / "rare_tokens.duckdb", RUN)


def test_every_relation_is_in_a_group_and_every_group_has_some():
    """A new folder below sql/marts needs a group; a name to start with must be a relation's."""
    groups = {name: relation_groups.group_of(relation) for name, relation in KNOWN.items()}
    assert set(groups.values()) == set(relation_groups.GROUPS)
    assert set(relation_groups.START_WITH) <= set(KNOWN)
    ordered = [one.name for one in relation_groups.grouped(KNOWN.values())]
    assert sorted(ordered) == sorted(KNOWN)
    assert ordered[: len(relation_groups.START_WITH)] == list(relation_groups.START_WITH)
    assert groups["fct_effect"] == "facts"
    assert groups["neuron_influence"] == groups["influence_where"] == "rankings"
    assert groups["dim_attention"] == "attention"
    assert groups["units"] == relation_groups.FUNCTIONS


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_list_is_grouped_and_fits(commands, published, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    ended = commands("tables")
    lines = [line.rstrip() for line in ended.out.split("\n")]
    assert max(map(len, lines)) <= int(columns)
    titles = [line for line in lines if line in {group[0].upper() + group[1:] for group in relation_groups.GROUPS}]
    last = relation_groups.FUNCTIONS[0].upper() + relation_groups.FUNCTIONS[1:]
    assert titles == ["Start here", "Facts", "One neuron", "Rankings", "Analyses", "Attention", last]
    assert lines[1].split() == ["name", "what", "it", "is", "rows"]
    for name, relation in KNOWN.items():
        shown = f"{name}(…)" if relation.is_macro else name
        assert any(line.startswith(f"{shown} ") and relation.summary.split()[0] in line for line in lines), name
    assert "hidden" not in ended.out
    assert "cut at" not in ended.out
    assert "`rare-tokens tables NAME` describes one of them." in ended.err


def test_json_has_all_that_is_known(commands, published):
    rows = {row["name"]: row for row in json.loads(commands("tables", "--json").out)}
    assert list(rows["dim_run"]) == ["name", "group", "what it is", "one row per", "kind", "rows", "example"]
    assert (rows["dim_run"]["rows"], rows["dim_run"]["group"]) == (1, "start here")
    assert rows["influence_at"]["example"] == KNOWN["influence_at"].example


def test_a_macro_is_described_with_a_call_that_works(commands, published):
    ended = commands("tables", "influence_at")
    first, example, *_ = ended.out.split("\n")
    assert first.startswith(
        "influence_at: influence with the line between rare and common drawn anywhere. Macro influen"
    )
    assert example == f'Example: rare-tokens sql "{KNOWN["influence_at"].example}"'
    assert "positions" in ended.out
    answered = commands("sql", example.split('"')[1])
    assert answered.code == 0
    assert RUN in answered.out
    assert commands("tables", "units").out.startswith("units: ")
    assert json.loads(commands("tables", "units", "--json").out) == []


def test_the_closest_name_is_proposed(commands, published):
    ended = commands("tables", "neuron_influnce")
    assert (ended.code, ended.out) == (2, "")
    assert "There is no relation neuron_influnce. The closest is neuron_influence." in ended.err
    assert "Did you mean" not in commands("tables", "qqqqqq").err


def test_an_unknown_run_is_an_error_through_sql_too(commands, published):
    ended = commands("sql", "from influence_at('nonsense', 15)")
    assert (ended.code, ended.out) == (2, "")
    assert f"There is no run 'nonsense'. The warehouse has {RUN}." in ended.err
    assert commands("sql", "from dim_run where run_id = 'nonsense'").code == 0, "plain SQL stays SQL"
