"""Whether the text settles a neuron's sign, and how many signs of a group are settled: literal rows in and out."""

from collections.abc import Iterator

import duckdb
import pytest

from rare_tokens.warehouse.publish.results import read
from tests.support.mart_rows import empty_warehouse, given, given_run, rows
from tests.support.warehouses import empty

INTERVAL = "run_key, preset, token_group, quantity, neuron, estimate, low, high, reason"
INFLUENCE = (
    "run_key, preset, token_group, neuron, rank, influence, mean_delta_loss, abs_mean_delta_loss, abs_mean_rank,"
    " positions, role"
)
GROUP = "run_key, preset, token_group, group_name, k, draw, neuron, reason"
ALONE = "a single window: nothing to resample"
NO_INTERVAL = "no interval is stored: `analyze` computes it"

# neuron: mean, low and high of its interval, role, settled_role
SIGNS = {
    1: (0.2, 0.1, 0.3, "boost", "boost"),
    2: (-0.2, -0.3, -0.1, "suppress", "suppress"),
    3: (0.005, -0.1, 0.1, "boost", "mixed"),
    4: (-0.005, -0.1, 0.1, "suppress", "mixed"),
    5: (0.1, 0.0, 0.2, "boost", "mixed"),  # an end at 0 holds 0
    6: (-0.1, -0.2, 0.0, "suppress", "mixed"),
    7: (0.0, -0.1, 0.1, None, None),
    8: (0.1, -0.3, -0.2, "boost", "mixed"),  # an interval beside its own mean settles nothing
}


def given_influence(con: duckdb.DuckDBPyConnection, run_key: int, preset: str, group: str = "rare") -> None:
    curve = (
        (run_key, preset, group, neuron, neuron, 1 / neuron, mean, abs(mean), neuron, 5, role)
        for neuron, (mean, _, _, role, _) in SIGNS.items()
    )
    given(con, "neuron_influence", INFLUENCE, *curve)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Run 1 has intervals of rare tokens under es; under nc it has one window; run 2 was not analysed."""
    with empty_warehouse() as con:
        given_run(con)
        given_run(con, 2, "other")
        for key in ((1, "es"), (1, "nc"), (2, "es"), (1, "es", "common")):
            given_influence(con, *key)
        es = [(1, "es", "rare", "mean_delta_loss", n, s[0], s[1], s[2], None) for n, s in SIGNS.items()]
        given(con, "influence_interval", INTERVAL, *es, (1, "es", "rare", "head_rank", None, 9.0, 5.0, 12.0, None))
        others = [(1, "es", "rare", name, n, 1.0, 1.0, 9.0, None) for name in ("influence", "rank") for n in SIGNS]
        given(con, "influence_interval", INTERVAL, *others)  # of other quantities, none of them about a sign
        given(con, "influence_interval", INTERVAL, (1, "nc", "rare", "head_rank", None, 9.0, None, None, ALONE))
        yield con


def test_a_sign_is_settled_where_its_interval_is_on_its_side_of_0(con: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        con,
        "select neuron, mean_delta_loss, mean_delta_low, mean_delta_high, role, settled_role from neuron_sign"
        " where run_id = 'run' and preset = 'es' and token_group = 'rare' order by neuron",
    )
    assert found == [(neuron, *sign) for neuron, sign in SIGNS.items()]
    assert rows(con, "select count(*) from neuron_sign") == rows(con, "select count(*) from neuron_influence")


def test_without_an_interval_there_is_no_settled_sign_and_the_reason(con: duckdb.DuckDBPyConnection) -> None:
    reasons = (
        "select distinct run_id, preset, token_group, role is null, settled_role, mean_delta_low, reason"
        " from neuron_sign where settled_role is null order by all"
    )
    zero = "mean_delta_loss is 0"
    assert rows(con, reasons) == [
        ("other", "es", "rare", False, None, None, NO_INTERVAL),
        ("other", "es", "rare", True, None, None, zero),
        ("run", "es", "common", False, None, None, NO_INTERVAL),
        ("run", "es", "common", True, None, None, zero),
        ("run", "es", "rare", True, None, -0.1, zero),
        ("run", "nc", "rare", False, None, None, ALONE),
        ("run", "nc", "rare", True, None, None, zero),
    ]
    assert rows(con, "select count(*) from neuron_sign where settled_role is not null and reason is not null") == [(0,)]


def test_the_profile_has_the_settled_role_and_its_interval(con: duckdb.DuckDBPyConnection) -> None:
    weights = ((1, neuron, 0.5, 1.0) for neuron in SIGNS)
    given(con, "dim_neuron", "run_key, neuron, mean_activation, w_out_norm", *weights)
    columns = "neuron, mean_delta_loss, mean_delta_low, mean_delta_high, role, settled_role"
    found = rows(con, f"select {columns} from neuron_profile where preset = 'es' and token_group = 'rare' order by all")
    assert found == [(neuron, *sign) for neuron, sign in SIGNS.items()]
    others = "select count(*), count(settled_role), count(mean_delta_low) from neuron_profile where preset = 'nc'"
    assert rows(con, others) == [(8, 0, 0)]


def test_a_group_says_how_many_of_its_signs_are_mixed(con: duckdb.DuckDBPyConnection) -> None:
    members = {"boost": (1, 3, 5), "suppress": (2, 4, 6), "top": (1, 2, 3, 7), "suppress_settled": (2,)}
    for run_key, preset in ((1, "es"), (1, "nc"), (2, "es")):
        key = (run_key, preset, "rare")
        chosen = ((*key, name, len(found), 0, n, None) for name, found in members.items() for n in found)
        given(con, "neuron_group", GROUP, *chosen, (*key, "control", 3, 1, 8, None))
        given(con, "neuron_group", GROUP, (*key, "boost_settled", 3, 0, None, "too few"))
    columns = "group_name, k, members, settled_boost, settled_suppress, mixed, reason"
    found = f"select {columns} from neuron_group_summary where run_id = '{{}}' and preset = '{{}}' order by group_name"
    assert rows(con, found.format("run", "es")) == [
        ("boost", 3, 3, 1, 0, 2, None),
        ("boost_settled", 3, 0, None, None, None, "too few"),
        ("suppress", 3, 3, 0, 1, 2, None),
        ("suppress_settled", 1, 1, 0, 1, 0, None),
        ("top", 4, 4, 1, 1, 1, None),  # and one without a sign
    ]
    for run, preset, reason in (("run", "nc", ALONE), ("other", "es", NO_INTERVAL)):
        assert rows(con, found.format(run, preset)) == [
            ("boost", 3, 3, None, None, None, reason),
            ("boost_settled", 3, 0, None, None, None, "too few"),
            ("suppress", 3, 3, None, None, None, reason),
            ("suppress_settled", 1, 1, None, None, None, reason),
            ("top", 4, 4, None, None, None, reason),
        ]


def test_an_analysis_reads_the_groups_that_it_asks_for(tmp_path) -> None:
    path = empty(tmp_path / "w.duckdb")
    with duckdb.connect(path) as con:
        given_run(con)
        given(con, "neuron_group", GROUP, *((1, "es", "rare", name, 1, 0, 3, None) for name in ("top", "boost")))
    assert read(path, "run", "neuron_group", group_names=("boost", "plateau"))["group_name"].to_list() == ["boost"]
    assert len(read(path, "run", "neuron_group")) == 2
