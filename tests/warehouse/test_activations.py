"""Activations of a layer as analyses read them: in order, whatever order threads hand the facts on in."""

import numpy as np
import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.parts import parts_root
from rare_tokens.warehouse.publish.results import _fill
from studies.synthetic.runs import make_parts

RUN = "run-main-aaaa"


def facts(neurons: int, positions: list[int]) -> pl.DataFrame:
    rows = [(neuron, position) for neuron in range(neurons) for position in positions]
    kinds = {"neuron": pl.UInt16, "position_id": pl.UInt32}
    frame = pl.DataFrame(rows, schema=kinds, orient="row")
    return frame.with_columns(activation=(pl.col("neuron") * 1000.0 + pl.col("position_id")).cast(pl.Float32))


@pytest.mark.parametrize("seed", range(30))
def test_stretches_are_put_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positions = sorted(rng.choice(50, size=7, replace=False).tolist())
    ordered = facts(9, positions)
    cuts = sorted(rng.choice(np.arange(1, len(ordered)), size=int(rng.integers(0, 12)), replace=False).tolist())
    parts = [ordered[first:last] for first, last in zip([0, *cuts], [*cuts, len(ordered)], strict=True)]
    mixed = pl.concat([parts[place] for place in rng.permutation(len(parts))])
    expected = ordered["activation"].to_numpy().reshape(9, 7)
    places = np.zeros(50, dtype=np.uint32)
    places[positions] = np.arange(7)
    for block in (mixed, ordered, ordered.sample(fraction=1, shuffle=True, seed=seed)):
        values = np.full((9, 7), np.nan, dtype=np.float32)
        _fill(values, block, places)
        np.testing.assert_array_equal(values, expected)


def test_they_are_those_of_the_facts_for_all_positions_and_for_a_group(tmp_path) -> None:
    path = tmp_path / "w.duckdb"
    folder = parts_root(path) / RUN
    make_parts(folder, positions=512, neurons=40, run_id=RUN)
    warehouse.publish(path, folder, line=power_law_line, quiet=True)
    for group in ({}, {"preset": "es", "token_group": "rare"}):
        with warehouse.open(path) as opened:
            of_group = opened.position_group(run=RUN, **group) if group else opened.dim_position(run=RUN)
            wanted = of_group["position_id"].unique().sort()
            found = opened.fct_effect(run=RUN).filter(pl.col("position_id").is_in(wanted.implode()))
        expected = found.sort("position_id", "neuron")["activation"].to_numpy().reshape(len(wanted), 40)
        for by_position in (True, False):
            values, windows = warehouse.activations(path, RUN, by_position=by_position, **group)
            np.testing.assert_array_equal(values, expected)
            assert len(windows) == len(wanted)
