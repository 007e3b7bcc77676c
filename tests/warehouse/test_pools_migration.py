"""Results of before random groups had a pool and correlations a space: they get what they were computed with."""

from collections.abc import Iterator

import duckdb
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses import registry
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.warehouse.schema import migrations
from tests.support.mart_rows import given
from tests.support.old_schema import make_old
from tests.support.warehouses import published

BEFORE = [name for _, name, _ in migrations.known()].index("pools_and_spaces")  # schemas before the one of pools
GROUP = "run_key, preset, token_group, group_name, k, draw, neuron"
KEY = "run_key, preset, token_group, group_name, k, draw"


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    """A warehouse of then: preset es with random groups outside the tested ones, nc with those of the whole layer."""
    folder = tmp_path_factory.mktemp("then")
    new = folder / "new.duckdb"
    published(new, "run", seed=1)
    old = make_old(folder / "old.duckdb", new, BEFORE)
    with duckdb.connect(old) as con:
        ((key,),) = con.execute("select run_key from store.run").fetchall()
        for preset, drawn in (("es", (5, 6)), ("nc", (2, 6))):
            tested = [(key, preset, "rare", name, 2, 0, neuron) for name in ("boost", "top") for neuron in (1, 2)]
            absent = (key, preset, "rare", "suppress", 2, 0, None)
            given(con, "neuron_group", GROUP, *tested, absent)
            given(con, "neuron_group", GROUP, *((key, preset, "rare", "control", 2, 1, neuron) for neuron in drawn))
            rows = [(key, preset, where, name, 2, int(name != "boost")) for where in ("rare", "all") for name in NAMES]
            for relation in RELATIONS:
                given(con, relation, KEY, *rows)
            given(con, "weight_spectrum", KEY, (key, preset, "rare", "layer", 9, 0))
            tests = [
                (key, preset, "rare", "activation_correlation", "comparison=within"),
                (key, preset, "rare", "effective_dimension", "standardised=True, threshold=0.95"),
            ]
            given(con, "group_test", "run_key, preset, token_group, analysis, setting", *tests)
    warehouse.migrate(old, line=power_law_line)
    with warehouse.open(old) as opened:
        yield opened


NAMES = ("boost", "control")
RELATIONS = (
    "activation_correlation",
    "cosine_similarity",
    "effective_dimension",
    "neuron_cluster",
    "mutual_information",
    "graph_modularity",
    "weight_spectrum",
)


def test_stored_results_say_what_they_were_compared_with(migrated: warehouse.Warehouse) -> None:
    groups = migrated.neuron_group()
    assert len(groups) == 14
    assert set(groups.filter(pl.col("draw") == 0)["pool"]) == {None}
    controls = groups.filter(pl.col("draw") > 0)
    assert set(controls.select("preset", "pool").rows()) == {("es", "disjoint"), ("nc", "layer")}
    for relation in (*RELATIONS, "group_test"):
        found = migrated.read(relation).filter(pl.col("group_name").is_null() | (pl.col("group_name") != "layer"))
        pools = set(found.select("preset", "pool").rows())
        assert pools == {("es", "disjoint"), ("nc", "layer")}, relation
    whole = migrated.read("weight_spectrum").filter(group_name="layer")
    assert whole["pool"].to_list() == [None, None]


def test_stored_correlations_are_of_the_activations(migrated: warehouse.Warehouse) -> None:
    assert set(migrated.activation_correlation()["space"]) == {"activation"}
    settings = migrated.group_test().select("analysis", "setting").unique().sort("analysis").rows()
    assert settings == [
        ("activation_correlation", "space=activation, comparison=within"),
        ("effective_dimension", "standardised=True, threshold=0.95"),
    ]


def test_what_older_code_stored_is_computed_anew() -> None:
    changed = {"neuron_group": ("pools",)} | dict.fromkeys(RELATIONS, ("pool",))
    changed |= {
        "activation_correlation": ("pool", "spaces"),
        "cosine_similarity": ("pool", "activation_pool", "weights"),
    }
    stored = {}
    for one in registry.REGISTRY:
        new = changed.get(one.name, ())
        assert set(new) <= set(one.parameters), one.name
        stored[one.name] = {name: value for name, value in one.parameters.items() if name not in new}
    due = {one.name for one in registry.due(stored)}
    assert due >= {*changed, "group_test"}
