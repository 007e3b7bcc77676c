"""Least-squares regimes of a curve of influence: head, power law and tail, with every break tried.

A *model* is a power law −κ ln r + β with, at its head (ranks 1 … m), nothing, a *hinge* (another slope, continuous), a
*level* shift (equal slope, higher intercept: ES §4.1, conjecture 5.1) or a *free* line; and at its tail (ranks after
b) nothing, a *linear* piece or a + s·ln(ln(N+1) − ln r), the order statistics of a stretched exponential, both
continuous at b. BIC is only for the reader: sorted values are not independent, and on pure Pareto draws BIC always
finds a break. The decision is made in `analyses.curve.plateau`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rare_tokens.analyses.curve.ranked_curve import LEAST_RANKS, break_grid, log_rank
from rare_tokens.analyses.result_table import FloatArray, IntArray

Head = Literal["none", "hinge", "level", "free"]
Tail = Literal["none", "linear", "loglog"]
HEADS: tuple[Head, ...] = ("none", "hinge", "level", "free")
TAILS: tuple[Tail, ...] = ("none", "linear", "loglog")
LEAST_HEAD = 3  # neurons of the smallest head
LARGEST_HEAD = 0.05  # share of the layer: a plateau is a small fraction of it (ES 1.7 %, DS 1 %)


@dataclass(frozen=True)
class PiecewiseFit:
    """One model, fitted at its best breaks.

    Attributes:
        head: what happens at ranks 1 … `head_rank`.
        tail: what happens after `tail_rank`.
        kappa: κ of the power law between.
        beta: its β.
        r2: share of the curve's variance that the model explains.
        bic: n ln(RSS / n) + parameters · ln n, breaks counted as parameters.
        parameters: their number.
        head_rank: last rank of the head; None without a head.
        tail_rank: last rank before the tail; None without a tail.
        head_kappa: minus the head's slope.
        step: how far the head stands above the power law at `head_rank`, in log influence.
        tail_slope: slope of the linear tail, or s.
    """

    head: Head
    tail: Tail
    kappa: float
    beta: float
    r2: float
    bic: float
    parameters: int
    head_rank: int | None = None
    tail_rank: int | None = None
    head_kappa: float | None = None
    step: float | None = None
    tail_slope: float | None = None

    @property
    def pieces(self) -> int:
        """1, 2 or 3."""
        return 1 + (self.head != "none") + (self.tail != "none")


def head_ranks(n: int) -> IntArray:
    """Ranks at which a head may end: 3 … 5 % of n."""
    return np.arange(LEAST_HEAD, int(LARGEST_HEAD * n) + 1)


def fit_regimes(curve: FloatArray) -> list[PiecewiseFit]:
    """All heads × tails, each at the breaks with the smallest squared error.

    Heads end at any rank of `head_ranks`, tails begin after any rank of `break_grid`, at least 10 ranks apart. Equal
    errors go to the smaller breaks.

    Args:
        curve: log influence in descending order, shape (n,), not all equal.

    Returns:
        The models in the order of `HEADS` × `TAILS`, without those for which n is too small.

    Raises:
        ValueError: there are fewer than 30 ranks, or the curve has no spread.
    """
    n = len(curve)
    if n < 3 * LEAST_RANKS or np.ptp(curve) == 0:
        raise ValueError(f"a curve of {n} ranks from {curve.max():g} to {curve.min():g} has no regimes to fit")
    best: dict[tuple[Head, Tail], _Candidate] = {}
    for tail, tail_rank, basis in _bases(n):
        for candidate in _heads(curve, tail, tail_rank, basis):
            key = candidate.head, tail
            if key not in best or candidate.rss < best[key].rss - 1e-12:
                best[key] = candidate
    return [_fitted(curve, best[head, tail]) for head in HEADS for tail in TAILS if (head, tail) in best]


@dataclass(frozen=True)
class _Candidate:
    head: Head
    tail: Tail
    head_rank: int | None
    tail_rank: int | None
    rss: float


def tail_function(n: int, tail: Tail, tail_rank: int) -> FloatArray:
    """What a tail adds after `tail_rank` (0 up to it), shape (n,): ln r − ln b, or ln(ln(N+1) − ln r) from b on."""
    x, at = log_rank(n), np.log(tail_rank)
    reach = np.log(n + 1)
    values = x - at if tail == "linear" else np.log((reach - x) / (reach - at))
    return np.where(np.arange(1, n + 1) > tail_rank, values, 0.0)


def _bases(n: int) -> Iterator[tuple[Tail, int | None, FloatArray]]:
    """The models without their head: constant, ln r up to the tail, tail."""
    x = log_rank(n)
    yield "none", None, np.stack([np.ones(n), x], axis=1)
    for tail in TAILS[1:]:
        for rank in break_grid(n).tolist():
            yield tail, rank, np.stack([np.ones(n), np.minimum(x, np.log(rank)), tail_function(n, tail, rank)], axis=1)


def _heads(curve: FloatArray, tail: Tail, tail_rank: int | None, basis: FloatArray) -> Iterator[_Candidate]:
    n = len(curve)
    orthogonal, _ = np.linalg.qr(basis)
    rest = curve - orthogonal @ (orthogonal.T @ curve)
    rss = float(rest @ rest)
    yield _Candidate("none", tail, None, tail_rank, rss)
    ends = head_ranks(n)
    ends = ends[ends + LEAST_RANKS <= (tail_rank or n)]
    if not len(ends):
        return
    top = ends[-1]  # heads are 0 below it
    x = log_rank(top)[:, None]
    hinge = np.maximum(np.log(ends) - x, 0.0)
    step = (np.arange(1, top + 1)[:, None] <= ends).astype(float)
    q = orthogonal[:top].T
    in_hinge, in_step = q @ hinge, q @ step  # the part of them that the basis already spans

    def product(a: FloatArray, b: FloatArray, in_a: FloatArray, in_b: FloatArray) -> FloatArray:
        return np.asarray((a * b).sum(axis=0) - (in_a * in_b).sum(axis=0))

    hh, ss = product(hinge, hinge, in_hinge, in_hinge), product(step, step, in_step, in_step)
    hs = product(hinge, step, in_hinge, in_step)
    hy, sy = rest[:top] @ hinge, rest[:top] @ step
    explained: dict[Head, FloatArray] = {
        "hinge": hy**2 / hh,
        "level": sy**2 / ss,
        "free": (ss * hy**2 - 2 * hs * hy * sy + hh * sy**2) / (hh * ss - hs**2),
    }
    for head, gain in explained.items():
        at = int(np.argmax(gain))
        yield _Candidate(head, tail, int(ends[at]), tail_rank, rss - float(gain[at]))


def _fitted(curve: FloatArray, chosen: _Candidate) -> PiecewiseFit:
    """The coefficients at the chosen breaks."""
    n = len(curve)
    x = log_rank(n)
    columns = {"beta": np.ones(n), "slope": x}
    if chosen.tail_rank is not None:
        columns["slope"] = np.minimum(x, np.log(chosen.tail_rank))
        columns["tail"] = tail_function(n, chosen.tail, chosen.tail_rank)
    if chosen.head_rank is not None:
        if chosen.head in ("hinge", "free"):
            columns["hinge"] = np.maximum(np.log(chosen.head_rank) - x, 0.0)
        if chosen.head in ("level", "free"):
            columns["step"] = (np.arange(1, n + 1) <= chosen.head_rank).astype(float)
    design = np.stack(list(columns.values()), axis=1)
    solution, *_ = np.linalg.lstsq(design, curve, rcond=None)
    value = dict(zip(columns, solution.tolist(), strict=True))
    rss = float(np.sum((curve - design @ solution) ** 2))
    parameters = len(columns) + (chosen.head_rank is not None) + (chosen.tail_rank is not None)
    has_head = chosen.head != "none"
    return PiecewiseFit(
        head=chosen.head,
        tail=chosen.tail,
        kappa=-value["slope"],
        beta=value["beta"],
        r2=1 - rss / float(np.sum((curve - curve.mean()) ** 2)),
        bic=n * float(np.log(max(rss, np.finfo(float).tiny) / n)) + parameters * float(np.log(n)),
        parameters=parameters,
        head_rank=chosen.head_rank,
        tail_rank=chosen.tail_rank,
        head_kappa=value.get("hinge", 0.0) - value["slope"] if has_head else None,
        step=value.get("step", 0.0) if has_head else None,
        tail_slope=value.get("tail"),
    )
