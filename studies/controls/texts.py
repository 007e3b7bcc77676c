"""How far the two texts of the controls differ, and what that does to a planted curve."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.curve.effect_cells import RARE, WindowSums, window_sums
from rare_tokens.analyses.curve.power_law import power_law
from rare_tokens.analyses.result_table import FloatArray
from studies.controls.pipeline import read
from studies.controls.planting import plant_order
from studies.synthetic.heads import Head

Row = dict[str, Any]
BLOCKS = (1, 4, 8)


def rare_sums(warehouse: Path, run_id: str, preset: str) -> WindowSums:
    """Effects of a run on rare words, summed by window."""
    found = window_sums(read(warehouse, "agg_effect", run=run_id), preset, RARE)
    assert isinstance(found, WindowSums), found
    return found


def blocks(sums: WindowSums, size: int) -> WindowSums:
    """The same with `size` neighbouring windows as one; those left over are left out."""
    whole = sums.windows // size * size
    positions = sums.positions[:whole].reshape(-1, size).sum(axis=1)
    totals = sums.sums[:, :whole].reshape(len(sums.neurons), -1, size).sum(axis=2)
    return replace(sums, positions=positions, sums=totals)


def text_difference(first: WindowSums, second: WindowSums) -> Row:
    """How far the same neurons lie apart on two texts, beside what their windows say of the error.

    `slope` is that of the difference of log influence on log influence; `error` is the median over neurons of the
    relative error of influence, where neighbouring windows are one unit.
    """
    lines = [power_law(-np.sort(-np.log(one.influence()))) for one in (first, second)]
    moved = np.log(second.influence()) - np.log(first.influence())
    errors = [[blocks(one, size).log_error() for one in (first, second)] for size in BLOCKS]
    return {
        "kappa": [None if line.kappa is None else round(line.kappa, 4) for line in lines],
        "moved": round(float(moved.std()), 4),
        "slope": round(float(np.polyfit(np.log(first.influence()), moved, 1)[0]), 4),
        "error": {
            str(size): round(float(np.median([one for one in of if one is not None])), 4)
            for size, of in zip(BLOCKS, errors, strict=True)
        },
    }


def planted_elsewhere(own: FloatArray, truth: Head, moved: float, slope: float, draws: int = 100) -> Row:
    """The line that is read on another text, if neurons move independently but for a slope between the two.

    Args:
        own: log influence of the unedited neurons, shape (N,).
        truth: what is planted.
        moved: standard deviation of the difference of log influence between the texts; half of its variance each.
        slope: of that difference on a neuron's own log influence.
        draws: how often to draw neurons, errors and who is planted.
    """
    steps, slopes = [], []
    tilt = slope * (own - own.mean())
    independent = np.sqrt((moved**2 - np.var(tilt)) / 2)
    for seed in range(draws):
        rng = np.random.default_rng([seed, 153])
        planting, finding = independent * rng.standard_normal((2, len(own)))
        first = rng.choice(len(own), truth.raised[0], replace=False)
        wanted = np.empty(len(own))
        wanted[plant_order(np.exp(own + planting), first)] = truth.layer(len(own), rng, scattered=False)
        line = power_law(-np.sort(-(wanted - planting + finding + tilt)))
        steps.append(line.step)
        slopes.append(line.kappa)
    found = pl.DataFrame({"step": steps, "kappa": slopes}, schema={"step": pl.Float64, "kappa": pl.Float64})
    summary: Row = {"moved": moved, "slope": slope, "draws": draws}
    for name in found.columns:
        values = found[name].drop_nulls().to_numpy()
        summary |= {name: round(float(np.median(values)), 3), f"{name}_sd": round(float(np.std(values)), 3)}
    return summary
