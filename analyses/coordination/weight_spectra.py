"""Eigenvalue spectra of groups' weights and their tails' exponents (ES §2.2, 3.4, 4.3, table 4).

Ξ_G = W_G W_Gᵀ / d (ES eq. 10) is taken for each group and for the whole layer, whose Wᵀ W of eq. 2 has the same
non-zero eigenvalues times d, so the same exponents. Zero eigenvalues (duplicated neurons, a group larger than d) are
left out. Columns `equal_aspect_…` hold α of sub-matrices of one shape (`equal_aspect`), which can be compared between
groups and layers of different shapes.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy import stats

from rare_tokens.analyses.analysis import Tested
from rare_tokens.analyses.coordination import equal_aspect
from rare_tokens.analyses.coordination.neuron_groups import Stack, stacks, used_neurons
from rare_tokens.analyses.coordination.of_groups import WEIGHTS, At, of_groups
from rare_tokens.analyses.coordination.similarity import CHUNK
from rare_tokens.analyses.result_table import FloatArray, IntArray, joined, table
from rare_tokens.analyses.statistics import CONTROL, LAYER

Rule = Literal["fix_finger", "mid", "tenth"]
RULES: tuple[Rule, ...] = ("fix_finger", "mid", "tenth")
SAMPLES = 4  # of sub-matrices of equal aspect: α is their mean
BINS = 100  # in the log-binned density, as in AlphaPruning and WeightWatcher

_KEYS: dict[str, Any] = {
    "matrix": pl.String,  # `w_out` or `w_in`
    "standardised": pl.Boolean,  # whether each row is first scaled to mean 0 and variance 1
    "group_name": pl.String,  # `layer`: all neurons
    "k": pl.Int64,  # neurons
    "draw": pl.Int64,
}
WEIGHT_SPECTRUM: dict[str, Any] = _KEYS | {
    "pool": pl.String,  # of the random groups: `disjoint` or `layer`
    "rule": pl.String,  # how tail_size is chosen
    "eigenvalues": pl.Int64,  # that are not zero
    "largest_eigenvalue": pl.Float64,
    "alpha": pl.Float64,  # Hill's estimate (eq. 11)
    "alpha_low": pl.Float64,  # 95 % interval if the tail were independent Pareto draws; NULL for controls
    "alpha_high": pl.Float64,
    "density_exponent": pl.Float64,  # α + 1, which WeightWatcher and powerlaw print as alpha
    "tail_size": pl.Int64,  # k of eq. 11
    "lambda_min": pl.Float64,
    "distance": pl.Float64,  # D, Kolmogorov–Smirnov, of the tail from the power law
    "rows": pl.Int64,  # of the matrix: its neurons
    "columns": pl.Int64,  # of the matrix: d
    "equal_aspect_alpha": pl.Float64,  # Hill's estimate on pooled sub-matrices of one shape, mean over samples of them
    "equal_aspect_sd": pl.Float64,  # its standard deviation over the samples: what the choice of sub-matrices makes
    "aspect": pl.Float64,  # rows / columns of the sub-matrices
    "subsamples": pl.Int64,  # sub-matrices in all samples
    "reason": pl.String,
}
SPECTRAL_DENSITY: dict[str, Any] = _KEYS | {
    "bin": pl.Int64,  # from 1
    "log10_left": pl.Float64,
    "log10_right": pl.Float64,
    "eigenvalues": pl.Int64,
    "density": pl.Float64,  # share of the eigenvalues per decade
    "reason": pl.String,
}


def weight_spectrum(
    weights: dict[str, FloatArray],
    groups: pl.DataFrame,
    *,
    standardised: bool = False,
    rules: Sequence[Rule] = RULES,
    seed: int = 0,
    equal_aspect_samples: int = SAMPLES,
) -> pl.DataFrame:
    """Hill exponents of the spectra of groups, controls and the whole layer (ES table 4): relation `weight_spectrum`.

    Args:
        weights: name of a matrix (`w_out`, `w_in`) and its rows, one per neuron, N × d.
        groups: `GROUP`, tested groups and controls.
        standardised: scale each row to mean 0 and variance 1 first.
        rules: how many eigenvalues make the tail (`tail_fit`).
        seed: for the intervals of fix-finger, and the choice of sub-matrices.
        equal_aspect_samples: samples of sub-matrices; 0: none, and their columns are NULL.

    Returns:
        `WEIGHT_SPECTRUM`, one row per matrix, group, draw and rule. NULL with the reason if there are fewer
        eigenvalues than the rule needs, if those in the tail are all equal, or if the matrix has no sub-matrix of the
        common shape.
    """
    rows: list[dict[str, Any]] = []
    found = stacks(groups)
    equal = _equal_aspect(weights, found, standardised, rules, equal_aspect_samples, seed)
    for (keys, reason, spectrum), of_rules in zip(_spectra(weights, found, standardised), equal, strict=True):
        shape = {} if reason else {"rows": keys["k"], "columns": weights[keys["matrix"]].shape[1]}
        for rule in rules:
            fit = {"reason": reason} if reason else tail_fit(spectrum, rule)
            if "alpha" in fit and keys["group_name"] != CONTROL:
                fit |= alpha_interval(spectrum, rule, fit, seed)
            cut = of_rules.get(rule, {})
            why = joined(fit.get("reason"), cut.get("reason"))
            rows.append({**keys, "rule": rule, **fit, **shape, **cut, "reason": why})
    return table(rows, WEIGHT_SPECTRUM)


def spectral_density(
    weights: dict[str, FloatArray], groups: pl.DataFrame, *, standardised: bool = False, bins: int = BINS
) -> pl.DataFrame:
    """Log-binned density of the spectra of the tested groups and the whole layer (ES eq. 3): `spectral_density`.

    Args:
        weights: name of a matrix and its rows, N × d.
        groups: `GROUP`; its controls are left out.
        standardised: scale each row to mean 0 and variance 1 first.
        bins: number of bins, of equal width in log λ, from the smallest to the largest eigenvalue.

    Returns:
        `SPECTRAL_DENSITY`, one row per matrix, group and bin; one with the reason if no eigenvalue is above zero.
    """
    tested = [stack for stack in stacks(groups) if stack.tested]
    rows: list[dict[str, Any]] = []
    for keys, reason, spectrum in _spectra(weights, tested, standardised):
        if reason or len(spectrum) == 0:
            rows.append({**keys, "reason": reason or "no eigenvalue is above zero"})
            continue
        counts, edges = np.histogram(np.log10(spectrum), bins=bins)
        for i, count in enumerate(counts.tolist()):
            left, right = float(edges[i]), float(edges[i + 1])
            row = {"bin": i + 1, "log10_left": left, "log10_right": right, "eigenvalues": count}
            rows.append({**keys, **row, "density": count / len(spectrum) / (right - left)})
    return table(rows, SPECTRAL_DENSITY)


def hill(spectrum: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Hill's α (ES eq. 11) for every k, and the sum of logarithms that it is the inverse mean of.

    Args:
        spectrum: positive, descending, shape (n,).

    Returns:
        α_k and Σ_{i≤k} ln(λ_i/λ_k) for k = 1 … n, each (n,); α is infinite where the k largest are equal.
    """
    logs = np.log(spectrum)
    k = np.arange(1, len(spectrum) + 1)
    sums = np.maximum(np.cumsum(logs) - k * logs, 0.0)
    sums[spectrum == spectrum[:1]] = 0.0  # equal values: rounding does not make a tail
    return np.divide(k, sums, out=np.full(len(k), np.inf), where=sums > 0), sums


def tail_distances(spectrum: FloatArray, tails: IntArray, alphas: FloatArray) -> FloatArray:
    """Kolmogorov–Smirnov distance D of the largest values of a descending spectrum from the power law.

    Measured as in WeightWatcher and powerlaw: the empirical distribution is taken just below each value.

    Args:
        spectrum: positive, descending, shape (n,).
        tails: how many of the largest values are in each tail, shape (c,).
        alphas: each tail's exponent, shape (c,).

    Returns:
        D of each tail, shape (c,).
    """
    logs, tails = np.log(spectrum), tails[:, None]
    above = tails - 1 - np.arange(len(logs))  # values of the tail below each value
    with np.errstate(over="ignore"):  # overflows only beyond the tail, where nothing is measured
        fitted = 1 - np.exp(-alphas[:, None] * (logs - logs[tails - 1]))
    return np.where(above >= 0, np.abs(fitted - above / tails), 0.0).max(axis=1)


def tail_fit(spectrum: FloatArray, rule: Rule) -> dict[str, Any]:
    """Columns of `WEIGHT_SPECTRUM` for one spectrum and one rule for the number of eigenvalues in the tail.

    * `mid`: k = ⌊n/2⌋. AlphaPruning's code takes ⌈n/2⌉.
    * `tenth`: k = ⌊n/10⌋.
    * `fix_finger`: λ_min at the peak of the log-binned density (left edge of the first fullest bin), refined to the
      eigenvalue with the smallest D between 0.95 and 1.5 times that. AlphaPruning's and WeightWatcher's code
      compare eigenvalues with log10(0.95 · peak) at the lower end, which lets in smaller ones when the peak is < 10;
      powerlaw, which WeightWatcher calls, also leaves out the largest candidate.

    Args:
        spectrum: positive eigenvalues, descending, shape (n,).
        rule: one of `RULES`.
    """
    count = len(spectrum)
    row: dict[str, Any] = {"eigenvalues": count, "largest_eigenvalue": float(spectrum[0]) if count else None}
    needed = {"fix_finger": 2, "mid": 4, "tenth": 20}[rule]
    if count < needed:
        return row | {"reason": f"{count} eigenvalues are above zero; rule {rule} needs at least {needed}"}
    alphas, sums = hill(spectrum)
    if rule == "fix_finger":
        tail = _fix_finger(spectrum, alphas)
        if tail is None:
            return row | {"reason": "no eigenvalue but the largest is between 0.95 and 1.5 times the density's peak"}
    else:
        tail = count // (2 if rule == "mid" else 10)
    row |= {"tail_size": tail, "lambda_min": float(spectrum[tail - 1])}
    if sums[tail - 1] == 0:
        return row | {"reason": f"the {tail} largest eigenvalues are equal"}
    alpha = float(alphas[tail - 1])
    return row | {
        "alpha": alpha,
        "density_exponent": alpha + 1,
        "distance": float(tail_distances(spectrum, np.array([tail]), alphas[[tail - 1]])[0]),
    }


def alpha_interval(
    spectrum: FloatArray, rule: Rule, fit: dict[str, Any], seed: int = 0, resamples: int = 200
) -> dict[str, Any]:
    """Columns `alpha_low` and `alpha_high`: a 95 % interval as if the tail were independent Pareto draws.

    With k fixed (`mid`, `tenth`) it is exact: given λ_k, 2α Σ ln(λ_i/λ_k) is χ² with 2(k − 1) degrees of freedom.
    fix-finger searches for its k, so that interval would cover only 88 %: a parametric bootstrap repeats the search on
    Pareto samples as large as the spectrum from 0.95 of its peak on (at most 200 draws, the spread scaled by √size).
    Eigenvalues repel one another, so for real spectra it is only a guide.

    Args:
        spectrum: positive, descending.
        rule: the rule of the fit.
        fit: what `tail_fit` found.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    tail, alpha = fit["tail_size"], fit["alpha"]
    if rule != "fix_finger":
        sums = hill(spectrum)[1][tail - 1]
        low, high = stats.chi2.ppf([0.025, 0.975], 2 * (tail - 1)) / (2 * sums)
        return {"alpha_low": float(low), "alpha_high": float(high)}
    size = int(np.sum(spectrum >= 0.95 * _peak(spectrum)))
    drawn = min(size, 200)
    rng = np.random.default_rng(seed)
    logs = []
    for sample in np.sort(rng.pareto(alpha, (resamples, drawn)) + 1, axis=1)[:, ::-1]:
        alphas, _ = hill(sample)
        chosen = _fix_finger(sample, alphas)
        if chosen is not None:
            logs.append(np.log(alphas[chosen - 1] / alpha))
    if not logs:
        return {"reason": "no interval: fix-finger finds no tail in samples of this size"}
    low, high = alpha * np.exp(-np.quantile(logs, [0.975, 0.025]) * np.sqrt(drawn / size))
    return {"alpha_low": float(low), "alpha_high": float(high)}


def _peak(spectrum: FloatArray) -> float:
    counts, edges = np.histogram(np.log10(spectrum), bins=BINS)
    return float(10 ** edges[np.argmax(counts)])


def _fix_finger(spectrum: FloatArray, alphas: FloatArray) -> int | None:
    """Size of the tail above the λ_min with the smallest D; None without a candidate."""
    peak = _peak(spectrum)
    near = (spectrum >= 0.95 * peak) & (spectrum <= 1.5 * peak) & np.isfinite(alphas)
    near[:-1] &= spectrum[:-1] > spectrum[1:]  # the last of equal eigenvalues: the tail holds all of them
    candidates = (np.flatnonzero(near) + 1)[::-1]  # from the smallest λ_min, which wins a tie as in the published code
    if len(candidates) == 0:
        return None
    return int(candidates[np.argmin(tail_distances(spectrum, candidates, alphas[candidates - 1]))])


def _spectra(
    weights: dict[str, FloatArray], found: Sequence[Stack], standardised: bool
) -> Iterator[tuple[dict[str, Any], str | None, FloatArray]]:
    """Key columns, reason and non-zero eigenvalues (descending) for each matrix, of the layer and of each draw."""
    for name, matrix in weights.items():
        rows = _rows(matrix, standardised)
        shared = {"matrix": name, "standardised": standardised}
        yield {**shared, "group_name": LAYER, "k": len(rows), "draw": 0}, None, _layer_spectrum(rows)
        neurons = used_neurons(list(found), len(rows))
        product = rows[neurons] @ rows[neurons].T / rows.shape[1]
        for stack in found:
            if stack.reason is not None:
                yield from ((shared | keys, stack.reason, np.zeros(0)) for keys, _ in stack.each())
                continue
            spectra = _group_spectra(product, np.searchsorted(neurons, stack.members))
            for (keys, _), values in zip(stack.each(), spectra, strict=True):
                yield shared | keys, None, _nonzero(values)


def _equal_aspect(
    weights: dict[str, FloatArray],
    found: Sequence[Stack],
    standardised: bool,
    rules: Sequence[Rule],
    samples: int,
    seed: int,
) -> Iterator[dict[Rule, dict[str, Any]]]:
    """The columns `equal_aspect_…` by rule: for each matrix, of the layer and each draw, in the order of `_spectra`."""
    for matrix in weights.values():
        rows = _rows(matrix, standardised)
        every = [np.arange(len(rows))[None], *(stack.members for stack in found)]
        formed = [True, *(stack.reason is None for stack in found)]
        for members, is_formed in zip(every, formed, strict=True):
            small = equal_aspect.too_small(members.shape[1], rows.shape[1])
            if not is_formed or samples == 0 or small:
                why = {"reason": small} if is_formed and samples else {}
                yield from (dict.fromkeys(rules, why) for _ in members)
                continue
            for spectra in equal_aspect.pooled_spectra(rows, members, samples=samples, seed=seed):
                yield {rule: _pooled_fit(spectra, rule) for rule in rules}


def _pooled_fit(spectra: FloatArray, rule: Rule) -> dict[str, Any]:
    """Columns `equal_aspect_…` from samples of pooled eigenvalues, each descending: α of each, then their mean."""
    row: dict[str, Any] = {"aspect": equal_aspect.ASPECT, "subsamples": len(spectra) * equal_aspect.POOLED}
    fits = [tail_fit(spectrum[spectrum > 0], rule) for spectrum in spectra]
    if without := [fit for fit in fits if "alpha" not in fit]:
        return row | {"reason": f"no exponent of equal aspect: {without[0]['reason']}"}
    alphas = np.array([fit["alpha"] for fit in fits])
    spread = float(alphas.std(ddof=1)) if len(alphas) > 1 else None
    return row | {"equal_aspect_alpha": float(alphas.mean()), "equal_aspect_sd": spread}


def _rows(matrix: FloatArray, standardised: bool) -> FloatArray:
    rows = matrix.astype(np.float64)
    if not standardised:
        return rows
    rows = rows - rows.mean(axis=1, keepdims=True)
    spread = rows.std(axis=1, keepdims=True)
    return rows / np.where(spread > 0, spread, 1.0)


def _layer_spectrum(rows: FloatArray) -> FloatArray:
    smaller = rows.T @ rows if rows.shape[0] > rows.shape[1] else rows @ rows.T
    return _nonzero(np.linalg.eigvalsh(smaller / rows.shape[1]))


def _group_spectra(product: FloatArray, members: IntArray) -> Iterator[FloatArray]:
    for part in np.array_split(members, -(-len(members) // CHUNK)):
        yield from np.linalg.eigvalsh(product[part[:, :, None], part[:, None, :]])


def _nonzero(ascending: FloatArray) -> FloatArray:
    """Eigenvalues above what rounding makes of a zero one, descending."""
    floor = len(ascending) * np.finfo(np.float64).eps * max(0.0, float(ascending[-1])) if len(ascending) else 0.0
    return ascending[ascending > floor][::-1]


def _compute_spectrum(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return weight_spectrum(at.weights, at.groups, **own)


def _compute_density(at: At, own: Mapping[str, Any], _pool: Executor | None) -> pl.DataFrame:
    return spectral_density(at.weights, at.groups, **own)


ANALYSES = (
    of_groups(
        "weight_spectrum",
        WEIGHT_SPECTRUM,
        _compute_spectrum,
        reads=("neuron_weight",),
        parameters=WEIGHTS | {"standardised": False, "rules": list(RULES), "seed": 0, "equal_aspect_samples": SAMPLES},
        tested=[
            Tested("alpha", ("matrix", "standardised", "rule"), ("alpha_low", "alpha_high")),
            Tested("equal_aspect_alpha", ("matrix", "standardised", "rule")),
        ],
    ),
    of_groups(
        "spectral_density",
        SPECTRAL_DENSITY,
        _compute_density,
        reads=("neuron_weight",),
        parameters=WEIGHTS | {"standardised": False, "bins": BINS},
    ),
)
