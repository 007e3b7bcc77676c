"""The list of analyses: their order, what they fill, and what other lists must agree with."""

import polars as pl

from rare_tokens.analyses import registry
from rare_tokens.commands.analyze import analyze
from rare_tokens.commands.demo import CHEAP
from tests.support.mart_rows import empty_warehouse


def test_an_analysis_stands_after_those_whose_relations_it_reads():
    names = [one.name for one in registry.REGISTRY]
    assert len(set(names)) == len(names)
    last = {name: place for place, one in enumerate(registry.REGISTRY) for name in one.relations}
    late = {
        one.name: name
        for place, one in enumerate(registry.REGISTRY)
        for name in one.reads
        if last.get(name, -1) >= place
    }
    assert late == {}


def test_what_is_tested_are_columns_of_the_relation_that_the_analysis_is_named_after():
    for one in registry.REGISTRY:
        for tested in one.tested:
            columns = set(one.relations[one.name])
            assert {tested.statistic, *tested.keys, *(tested.interval or ()), "group_name", "draw", "reason"} <= columns


def test_every_relation_has_a_stored_table_of_its_columns():
    with empty_warehouse() as con:
        for name, schema in registry.relations().items():
            con.register("computed", pl.DataFrame(schema=pl.Schema(schema)).to_arrow())
            computed = dict(con.execute("select column_name, column_type from (describe computed)").fetchall())
            table = f"select column_name, column_type from (describe store.{name}) where column_name <> 'run_key'"
            assert dict(con.execute(table).fetchall()) == {
                column: kind for column, kind in computed.items() if column != "run_id"
            }, name


def test_the_positions_of_the_command_are_those_of_the_registry():
    (option,) = (option for option in analyze.params if option.name == "positions")
    assert tuple(option.type.choices) == registry.POSITIONS


def test_what_the_demo_computes_of_every_checkpoint_are_analyses_in_their_order():
    names = [one.name for one in registry.REGISTRY]
    assert [name for name in names if name in CHEAP] == list(CHEAP)


def test_a_series_waits_for_the_analyses_that_it_reads():
    emergence = next(one for one in registry.OF_SETS if one.name == "emergence")
    assert registry.needed(emergence) == ["regimes", "influence_interval", "neuron_group"]


def test_groups_are_formed_anew_where_intervals_are():
    stored = {one.name: one.parameters for one in registry.REGISTRY}
    assert registry.due(stored) == []
    del stored["influence_interval"]
    names = [one.name for one in registry.due(stored)]
    assert names[0] == "influence_interval"
    assert {"neuron_group", "activation_correlation", "group_test"} <= set(names)


def test_attention_is_read_by_the_analyses_of_attention_alone():
    assert registry.readers("dim_attention") == ["attention_routing", "head_ablation"]
