"""Tests of significance and intervals, one module for every analysis (docs/definitions.md, "Tests of significance").

scipy computes; this module decides which test answers which question. The primary p compares a group's statistic with
the same statistic of random groups of the same size. Mann–Whitney, Bonferroni, Holm and Cohen's d are included because
the papers print them, and each row says whether its two samples are exchangeable: the pairs of one group are not,
because they share neurons.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import stats

from rare_tokens.analyses.result_table import FloatArray, IntArray, joined, table

Alternative = Literal["two-sided", "greater", "less"]
CONTROL = "control"  # group_name of every random group
LAYER = "layer"  # group_name of all neurons in the layer, which has nothing to be compared with
OF_A_RUN = ": groups of one preset and positions of one run"  # ends the name of a family within a run

GROUP_TEST: dict[str, Any] = {
    "analysis": pl.String,  # the relation that holds the value
    "statistic": pl.String,  # its column
    "setting": pl.String,  # the values of its other keys: `comparison=within, threshold=0.5`
    "group_name": pl.String,
    "other_group": pl.String,  # if the value is between two groups
    "k": pl.Int64,
    "pool": pl.String,  # where the random groups were drawn: `disjoint` or `layer`
    "test": pl.String,  # `control` (primary) or `mann_whitney` (as the papers print it)
    "sample": pl.String,
    "sample_size": pl.Int64,
    "reference": pl.String,
    "reference_size": pl.Int64,
    "exchangeable": pl.Boolean,  # may the two samples be shuffled into each other under the null?
    "alternative": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,  # 95 % bootstrap interval of the value, over windows
    "high": pl.Float64,
    "reference_mean": pl.Float64,
    "reference_sd": pl.Float64,
    "test_statistic": pl.Float64,  # Mann–Whitney's U; in a control test the value itself
    "cohens_d": pl.Float64,
    "p_value": pl.Float64,
    "family": pl.String,  # the tests over which p is corrected, in words
    "tests": pl.Int64,  # in that family
    "p_bonferroni": pl.Float64,
    "p_holm": pl.Float64,
    "reason": pl.String,
}


def control_p(value: float, controls: FloatArray, alternative: Alternative = "two-sided") -> float:
    """Share of random groups at least as extreme: (1 + #{as extreme}) / (1 + C).

    Two-sided, *extreme* is the distance from the median of all C + 1 values, the tested one among them, so that the
    tested group and its controls are treated alike and the p is exact under exchangeability. Ties count as extreme.

    Args:
        value: the tested group's statistic.
        controls: the same statistic of C random groups, shape (C,).
        alternative: the direction in which a value is extreme.
    """
    everything = np.append(controls, value)
    if alternative == "two-sided":
        distance = np.abs(everything - np.median(everything))
    else:
        distance = everything if alternative == "greater" else -everything
    rounding = 1e-12 * max(1e-300, float(np.max(np.abs(everything))))  # equal values from differently batched products
    return float(np.mean(distance >= distance[-1] - rounding))


def controls_needed(level: float, tests: int = 1) -> int:
    """The fewest random groups with which p can reach `level` after Bonferroni over `tests` tests."""
    return int(np.ceil(tests / level - 1e-9)) - 1


def cohens_d(sample: FloatArray, reference: FloatArray) -> float | None:
    """Difference of means in standard deviations; None where there is no spread.

    For one value against its controls, the controls' standard deviation (ddof 1); for two samples, the pooled one.
    """
    parts = [part for part in (sample, reference) if len(part) > 1]
    freedom = sum(len(part) - 1 for part in parts)
    if freedom == 0:
        return None
    spread = np.sqrt(sum((len(part) - 1) * np.var(part, ddof=1) for part in parts) / freedom)
    return float((np.mean(sample) - np.mean(reference)) / spread) if spread > 0 else None


def control_test(
    value: float | None, controls: Sequence[float | None], alternative: Alternative = "two-sided", level: float = 0.05
) -> dict[str, Any]:
    """Columns of `GROUP_TEST` that compare one group's statistic with its random groups' (the primary test).

    p is NULL, with a reason, if the value is undefined, if it is defined in too few random groups for the test to
    reach `level`, or if all values are equal.
    """
    known = np.array([control for control in controls if control is not None], dtype=float)
    row: dict[str, Any] = {
        "test": "control",
        "reference": f"{len(known)} random groups",
        "reference_size": len(known),
        "sample_size": 1,
        "exchangeable": True,
        "alternative": alternative,
        "value": value,
        "test_statistic": value,
        "reference_mean": float(known.mean()) if len(known) else None,
        "reference_sd": float(known.std(ddof=1)) if len(known) > 1 else None,
    }
    if value is None:
        return row  # the reason is its relation's
    if len(known) < controls_needed(level):
        reason = f"{len(known)} random groups have a value; a p of {level:g} needs {controls_needed(level)}"
        return row | {"reason": reason}
    if np.ptp(np.append(known, value)) == 0:
        return row | {"reason": "the group and all random groups have the same value"}
    return row | {"p_value": control_p(value, known, alternative), "cohens_d": cohens_d(np.array([value]), known)}


def mann_whitney(
    sample: FloatArray,
    reference: FloatArray,
    names: tuple[str, str],
    *,
    exchangeable: bool,
    alternative: Alternative = "two-sided",
) -> dict[str, Any]:
    """Columns of `GROUP_TEST` of a Mann–Whitney U test (Wilcoxon's rank sum) of two named samples (ES §4.2, NC A.4).

    Args:
        sample: values of the tested group, shape (m,); m ≥ 2, else there is no test (one value is not a sample).
        reference: values that they are compared with, shape (n,); n ≥ 2.
        names: what the two samples are, in words.
        exchangeable: whether they may be shuffled into each other under the null. Pairs within a group may not (they
            share neurons): p is then what a paper prints, not an error rate.
        alternative: direction of the sample against the reference.
    """
    row: dict[str, Any] = {
        "test": "mann_whitney",
        "sample": names[0],
        "reference": names[1],
        "sample_size": len(sample),
        "reference_size": len(reference),
        "exchangeable": exchangeable,
        "alternative": alternative,
    }
    if min(len(sample), len(reference)) < 2:
        return row | {"reason": "one value against another is no test"}
    row |= {
        "value": float(np.mean(sample)),
        "reference_mean": float(np.mean(reference)),
        "reference_sd": float(np.std(reference, ddof=1)),
        "cohens_d": cohens_d(sample, reference),
    }
    if np.ptp(np.concatenate([sample, reference])) == 0:
        return row | {"reason": "all values of both samples are the same"}
    result = stats.mannwhitneyu(sample, reference, alternative=alternative)
    return row | {"test_statistic": float(result.statistic), "p_value": float(result.pvalue)}


def group_tests(
    frame: pl.DataFrame,
    statistic: str,
    *,
    analysis: str,
    keys: Sequence[str] = (),
    interval: tuple[str, str] | None = ("low", "high"),
    alternative: Alternative = "two-sided",
    level: float = 0.05,
) -> pl.DataFrame:
    """The primary test of every tested group of a result relation: relation `group_test`, one row per value.

    The controls of a value are the rows of the same k (and `other_k`), pool and keys whose `group_name` is `control`.

    Args:
        frame: a result relation, one row per `group_name` × `k` × `draw` (× keys), with the column `statistic`, a
            `reason`, and perhaps `other_group`.
        statistic: the column tested.
        analysis: the relation's name.
        keys: the columns that tell its rows apart besides group and draw (`comparison`, `rule` …).
        interval: the columns of the statistic's interval, if the relation has them.
        alternative: the direction in which a value is extreme.
        level: the level that the test, corrected, must be able to reach.

    Returns:
        `GROUP_TEST`, corrected over the groups of each setting (`corrected`).
    """
    rows = []
    sizes = [column for column in ("k", "other_k", "pool") if column in frame.columns]
    for part in frame.partition_by([*sizes, *keys], maintain_order=True):
        controls = part.filter(pl.col("group_name") == CONTROL)[statistic].to_list()
        for tested in part.filter(~pl.col("group_name").is_in([CONTROL, LAYER])).iter_rows(named=True):
            row = control_test(tested[statistic], controls, alternative, level)
            rows.append(
                {
                    "analysis": analysis,
                    "statistic": statistic,
                    "setting": ", ".join(f"{key}={tested[key]}" for key in keys if tested[key] is not None),
                    "sample": tested["group_name"],
                    **{name: tested.get(name) for name in ("group_name", "other_group", "k", "pool")},
                    **{name: tested.get(column) for name, column in zip(("low", "high"), interval or (), strict=False)},
                    **row,
                    "reason": joined(tested["reason"], row.get("reason")),
                }
            )
    return corrected(table(rows, GROUP_TEST), level=level)


def corrected(tests: pl.DataFrame, level: float = 0.05) -> pl.DataFrame:
    """`GROUP_TEST` with `family`, `tests`, `p_bonferroni` and `p_holm` filled within each family.

    A family is the tests of one kind (`test`) of one statistic and setting: over the groups of one preset, at the
    positions of one run. Macro `group_test_across` forms families over several runs and does the same in SQL.

    Only defined p count. A control test whose smallest possible p cannot reach `level` after Bonferroni over its
    family gets no corrected p, and the reason says how many random groups are needed.

    Args:
        tests: `GROUP_TEST` of one run, preset and positions.
        level: the level that a corrected p must be able to reach.
    """
    p, size, over = pl.col("p_value"), pl.col("tests"), ["analysis", "statistic", "setting", "test"]
    needed = (size / level - 1e-9).ceil() - 1  # `controls_needed`
    short = (pl.col("test") == "control") & p.is_not_null() & (pl.col("reference_size") < needed)
    said = pl.format(
        f"{{}} random groups cannot reach {level:g} over {{}} tests: {{}} are needed",
        "reference_size", size, needed.cast(pl.Int64),
    )  # fmt: skip
    named = pl.format("{} tests of {}.{}", "test", "analysis", "statistic")
    setting = pl.when(pl.col("setting") != "").then(pl.col("setting"))
    return (
        tests.drop("p_bonferroni", "p_holm")
        .with_columns(
            family=pl.concat_str(pl.concat_str([named, setting], separator=", ", ignore_nulls=True), pl.lit(OF_A_RUN)),
            tests=p.count().over(over).cast(pl.Int64),
        )
        .with_columns(
            p_bonferroni=pl.when(~short).then((p * size).clip(upper_bound=1.0)),
            p_holm=pl.when(~short).then(p.map_batches(_holm, return_dtype=pl.Float64).over(over)),
            reason=pl.when(short)
            .then(pl.concat_str(["reason", said], separator="; ", ignore_nulls=True))
            .otherwise("reason"),
        )
        .select(list(GROUP_TEST))
    )


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over the defined p-values, in their order; None for the others.

    As `statsmodels.stats.multitest.multipletests`, which takes 0.15 s for a family of three.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for step, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - step)))
        corrected[place] = largest
    return corrected


def _holm(family: pl.Series) -> pl.Series:
    return pl.Series(holm(family.to_list()), dtype=pl.Float64)


def window_interval(
    statistic: Callable[[FloatArray], FloatArray],
    windows: int,
    *,
    method: Literal["percentile", "BCa", "basic"] = "BCa",
    resamples: int = 1_000,
    seed: int = 0,
    level: float = 0.95,
    size: int = 1,
) -> tuple[float, float] | None:
    """Bootstrap interval of a statistic over *windows*: tokens of one window are not independent.

    Args:
        statistic: takes how often each window counts, shape (batch, windows), and returns each sample's statistic,
            shape (batch,). Its value on the data in hand is `statistic(ones)`.
        windows: number of windows.
        method: `percentile`, `BCa` (bias-corrected and accelerated; jackknife over windows), or `basic` (reflected:
            for a statistic biased in finite samples, since resampling biases it once more).
        resamples: number of bootstrap samples.
        seed: of the resampling.
        level: coverage of the interval.
        size: numbers that the statistic holds in memory per sample; it sets the size of batches.

    Returns:
        (low, high), or None where the bootstrap says nothing: there are fewer than two windows, or the statistic is
        undefined or does not move when windows are resampled.
    """
    if windows < 2:
        return None

    def of_indices(indices: IntArray, axis: int = -1) -> FloatArray:
        assert axis in (-1, indices.ndim - 1)
        flat = indices.reshape(-1, indices.shape[-1])
        counts = np.zeros((len(flat), windows))
        np.add.at(counts, (np.arange(len(flat))[:, None], flat), 1.0)
        return statistic(counts).reshape(indices.shape[:-1])

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):  # None below stands for both
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (np.arange(windows),), of_indices, vectorized=True, axis=-1, n_resamples=resamples,
            batch=max(1, min(200, 10_000_000 // size)),
            confidence_level=level, method=method, rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
    if not (np.isfinite(interval.low) and np.isfinite(interval.high)):
        return None
    return float(interval.low), float(interval.high)


def jackknife_interval(
    statistic: Callable[[FloatArray], FloatArray], windows: int, *, level: float = 0.95
) -> tuple[float, float] | None:
    """Interval about a statistic by leaving one window out at a time, Student's t with W − 1 degrees of freedom.

    It says where samples of as many windows put the statistic, so it suits a statistic that the bootstrap moves to one
    side because a resample repeats windows.

    Args:
        statistic: as in `window_interval`.
        windows: number of windows, W.
        level: coverage.

    Returns:
        (low, high), or None with fewer than two windows or a statistic that is undefined or does not move.
    """
    if windows < 2:
        return None
    value = float(statistic(np.ones((1, windows)))[0])
    without = statistic(1.0 - np.eye(windows))
    spread = np.sqrt((windows - 1) / windows * np.sum((without - without.mean()) ** 2))
    if not (np.isfinite(value) and np.isfinite(spread) and spread > 0):
        return None
    reach = float(stats.t.ppf((1 + level) / 2, windows - 1) * spread)
    return value - reach, value + reach


def permutation_p(
    sample: FloatArray,
    reference: FloatArray,
    *,
    paired: bool = False,
    alternative: Alternative = "two-sided",
    resamples: int = 9_999,
    seed: int = 0,
) -> float | None:
    """Permutation test of equal means (scipy); exact where all permutations are fewer than `resamples`.

    Args:
        sample: values, one per exchangeable unit (a window, a head), shape (m,).
        reference: the other side's values, shape (n,); with `paired` of the same units, n = m.
        paired: swap the two values of a unit instead of shuffling units between the sides.
        alternative: direction of the sample's mean against the reference's.
        resamples: random permutations, if more than so many are possible.
        seed: of the random permutations.

    Returns:
        p; None with fewer than two units on a side or if all values are equal.
    """
    if min(len(sample), len(reference)) < 2 or np.ptp(np.concatenate([sample, reference])) == 0:
        return None

    def difference(x: FloatArray, y: FloatArray, axis: int = -1) -> FloatArray:
        return np.asarray(np.mean(x, axis=axis) - np.mean(y, axis=axis))

    result = stats.permutation_test(
        (sample, reference), difference, vectorized=True, permutation_type="samples" if paired else "independent",
        alternative=alternative, n_resamples=resamples, batch=1_000, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(result.pvalue)
