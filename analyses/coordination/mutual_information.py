"""Mutual information of a group's neurons: sees what correlation cannot (docs/definitions.md, "Coordination")."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import repeat
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy.spatial import cKDTree
from scipy.special import digamma

from rare_tokens.analyses.analysis import ACTIVATIONS, Tested
from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.neuron_groups import Stack, comparisons, stacks, used_neurons
from rare_tokens.analyses.coordination.of_groups import ES, WHOLE_LAYER, At, of_groups
from rare_tokens.analyses.coordination.similarity import NO_PAIR, PAIR_MEAN
from rare_tokens.analyses.result_table import BoolArray, FloatArray, IntArray, table

Estimator = Literal["binned", "ksg"]
MUTUAL_INFORMATION: dict[str, Any] = (
    {"estimator": pl.String} | PAIR_MEAN | {"mean_information": pl.Float64, "reason": pl.String}  # nats
)
_JITTER = 1e-10  # of a standard deviation: breaks ties without changing distances noticeably


def mutual_information(
    activations: Activations,
    groups: pl.DataFrame,
    *,
    estimators: Sequence[Estimator] = ("binned", "ksg"),
    bins: int = 16,
    neighbours: int = 3,
    contexts: int = 1_000,
    ksg_controls: int = 3,
    ksg_neurons: int = 50,
    seed: int = 0,
    pool: Executor | None = None,
) -> pl.DataFrame:
    """Mean mutual information of pairs within and between groups: relation `mutual_information`.

    `binned` uses all positions and all groups, `ksg` (1 ms per pair) uses `contexts` seeded positions, the tested
    groups and the first `ksg_controls` random ones. The binned estimate is a plug-in: independent neurons get
    about (bins − 1)²/(2T) nats, 0.004 at T = 25,088 but 0.11 at 1,000, so compare it only over the same positions.

    Args:
        activations: T × N at the chosen positions.
        groups: `GROUP`, tested groups and controls.
        estimators: which of the two.
        bins: number of bins of equal frequency, per neuron (`binned_codes`).
        neighbours: k of the KSG estimator.
        contexts: positions for the KSG estimator; all if there are no more.
        ksg_controls: random groups for the KSG estimator.
        ksg_neurons: how many seeded neurons of a larger group the KSG estimator takes.
        seed: of the sampled positions and of the noise that breaks ties for KSG.
        pool: processes to share the pairs among; the result is the same with and without.

    Returns:
        `MUTUAL_INFORMATION` (comparisons: `neuron_groups.comparisons`). Constant neurons make no pair. NULL with the
        reason if there is no pair, or fewer positions than bins or neighbours.
    """
    frames = []
    for estimator in estimators:
        binned = estimator == "binned"
        chosen = activations if binned else activations.sample(contexts, seed)
        part = groups if binned else groups.filter(pl.col("draw") <= ksg_controls)
        most = None if binned else ksg_neurons
        rows = _rows(chosen, stacks(part), estimator, bins if binned else neighbours, most, seed, pool)
        frames.append(table([{**row, "estimator": estimator} for row in rows], MUTUAL_INFORMATION))
    return pl.concat(frames) if frames else table([], MUTUAL_INFORMATION)


def binned_codes(values: FloatArray, bins: int) -> IntArray:
    """The bin of every value, in bins of equal frequency per neuron: (T, n) to (n, T), 0 … bins − 1.

    Equal values share a bin (the highest that any of them would get), so a bin depends on the value alone. Breaking
    ties by position would make it depend on time too, and two independent neurons that are zero most of the time would
    share nearly all of that.
    """
    ordered = np.sort(values, axis=0)
    edges = ordered[-(-np.arange(1, bins) * len(values) // bins)]
    codes: IntArray = np.zeros(values.T.shape, dtype=np.dtype("uint8" if bins <= 256 else "uint32"))
    for row, edge, column in zip(codes, edges.T, values.T, strict=True):
        row[:] = np.searchsorted(edge, column, side="right")
    return codes


def binned_information(first: IntArray, second: IntArray | None, bins: int) -> FloatArray:
    """Plug-in mutual information, nats, of all pairs from two sets of binned neurons, (a, T) and (b, T), row by row.

    Shape (a·b,); if the second is None, the a·(a − 1)/2 pairs within the first.
    """
    counts = []
    for i, one in enumerate(first):
        scaled = one.astype(np.intp) * bins
        others = first[i + 1 :] if second is None else second
        counts += [np.bincount(scaled + other, minlength=bins * bins) for other in others]
    if not counts:
        return np.zeros(0)
    joint = np.array(counts).reshape(-1, bins, bins) / first.shape[1]
    apart = joint.sum(axis=2, keepdims=True) * joint.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(joint > 0, joint * np.log(joint / apart), 0.0)
    return terms.sum(axis=(1, 2))


def ksg_information(first: FloatArray, second: FloatArray | None, neighbours: int) -> FloatArray:
    """Kraskov, Stögbauer and Grassberger's first estimator (2004, eq. 8), nats; pairs as in `binned_information`.

    ψ(k) + ψ(T) − ⟨ψ(n_x + 1) + ψ(n_y + 1)⟩, where n_x counts the points strictly nearer in x than the k-th neighbour
    in the larger of the two distances. The values, (a, T) and (b, T), must have no ties; an estimate may be below 0.
    """
    size = first.shape[1]
    values = []
    for i, x in enumerate(first):
        for y in first[i + 1 :] if second is None else second:
            points = np.column_stack([x, y])
            radius = cKDTree(points).query(points, k=[neighbours + 1], p=np.inf)[0][:, 0] * (1 - 1e-10)
            nearer = digamma(_within_radius(x, radius)) + digamma(_within_radius(y, radius))
            values.append(digamma(neighbours) + digamma(size) - nearer.mean())
    return np.array(values)


def _within_radius(x: FloatArray, radius: FloatArray) -> IntArray:
    """How many points lie within `radius` of each, itself included."""
    ordered = np.sort(x)
    return np.searchsorted(ordered, x + radius, side="right") - np.searchsorted(ordered, x - radius, side="left")


def _rows(
    activations: Activations,
    found: list[Stack],
    estimator: Estimator,
    parameter: int,
    most: int | None,
    seed: int,
    pool: Executor | None,
) -> list[dict[str, Any]]:
    """One row per comparison and draw; `parameter` is the number of bins or of neighbours."""
    neurons = used_neurons(found, activations.neurons)
    values = activations.values[:, neurons]
    least = parameter if estimator == "binned" else parameter + 1
    enough = len(values) >= least
    varies = np.ptp(values, axis=0) > 0 if enough else np.zeros(len(neurons), dtype=bool)
    absent = NO_PAIR if enough else f"{len(values)} positions; the {estimator} estimate needs at least {least}"
    tasks = [task for task in _tasks(found, neurons, varies) if estimator == "binned" or task[2] is None]
    results: Iterable[FloatArray] = repeat(np.zeros(0), len(tasks))
    if enough:
        prepared = binned_codes(values, parameter) if estimator == "binned" else _standardised(values, seed)
        firsts = [prepared[_at_most(first, most, seed)] for _, first, _ in tasks]
        seconds = [None if second is None else prepared[second] for _, _, second in tasks]
        function: Callable[..., FloatArray] = binned_information if estimator == "binned" else ksg_information
        results = (map if pool is None else pool.map)(function, firsts, seconds, repeat(parameter))
    rows = []
    for (row, first, second), information in zip(tasks, results, strict=True):
        if second is not None and enough:
            information = information[np.not_equal.outer(first, second).ravel()]  # no pair of a neuron with itself
        row |= {"positions": len(values), "pairs": len(information), "undefined_neurons": row["k"] - len(first)}
        row |= {"mean_information": float(information.mean())} if len(information) else {"reason": absent}
        rows.append(row)
    for stack in found:
        if stack.reason is not None:
            same = {"comparison": "within", "other_group": stack.group_name, "reason": stack.reason}
            rows += [{**keys, **same, "positions": len(values)} for keys, _ in stack.each()]
    return rows


def _tasks(
    found: list[Stack], neurons: IntArray, varies: BoolArray
) -> Iterator[tuple[dict[str, Any], IntArray, IntArray | None]]:
    """Key columns and both sides' varying neurons (the second None: within the first)."""
    for comparison, stack, other in comparisons(found):
        for (keys, first), (draw, second) in zip(
            stack.each(), zip(other.draws, other.members, strict=True), strict=True
        ):
            row = {**keys, "comparison": comparison, "other_group": other.group_name}
            row |= {"other_k": other.k, "other_draw": int(draw)}
            rows = [side[varies[side]] for side in (np.searchsorted(neurons, first), np.searchsorted(neurons, second))]
            yield row, rows[0], None if comparison == "within" else rows[1]


def _at_most(rows: IntArray, most: int | None, seed: int) -> IntArray:
    if most is None or len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _standardised(values: FloatArray, seed: int) -> FloatArray:
    """Scale to unit variance and add a little noise, (T, n) to (n, T): ties would make k-th neighbour distances 0."""
    rows = values.T.astype(np.float64)
    spread = rows.std(axis=1, keepdims=True)
    rows = (rows - rows.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    return rows + _JITTER * np.random.default_rng(seed).standard_normal(rows.shape)


def _compute(at: At, own: Mapping[str, Any], pool: Executor | None) -> pl.DataFrame:
    return mutual_information(at.activations, at.groups, pool=pool, **own)


ANALYSIS = of_groups(
    "mutual_information",
    MUTUAL_INFORMATION,
    _compute,
    reads=(ACTIVATIONS,),
    parameters=ES
    | {"pool": WHOLE_LAYER, "estimators": ["binned", "ksg"], "bins": 16, "neighbours": 3, "contexts": 1_000, "seed": 0},
    shares_work=True,
    tested=[Tested("mean_information", ("estimator", "comparison"))],
)
