"""Fits power law, tail and head to a curve of influence by least squares, for every end of the head at once.

The model of log influence at rank r, on the ranks 1 … R = ⌊N/2⌋ of N neurons, is

    y = β − κ ln r + τ ln((N+1−r)/(N+1)) + 1[r ≤ b] (s + h (ln(b+½) − ln r)),   τ ≥ 0

The tail is that of the discrete generalised beta distribution (Martínez-Mekler et al. 2009, PLoS ONE 4, e4791). For
each b the head adds a *hinge* of strength h (another slope, continuous at b + ½) and a *step* of height s. Both are 0
after rank b. So once a curve is freed of the other three terms, its first ⌊0.15 N⌋ ranks hold all information about the
head, and one small matrix product fits every b of every curve. The bases depend on N alone and are cached.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rare_tokens.analyses.curve.ranked_curve import log_rank
from rare_tokens.analyses.result_table import FloatArray, IntArray

SMALLEST_HEAD, EVERY_HEAD = 5, 64  # every rank from 5 to 64 may end a head
LATER_HEADS = 64  # and so many log-spaced ones after these
LARGEST_HEAD = 0.15  # share of the neurons


def fitted_ranks(n: int) -> int:
    """R: how many ranks of a curve of n neurons are fitted; beyond them the tail's form would bias κ."""
    return n // 2


def largest_head(n: int) -> int:
    """⌊0.15 N⌋, the last rank at which a head may end."""
    return int(LARGEST_HEAD * n + 1e-9)


@lru_cache(maxsize=64)
def head_ends(n: int) -> IntArray:
    """The ranks b at which a head may end, ascending, shape (G,); n ≥ 34."""
    last = largest_head(n)
    every = np.arange(SMALLEST_HEAD, min(EVERY_HEAD, last) + 1)
    if last <= EVERY_HEAD:
        return every
    return np.union1d(every, np.rint(np.geomspace(EVERY_HEAD, last, LATER_HEADS)).astype(np.int64))


def tail_shape(ranks: FloatArray | IntArray, n: int) -> FloatArray:
    """ln((N+1−r)/(N+1)): what a tail of strength 1 adds at each rank, below 0."""
    return np.asarray(np.log1p(-ranks / (n + 1)))


@dataclass(frozen=True)
class Coefficients:
    """The model of each of B curves at its chosen head, shape (B,) each.

    Attributes:
        kappa: κ.
        beta: β.
        tail: τ, 0 where it would be negative.
        head_rank: b.
        step: s, 0 in a model without a step.
        hinge: h.
        rss: residual sum of squares on ranks 1 … R.
    """

    kappa: FloatArray
    beta: FloatArray
    tail: FloatArray
    head_rank: IntArray
    step: FloatArray
    hinge: FloatArray
    rss: FloatArray


@dataclass(frozen=True)
class _Basis:
    """What least squares needs to know about N, with the tail (k = 3 terms) or without (k = 2).

    Attributes:
        terms: orthonormal columns that span 1, ln r (and the tail), (R, k).
        inverse: turns coordinates on them into the terms' coefficients, (k, k).
        heads: hinges, then steps, freed of the terms and the steps also of their hinges, each of length 1; only the
            rows that a curve freed of the terms meets, (⌊0.15 N⌋, 2 G).
        hinge_length: lengths of the freed hinges, (G,).
        step_length: lengths of the freed steps, (G,).
        shared: how much of its hinge each step holds, (G,).
        hinge_terms: coefficients of the terms in each hinge, (k, G).
        step_terms: coefficients of the terms in each step, (k, G).
    """

    terms: FloatArray
    inverse: FloatArray
    heads: FloatArray
    hinge_length: FloatArray
    step_length: FloatArray
    shared: FloatArray
    hinge_terms: FloatArray
    step_terms: FloatArray


@lru_cache(maxsize=32)
def _basis(n: int, *, tailed: bool) -> _Basis:
    ranks, ends = fitted_ranks(n), head_ends(n)
    x, top = log_rank(ranks), int(ends[-1])
    columns = [np.ones(ranks), x] + ([tail_shape(np.arange(1, ranks + 1), n)] if tailed else [])
    terms, triangle = np.linalg.qr(np.stack(columns, axis=1))
    inverse = np.linalg.inv(triangle)
    hinge = np.maximum(np.log(ends + 0.5) - x[:top, None], 0.0)
    step = (np.arange(1, top + 1)[:, None] <= ends).astype(float)
    in_hinge, in_step = terms[:top].T @ hinge, terms[:top].T @ step
    hinge_square = (hinge**2).sum(axis=0) - (in_hinge**2).sum(axis=0)
    shared = ((hinge * step).sum(axis=0) - (in_hinge * in_step).sum(axis=0)) / hinge_square
    step_square = (step**2).sum(axis=0) - (in_step**2).sum(axis=0) - shared**2 * hinge_square
    hinge_length, step_length = np.sqrt(hinge_square), np.sqrt(step_square)
    heads = np.concatenate([hinge / hinge_length, (step - shared * hinge) / step_length], axis=1)
    in_both = inverse @ in_hinge, inverse @ in_step
    return _Basis(terms, inverse, heads, hinge_length, step_length, shared, *in_both)


@dataclass(frozen=True)
class _Projection:
    """B curves on one basis: coefficients of the terms without a head (B, k), what they leave (B,), and the curves'
    coordinates on hinges and steps, (B, G) each."""

    basis: _Basis
    terms: FloatArray
    rest: FloatArray
    on_hinge: FloatArray
    on_step: FloatArray

    def rss(self, *, step: bool) -> FloatArray:
        explained = self.on_hinge**2 + (self.on_step**2 if step else 0.0)
        return np.maximum(self.rest[:, None] - explained, 0.0)

    def rss_at(self, at: IntArray, *, step: bool) -> FloatArray:
        return np.asarray(self.rss(step=step)[np.arange(len(at)), at])

    def head(self, at: IntArray | slice, *, step: bool) -> tuple[FloatArray, FloatArray]:
        """h and s, at every end of the head or at one per curve."""
        rows = slice(None) if isinstance(at, slice) else np.arange(len(at))
        b = self.basis
        height = self.on_step[rows, at] / b.step_length[at] if step else np.zeros_like(self.on_step[rows, at])
        return self.on_hinge[rows, at] / b.hinge_length[at] - b.shared[at] * height, height

    def term(self, term: int, at: IntArray | slice, *, step: bool) -> FloatArray:
        """One term's coefficient (0: β, 1: −κ, 2: τ), at every end of the head or at one per curve."""
        hinge, height = self.head(at, step=step)
        alone = self.terms[:, term, None] if isinstance(at, slice) else self.terms[:, term]
        return np.asarray(alone - self.basis.hinge_terms[term, at] * hinge - self.basis.step_terms[term, at] * height)


class HeadFits:
    """B curves fitted at every end of the head.

    Args:
        curves: log influence in descending order, shape (B, at least ⌊N/2⌋); later ranks are not read.
        n: N, at least 34; the number of columns by default.
    """

    def __init__(self, curves: FloatArray, n: int | None = None) -> None:
        self.n = curves.shape[1] if n is None else n
        self.ends = head_ends(self.n)
        y = curves[:, : fitted_ranks(self.n)]
        self.centre = y.mean(axis=1)  # so that nothing cancels below
        y = y - self.centre[:, None]
        self.spread = np.einsum("ij,ij->i", y, y)
        self._tailed, self._plain = (_project(y, _basis(self.n, tailed=tailed)) for tailed in (True, False))

    def tails(self, *, step: bool) -> FloatArray:
        """τ with a hinge alone, or with a hinge and a step, at every end of the head, shape (B, G); 0 where least
        squares wants it below 0: that head is fitted without a tail."""
        return np.maximum(self._tailed.term(2, slice(None), step=step), 0.0)

    def rss(self, *, step: bool) -> FloatArray:
        """Residual sums of squares with a hinge alone, or with a hinge and a step, shape (B, G)."""
        return np.where(self.tails(step=step) > 0, self._tailed.rss(step=step), self._plain.rss(step=step))

    def steps(self) -> FloatArray:
        """s at every end of the head, shape (B, G)."""
        tailed, plain = (side.head(slice(None), step=True)[1] for side in (self._tailed, self._plain))
        return np.where(self.tails(step=True) > 0, tailed, plain)

    def at(self, places: IntArray, *, step: bool) -> Coefficients:
        """Each curve's coefficients at one end of its head, given by its place among `ends`, shape (B,)."""
        tail = np.maximum(self._tailed.term(2, places, step=step), 0.0)

        def chosen(with_tail: FloatArray, without: FloatArray) -> FloatArray:
            return np.where(tail > 0, with_tail, without)

        sides = self._tailed, self._plain
        beta, slope = (chosen(*(side.term(term, places, step=step) for side in sides)) for term in (0, 1))
        heads = [side.head(places, step=step) for side in sides]
        rss = chosen(*(side.rss_at(places, step=step) for side in sides))
        hinge, height = (chosen(heads[0][part], heads[1][part]) for part in (0, 1))
        return Coefficients(-slope, beta + self.centre, tail, self.ends[places], height, hinge, rss)

    def best(self, *, step: bool) -> Coefficients:
        """The head with the smallest residual sum of squares; of equal ones, the smallest head."""
        return self.at(np.argmin(self.rss(step=step), axis=1), step=step)


def _project(curves: FloatArray, basis: _Basis) -> _Projection:
    coordinates = curves @ basis.terms
    rest = curves - coordinates @ basis.terms.T
    on_heads = rest[:, : len(basis.heads)] @ basis.heads
    heads = on_heads.shape[1] // 2
    left = np.einsum("ij,ij->i", rest, rest)
    return _Projection(basis, coordinates @ basis.inverse.T, left, on_heads[:, :heads], on_heads[:, heads:])
