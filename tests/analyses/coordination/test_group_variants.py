"""Rare and common drawn anywhere: the macros against Polars, bad lines, and groups without a position."""

from collections.abc import Iterator
from itertools import product

import duckdb
import numpy as np
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.effect_cells import in_group
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from rare_tokens.common.errors import UserError
from studies.synthetic.runs import make_parts
from tests.sql.test_marts import given_positions, given_tokens
from tests.support.mart_rows import empty_warehouse, given, given_run, publish, rows

FLAGS = ("occurrences", "words", "of_input", "elbow", "strict")
COMBINATIONS = [dict(zip(FLAGS, values, strict=True)) for values in product([False, True], repeat=len(FLAGS))]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[warehouse.Warehouse, np.ndarray]]:
    """A published run of 400 positions × 40 neurons, and its delta_loss (N, T)."""
    path = tmp_path_factory.mktemp("variants") / "w.duckdb"
    folder = parts.parts_root(path) / "run"
    make_parts(folder, positions=400, neurons=40, window=50, position_block=400, run_id="run", vocabulary=120)
    facts = pl.read_parquet(parts.effect_path(folder, 0)).sort("neuron", "position_id")
    warehouse.publish(path, folder, line=power_law_line)
    with warehouse.open(path) as opened:
        yield opened, facts["delta_loss"].to_numpy().astype(float).reshape(40, 400)


def members(opened: warehouse.Warehouse, percentile: float, chosen: dict[str, bool]) -> dict[str, list[int]]:
    """Positions of both groups, by the definition, from the dimensions."""
    separator = opened.dim_run()["separator_token_id"].item()
    frequency = opened.token_frequency().filter(pl.col("count") > 0, pl.col("token_id") != separator)
    position = opened.dim_position().join(frequency, left_on="target_token_id", right_on="token_id", how="semi")
    side = "input_token_id" if chosen["of_input"] else "target_token_id"
    graded = position.join(frequency, left_on=side, right_on="token_id").join(
        opened.dim_token(), left_on=side, right_on="token_id"
    )
    place = pl.col("occurrence_percentile" if chosen["occurrences"] else "percentile")
    if not chosen["elbow"]:
        graded = graded.filter(~pl.col("is_elbow"))
    rare = graded.filter(place < percentile)
    if chosen["words"]:
        rare = rare.filter("is_word")
    common = graded.filter(place > percentile if chosen["strict"] else place >= percentile)
    found = {"rare": rare, "common": common}
    return {name: frame["position_id"].sort().to_list() for name, frame in found.items()}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("percentile", [0, 15, 37.5, 100])
def test_groups_and_influence_of_every_variant(
    published: tuple[warehouse.Warehouse, np.ndarray], percentile: float
) -> None:
    opened, delta = published
    seen = set()
    for chosen in COMBINATIONS:
        expected = members(opened, percentile, chosen)
        grouped = opened.group_where("run", percentile, **chosen).sort("position_id")
        influence = opened.influence_where("run", percentile, **chosen)
        for name, where in expected.items():
            assert grouped.filter(pl.col("token_group") == name)["position_id"].to_list() == where, chosen
            seen.add(tuple(where))
            found = influence.filter(pl.col("token_group") == name).sort("neuron")
            if not where:
                (row,) = found.iter_rows(named=True)
                assert (row["neuron"], row["rank"], row["influence"], row["positions"]) == (None, None, None, 0)
                assert row["reason"] == "no position in the group"
                continue
            mean = np.abs(delta[:, where]).mean(axis=1)
            assert found["influence"].to_numpy() == pytest.approx(mean, abs=1e-12)
            assert found["mean_delta_loss"].to_numpy() == pytest.approx(delta[:, where].mean(axis=1), abs=1e-12)
            assert found.sort("rank")["neuron"].to_list() == np.argsort(-mean, kind="stable").tolist()
            assert found["positions"].unique().to_list() == [len(where)]
            assert found["reason"].null_count() == len(found)
    assert len(seen) > 4, "the variants differ"


PRESETS = {
    "es": (50, {"words": True}),
    "nc": (50, {"occurrences": True}),
    "ds": (15, {"elbow": False, "strict": True}),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_are_variants(published: tuple[warehouse.Warehouse, np.ndarray], preset: str) -> None:
    opened, _ = published
    percentile, chosen = PRESETS[preset]
    key = ["token_group", "position_id"]
    assert (
        opened.group_where("run", percentile, **chosen)
        .select(key)
        .sort(key)
        .equals(opened.position_group(preset=preset).select(key).sort(key))
    )
    columns = ["token_group", "neuron", "rank", "influence", "mean_delta_loss", "positions"]
    stored = opened.neuron_influence(preset=preset).select(columns).sort("token_group", "rank")
    found = opened.influence_where("run", percentile, **chosen)
    assert found.select(columns).sort("token_group", "rank").equals(stored)


@pytest.mark.parametrize("macro", ["influence_where", "influence_at"])
@pytest.mark.parametrize("percentile", ["100.5", "-1", "null", "'nan'::double"])
def test_what_is_no_percentile_is_refused(
    published: tuple[warehouse.Warehouse, np.ndarray], macro: str, percentile: str
) -> None:
    opened, _ = published
    with pytest.raises(UserError, match=r"is not a percentile\. Give one between 0 and 100"):
        opened.sql(f"from {macro}('run', {percentile})")


def test_groups_of_no_percentile_and_of_no_run(published: tuple[warehouse.Warehouse, np.ndarray]) -> None:
    opened, _ = published
    with pytest.raises(UserError, match="200 is not a percentile"):
        opened.sql("from group_where('run', 200)")


# --- how large each group is ----------------------------------------------------------------------------------------


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with empty_warehouse() as con:
        yield con


def test_token_group_size_says_why_a_group_is_empty(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_tokens(con)
    given_positions(con, [0, 1, 3, 3])
    publish(con, "position_group", run_key=1)
    missing = (2, "none", "m", "r", "missing", "too few pairs", "nc-matched")
    given(con, "run", "run_key, run_id, model, revision, status, status_reason, contexts", missing)
    given(con, "run", "run_key, run_id, model, revision, status", (3, "gone", "m", "r", "missing"))
    given(con, "run", "run_key, run_id, model, revision, status", (4, "begun", "m", "r", "running"))
    sample = "its positions are a sample; ingest --contexts nc-matched searches for pairs"
    assert rows(con, "from token_group_size order by all") == [
        ("none", "nc-matched", "common", 0, 0, "too few pairs"),
        ("none", "nc-matched", "rare", 0, 0, "too few pairs"),
        ("run", "ds", "common", 0, 0, "no target above type percentile 15, the elbow left out"),
        ("run", "ds", "rare", 1, 1, None),
        ("run", "es", "common", 2, 1, None),
        ("run", "es", "rare", 0, 0, "no target is a word below type percentile 50"),
        ("run", "nc", "common", 2, 1, None),
        ("run", "nc", "rare", 1, 1, None),
        ("run", "nc-matched", "common", 0, 0, sample),
        ("run", "nc-matched", "rare", 0, 0, sample),
    ]
    con.execute("delete from store.position_group")
    reasons = dict(rows(con, "select preset || ' ' || token_group, reason from token_group_size where run_id = 'run'"))
    assert reasons["es common"] == "no target at or above type percentile 50"
    assert reasons["nc rare"] == "no target below occurrence percentile 50"
    assert reasons["nc common"] == "no target at or above occurrence percentile 50"
    assert reasons["ds rare"] == "no target below type percentile 15, the elbow left out"


def given_contexts(con: duckdb.DuckDBPyConnection) -> None:
    """Two pairs: tokens 2 and 3 in one context, 1 and 3 in another."""
    columns = "run_key, position_id, pair_id, context_id, token_group, part_of_speech, sentence_place, is_whole_word"
    contexts = [
        (1, 0, 0, 0, "rare", "NOUN", "end", True),
        (1, 1, 0, 0, "common", "NOUN", "end", True),
        (1, 2, 1, 0, "rare", "VERB", "middle", False),
        (1, 3, 1, 0, "common", "VERB", "middle", False),
        (1, 4, 1, 1, "rare", "VERB", "end", False),
        (1, 5, 1, 1, "common", "VERB", "end", False),
    ]
    given(con, "position_context", columns, *contexts)


def test_position_context(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_contexts(con)
    given_positions(con, [2, 3], window=1)
    given(con, "dim_document", "run_key, document_id, document_hash, domain, tokens", (1, 7, "h", "news", 9))
    con.execute("update store.dim_position set document_id = 7 where position_id = 0")
    assert rows(con, "from position_context order by position_id") == [
        ("run", 0, 0, 0, "rare", 2, "news", "NOUN", "end", True, None, 7),
        ("run", 1, 0, 0, "common", 3, None, "NOUN", "end", True, None, None),
    ]


def test_matched_positions_are_a_preset_and_their_pairs_the_cells(con: duckdb.DuckDBPyConnection) -> None:
    given_run(con)
    given_tokens(con)
    given_positions(con, [2, 3, 1, 3, 1, 3], window=1)
    given_contexts(con)
    publish(con, "position_group", run_key=1)
    assert rows(con, "select token_group, position_id from position_group where preset = 'nc-matched' order by 2") == [
        ("rare", 0),
        ("common", 1),
        ("rare", 2),
        ("common", 3),
        ("rare", 4),
        ("common", 5),
    ]
    facts = [(1, 0, t, 0.0, 2.0**t) for t in range(6)]
    given(con, "fct_effect", "run_key, neuron, position_id, activation, delta_loss", *facts)
    publish(con, "agg_effect", run_key=1, first_neuron=0, last_neuron=0)
    sums = "select window_id, matched_group, positions, abs_delta_sum from agg_effect order by all"
    assert rows(con, sums) == [
        (0, "common", 1, 2.0),
        (0, "rare", 1, 1.0),
        (1, "common", 2, 40.0),
        (1, "rare", 2, 20.0),
    ]


def test_matched_tokens_have_no_percentile_to_move() -> None:
    cells = pl.DataFrame({"matched_group": ["rare", "common", None], "positions": [1, 2, 3]})
    assert cells.filter(in_group("nc-matched", "common"))["positions"].to_list() == [2]
    with pytest.raises(UserError, match="nc-matched has no percentile"):
        in_group("nc-matched", "rare", 15)
