"""The relations that a report's cards and tables are read from: literal rows in, literal rows out."""

from collections.abc import Iterator

import duckdb
import pytest

from tests.support.mart_rows import empty_warehouse, given, given_run, rows

EFFECTS = "run_key, neuron, position_id, activation, delta_loss"


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """Two windows of three positions, reading " a b c" and " c b a", and neurons 7 and 8."""
    with empty_warehouse() as con:
        given_run(con)
        given_run(con, 2, "other")
        given(con, "tokenizer", "tokenizer_key, tokenizer_id", (1, "t"))
        tokens = [(1, i, text, True, True, False) for i, text in enumerate([" a", " b", "\x1b[31mc"])]
        given(con, "dim_token", "tokenizer_key, token_id, text, is_word, starts_word, is_special", *tokens)
        columns = "run_key, position_id, window_id, window_offset, input_token_id, target_token_id, loss, entropy"
        texts = [(0, 1), (1, 2), (2, 2), (2, 1), (1, 0), (0, 2)]
        positions = [(1, t, t // 3, t % 3, one, two, float(t), 1.0) for t, (one, two) in enumerate(texts)]
        given(con, "dim_position", columns, *positions)
        given(con, "position_group", "run_key, preset, token_group, position_id", (1, "es", "rare", 1))
        given(con, "position_group", "run_key, preset, token_group, position_id", (1, "nc", "rare", 4))
        given(con, "position_group", "run_key, preset, token_group, position_id", (1, "es", "rare", 5))
        changes = [0.25, 0.5, 0.0, -0.5, 0.25, -0.25]
        given(con, "fct_effect", EFFECTS, *((1, 7, t, float(t), change) for t, change in enumerate(changes)))
        given(con, "fct_effect", EFFECTS, *((1, 8, t, 3.0, 9.0) for t in range(6)))
        given(con, "fct_effect", EFFECTS, *((2, 7, t, 3.0, 9.0) for t in range(6)))
        yield con


def test_neuron_context(con: duckdb.DuckDBPyConnection) -> None:
    found = rows(
        con,
        "select direction, place, position_id, token_group, context, target, loss, delta_loss, activation"
        " from neuron_context('run', 7, contexts := 2, before := 2)",
    )
    assert found == [
        ("helps", 1, 1, "rare", " a b", "\x1b[31mc", 1.0, 0.5, 1.0),
        ("helps", 2, 0, None, " a", " b", 0.0, 0.25, 0.0),  # a tie: the earlier; nothing stands before it
        ("hurts", 1, 3, None, "\x1b[31mc", " b", 3.0, -0.5, 3.0),  # its window begins here
        ("hurts", 2, 5, "rare", " b a", "\x1b[31mc", 5.0, -0.25, 5.0),
    ]
    assert rows(con, "from neuron_context('run', 9)") == []


def test_characters_of_several_tokens_are_decoded_together(con: duckdb.DuckDBPyConnection) -> None:
    halves = {0: b"\xe2\x80", 1: b"\x9c", 2: None}
    for token_id, half in halves.items():
        con.execute("update store.dim_token set bytes = ? where token_id = ?", [half, token_id])
    found = rows(con, "select position_id, context from neuron_context('run', 7, contexts := 2, before := 2)")
    assert found == [(1, "“"), (0, "\ufffd"), (3, "\x1b[31mc"), (5, "\ufffd\ufffd")]
    con.execute("update store.dim_token set bytes = 'x\\xFFx'::blob where token_id = 0")
    found = rows(con, "select context from neuron_context('run', 7, contexts := 1, before := 2)")
    assert found[0] == (" a b",), "what is no text at all stays as the tokens' texts"


def test_neuron_target(con: duckdb.DuckDBPyConnection) -> None:
    found = rows(con, "from neuron_target('run', 7, fewest := 2)")
    assert [row[:6] for row in found] == [("run", 2, 7, 2, "\x1b[31mc", 3), ("run", 2, 7, 1, " b", 2)]
    assert [row[6] for row in found] == [pytest.approx(0.25 / 3), -0.125]
    assert found[1][7:] == (pytest.approx(0.75 / 2**0.5), 1.5)
    assert rows(con, "select text from neuron_target('run', 7)") == []


def test_neuron_activation(con: duckdb.DuckDBPyConnection) -> None:
    found = rows(con, "select bin, low, high, positions, rare, delta_loss from neuron_activation('run', 7, bins := 2)")
    assert found == [(1, 0.0, 2.5, 3, 1, 0.25), (2, 2.5, 5.0, 3, 1, pytest.approx(-0.5 / 3))]
    constant = "select bin, low, high, positions, rare from neuron_activation('run', 8, bins := 2)"
    assert rows(con, constant) == [(1, 3.0, 3.0, 6, 2), (2, 3.0, 3.0, 0, 0)]
    assert rows(con, "from neuron_activation('run', 9)") == []


def test_group_activation(con: duckdb.DuckDBPyConnection) -> None:
    columns = "run_key, preset, token_group, group_name, k, draw, neuron, pool"
    tested = [(1, "es", "rare", "boost", 50, 0, neuron, None) for neuron in (7, 8)]
    control = (1, "es", "rare", "control", 50)
    given(con, "neuron_group", columns, *tested, (*control, 1, 7, "disjoint"), (*control, 2, 7, "disjoint"))
    given(con, "neuron_group", columns, (*control, 3, 7, "layer"))  # of the other pool: not mixed with the first
    given(con, "neuron_group", columns, (1, "es", "rare", "top", 10, 0, 7, None), (1, "nc", *tested[0][2:]))
    given(con, "neuron_group", columns, (1, "nc", *control[2:], 1, 7, "layer"))
    found = rows(
        con,
        "select group_name, draw, position_id, window_id, activation from group_activation('run', 'es', draws := 1)",
    )
    # Activations 1 and 5 at the two rare positions: −1 and 1. Neuron 8 is constant, so it has no say.
    assert found == [
        ("boost", 0, 1, 0, -1.0),
        ("boost", 0, 5, 1, 1.0),
        ("control", 1, 1, 0, -1.0),
        ("control", 1, 5, 1, 1.0),
    ]
    draws = "select distinct draw from group_activation('run', 'es') where group_name = 'control' order by all"
    assert rows(con, draws) == [(1,), (2,)]
    con.execute("insert into store.position_group values (1, 'nc', 'rare', 5)")
    of_the_layer = rows(con, "select group_name, draw, activation from group_activation('run', 'nc') where draw > 0")
    assert of_the_layer == [("control", 1, -1.0), ("control", 1, 1.0)], "it stands in where there is no other"


def value_of(con: duckdb.DuckDBPyConnection, columns: str, place: str) -> list[tuple[object, ...]]:
    return rows(con, f"select {columns} from measured_value where place = '{place}' order by all")


def test_measured_value_of_correlations(con: duckdb.DuckDBPyConnection) -> None:
    columns = (
        "run_key, preset, token_group, group_name, k, draw, comparison, other_group, other_k, mean_correlation, low,"
        " space"
    )
    of_groups = [
        (1, "es", "rare", "boost", 50, 0, "within", "boost", 50, 0.3, 0.2),
        (1, "es", "rare", "boost", 50, 0, "groups", "suppress", 50, 0.1, None),
        (1, "es", "rare", "boost", 50, 0, "random", "control", 50, 0.05, None),
        (1, "es", "rare", "control", 50, 1, "within", "control", 50, 0.01, None),
        (1, "es", "rare", "control", 50, 2, "within", "control", 50, 0.03, None),
        (1, "es", "rare", "control", 10, 1, "within", "control", 10, 9.0, None),
        (1, "es", "rare", "control", 50, 1, "groups", "control", 50, 0.5, None),
        (1, "es", "rare", "control", 50, 1, "random", "control", 50, 9.0, None),
        (1, "es", "rare", "top", 10, 0, "within", "top", 10, 9.0, None),
    ]
    given(con, "activation_correlation", columns, *((*row, "activation") for row in of_groups))
    magnitudes = [(*row[:-2], 8.0, 8.0, "abs_activation") for row in of_groups]  # which no paper prints
    given(con, "activation_correlation", columns, *magnitudes)
    tested = "run_key, preset, token_group, analysis, statistic, setting, group_name, test, reference_mean, p_holm"
    of_pairs = (1, "es", "rare", "activation_correlation", "mean_correlation")
    kept = (*of_pairs, "space=activation, comparison=within", "boost", "control")
    given(con, "group_test", tested, (*kept, 0.02, 0.04), (*kept[:-1], "mann_whitney", 8.0, 8.0))
    given(con, "group_test", tested, (*of_pairs, "space=abs_activation, comparison=within", *kept[-2:], 8.0, 8.0))
    assert value_of(con, "group_name, value, low, random_mean, p_value, reason", "table 1") == [
        ("boost", 0.3, 0.2, 0.02, 0.04, None),
        ("boost_random", 0.05, None, None, None, None),  # the test is of the group, not of the pair
        ("boost_suppress", 0.1, None, None, None, None),
        ("random", 0.02, None, None, None, None),
        ("random_random", 0.5, None, None, None, None),
    ]


def test_measured_value_of_both_dimensions_and_every_rule_of_the_tail(con: duckdb.DuckDBPyConnection) -> None:
    columns = (
        "run_key, preset, token_group, group_name, k, draw, standardised, threshold, dimension_percent,"
        " participation_percent, participation_percent_low, reason"
    )
    given(
        con, "effective_dimension", columns,
        (1, "es", "rare", "boost", 50, 0, True, 0.95, 70.0, 40.0, 38.0, None),
        (1, "es", "rare", "suppress", 50, 0, True, 0.95, None, None, None, "fewer than 50 suppress"),
        (1, "es", "rare", "boost", 50, 0, False, 0.95, 9.0, 9.0, 9.0, None),
    )  # fmt: skip
    assert value_of(con, "group_name, definition, value, low, reason", "table 2") == [
        ("boost", "95 % of the variance", 70.0, None, None),
        ("boost", "participation ratio", 40.0, 38.0, None),
        ("suppress", "95 % of the variance", None, None, "fewer than 50 suppress"),
        ("suppress", "participation ratio", None, None, "fewer than 50 suppress"),
    ]
    columns = "run_key, preset, token_group, matrix, standardised, group_name, k, draw, rule, alpha"
    given(
        con, "weight_spectrum", columns,
        (1, "es", "rare", "w_out", False, "boost", 50, 0, "fix_finger", 2.0),
        (1, "es", "rare", "w_in", False, "boost", 50, 0, "fix_finger", 9.0),
        (1, "es", "rare", "w_out", False, "control", 50, 1, "mid", 3.0),
        (1, "es", "rare", "w_out", False, "control", 50, 2, "mid", 5.0),
    )  # fmt: skip
    assert value_of(con, "group_name, definition, value, spread", "table 4") == [
        ("boost", "fix finger", 2.0, None),
        ("random", "mid", 4.0, pytest.approx(2**0.5)),
    ]


def test_measured_value_of_graphs_and_regimes(con: duckdb.DuckDBPyConnection) -> None:
    columns = (
        "run_key, preset, token_group, group_name, k, draw, method, signed_modularity, signed_modularity_low,"
        " communities_mean, communities_sd"
    )
    given(
        con, "graph_modularity", columns,
        (1, "nc", "rare", "top_boost", 5, 0, "louvain", 0.2, 0.1, 2.5, 0.5),
        (1, "nc", "rare", "top_boost", 5, 0, "leiden", 9.0, 9.0, 9.0, 9.0),
    )  # fmt: skip
    assert value_of(con, "paper, group_name, definition, quantity, value, low, spread", "table 1") == [
        ("NC", "plateau_excitatory", "top 1 %", "communities", 2.5, None, 0.5),
        ("NC", "plateau_excitatory", "top 1 %", "signed_modularity", 0.2, 0.1, None),
    ]
    con.execute("update store.run set neurons = 1000")
    key = "run_key, preset, token_group, statistic, role"
    decided = f"{key}, decision, break_rank, break_low, break_high, slope_break_log_rank"
    given(
        con, "regime_decision", decided,
        (1, "es", "rare", "mean_abs", "all", "present", 20, 15, 25, 5.1),
        (1, "es", "common", "mean_abs", "all", "absent", 3, 1, 5, None),
        (1, "nc", "rare", "mean_abs", "all", "undecided", 3, 1, 5, None),
        (1, "nc", "rare", "abs_mean", "all", "present", 3, 1, 5, None),
    )  # fmt: skip
    where = "'§4.1' and quantity = 'plateau_percent'"
    found = rows(
        con,
        "select preset, group_name, value, low, high, reason from measured_value"
        f" where place = {where} order by preset, group_name",
    )
    assert found == [
        ("es", "common", 0.0, None, None, None),
        ("es", "rare", 2.0, 1.5, 2.5, None),
        ("nc", "rare", None, None, None, "undecided whether there is one"),
    ]


def test_measured_value_of_attention(con: duckdb.DuckDBPyConnection) -> None:
    columns = (
        "run_key, preset, token_group, head_ablation, group_name, k, target, attention_layer, activation_change,"
        " change_low, effect_size, reason"
    )
    key = (1, "nc", "rare", "zero")
    given(
        con, "head_ablation", columns,
        (*key, "top", 10, "largest_head", None, -0.08, -0.1, 0.3, None),
        (*key, "top", 10, "layer", 2, -0.4, -0.5, 1.7, None),
        (*key, "top", 10, "layer", 3, None, None, None, "no path"),
        (*key, "top", 10, "head", 2, 9.0, 9.0, 9.0, None),
        (*key, "boost", 50, "layer", 2, 9.0, 9.0, 9.0, None),
    )  # fmt: skip
    where = "place = 'table 2' and quantity = 'plateau_activation_change_percent'"
    found = rows(
        con, f"select group_name, definition, value, low, reason from measured_value where {where} order by all"
    )
    assert found == [
        ("all_heads", "top 1 %, zero, layer 2", -40.0, -50.0, None),
        ("all_heads", "top 1 %, zero, layer 3", None, None, "no path"),
        ("single_head_largest", "top 1 %, zero", -8.0, -10.0, None),
    ]
    given(
        con, "attention_routing",
        "run_key, preset, token_group, attention_layer, head, correlation, correlation_low, gini, common_gini",
        (1, "nc", "rare", None, None, 0.9, 0.8, 0.34, 0.32), (1, "nc", "rare", 2, 0, 9.0, 9.0, 9.0, 9.0),
    )  # fmt: skip
    assert value_of(con, "group_name, quantity, value, low", "§3") == [
        ("common", "attention_gini", 0.32, None),
        ("rare", "attention_gini", 0.34, None),
        ("rare_common", "attention_correlation", 0.9, 0.8),
    ]
