"""The published numbers are all there, and are the ones the papers print."""

import polars as pl
import pytest

from rare_tokens.analyses.reference import SCHEMA, published_values

MODELS = {"Pythia-70M", "Pythia-410M", "GPT2-Small", "GPT2-Large", "GPT2-XL"}


def one(**key: str) -> dict[str, object]:
    """The one row with these values."""
    frame = published_values().filter(*(pl.col(name) == value for name, value in key.items()))
    assert frame.height == 1, (key, frame)
    return frame.row(0, named=True)


@pytest.mark.parametrize(
    ("table", "quantity", "groups"),
    [
        ("table 1", "activation_correlation", 7),
        ("table 2", "effective_dimension_percent", 3),
        ("table 3", "weight_cosine_similarity", 7),
        ("table 4", "hill_alpha", 3),
    ],
)
def test_es_tables_are_complete(table: str, quantity: str, groups: int) -> None:
    rows = published_values().filter(pl.col("paper") == "ES", pl.col("place") == table)
    measured = rows.filter(pl.col("quantity") == quantity)
    assert set(rows["model"]) == MODELS
    assert measured.group_by("model").len()["len"].to_list() == [groups] * 5
    assert measured["group_name"].n_unique() == groups
    assert rows.height == 5 * (groups + 1), "and the size of each model, nothing else"


def test_nc_tables_are_complete() -> None:
    values = published_values().filter(pl.col("paper") == "NC")
    counts = dict(values.filter(pl.col("place").str.starts_with("table")).group_by("place").len().iter_rows())
    assert counts == {"table 1": 6 * 2 + 4, "table 2": 8 * 3}, "no p of the controls against themselves"
    assert values.filter(pl.col("place") == "table 2", pl.col("relation") == "<").height == 2


@pytest.mark.parametrize(
    ("key", "value", "plus_minus"),
    [
        ({"paper": "ES", "place": "table 1", "model": "GPT2-XL", "group_name": "suppress_random"}, -0.0004, None),
        ({"paper": "ES", "place": "table 3", "model": "GPT2-Small", "group_name": "boost_random"}, -0.1, None),
        ({"paper": "ES", "place": "table 4", "model": "GPT2-Small", "group_name": "suppress"}, 1.57, None),
        ({"paper": "ES", "place": "§4.2", "group_name": "boost", "quantity": "activation_correlation"}, 0.036, 0.008),
        ({"paper": "ES", "quantity": "plateau_percent"}, 1.7, None),
        ({"paper": "ES", "quantity": "log_rank_decay_start"}, 5.0, None),
        ({"paper": "NC", "quantity": "kappa"}, 1.84, 0.12),
        ({"paper": "NC", "quantity": "r2"}, 0.94, None),
        ({"paper": "NC", "quantity": "share_within_0.1_percent"}, 95.0, None),
        ({"paper": "NC", "quantity": "spectral_modularity", "group_name": "random"}, 0.07, 0.06),
        ({"paper": "NC", "quantity": "spectral_modularity_p_value"}, 0.41, None),
        ({"paper": "NC", "quantity": "attention_gini", "group_name": "rare"}, 0.34, 0.05),
        ({"paper": "NC", "quantity": "attention_gini", "group_name": "common"}, 0.32, 0.04),
        ({"paper": "DS", "quantity": "plateau_percent"}, 1.0, None),
        ({"paper": "DS", "quantity": "attention_correlation"}, 0.89, 0.07),
    ],
)
def test_numbers_as_printed(key: dict[str, str], value: float, plus_minus: float | None) -> None:
    row = one(**key)
    assert row["value"] == value
    assert row["plus_minus"] == plus_minus


def test_ranges_run_upwards_and_the_ranges_of_the_text_are_those_of_its_table() -> None:
    values = published_values()
    assert values.filter(pl.col("value_to") <= pl.col("value")).is_empty()
    assert one(paper="NC", quantity="plateau_neurons")["value_to"] == 20.0
    table = values.filter(pl.col("place") == "table 1", pl.col("quantity") == "activation_correlation")
    text = values.filter(pl.col("place") == "A.1", pl.col("quantity") == "activation_correlation")
    for row in text.iter_rows(named=True):
        group = table.filter(pl.col("group_name") == row["group_name"])["value"]
        assert (group.min(), group.max()) == (row["value"], row["value_to"])


def test_schema_keys_and_no_nan() -> None:
    values = published_values()
    assert dict(values.schema) == SCHEMA
    assert set(values["paper"]) == {"ES", "DS", "NC"}
    assert set(values["kind"]) == {"result", "setting", "claim"}
    assert not values.select(pl.selectors.float().is_nan().any()).row(0).count(True)
    assert values.select("paper", "place", "model", "group_name", "quantity").is_duplicated().sum() == 0
    assert (
        values.select(pl.col("paper", "place", "quantity", "relation", "value", "kind").null_count()).sum_horizontal()[
            0
        ]
        == 0
    )
