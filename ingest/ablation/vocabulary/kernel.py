"""Sums over the vocabulary for many pairs in one compiled pass.

A pair's row of m is read once; z of its position, and p made from it, stay in the cache for all pairs of the position.
2^x is 2^n (1 + q) with q a polynomial on |f| ≤ ½, so that 2^x − 1 = 2^n q + (2^n − 1) does not cancel where x is small.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from rare_tokens.ingest.ablation.numerics.compiler import REORDERED, jit

_ONE, _LOG2_E, _LN_2 = np.float32(1), np.float32(1.4426950408889634), np.float32(0.6931471805599453)
# ln 2 in two parts, the first with so few bits that its products with small whole numbers are exact
_LN_2_HIGH, _LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LEAST_LOG_P = np.float32(-87)  # below it p is no normal number; it counts as e^-87
# (2^f − 1)/f on |f| ≤ ½, interpolated at Chebyshev's points: relative error 1.3e-8
_C0, _C1, _C2, _C3, _C4, _C5 = (
    np.float32(value)
    for value in (0.6931471880, 0.2402265076, 0.05550357114, 0.009618082557, 0.001339086336, 0.0001545316294)
)


@jit("void(f4[::1], f4[::1], f4, f4[::1], f4[::1])")
def probabilities(z: Any, bias: Any, base: Any, log_p: Any, p: Any) -> None:
    """log p and p of K tokens. Apart, for here no operation may be moved: the parts of ln 2 would be added up."""
    for v in range(len(z)):
        log_p[v] = max(z[v] + bias[v] - base, _LEAST_LOG_P)
        whole = np.rint(log_p[v] * _LOG2_E)
        left = ((log_p[v] - whole * _LN_2_HIGH) - whole * _LN_2_LOW) * _LOG2_E
        q = left * (_C0 + left * (_C1 + left * (_C2 + left * (_C3 + left * (_C4 + left * _C5)))))
        power = np.int32((np.int32(whole) + 127) << 23).view(np.float32)
        p[v] = power * q + power


@functools.cache
def compiled(has_mlp: bool, has_axis: bool, with_entropy: bool) -> Callable[..., None]:
    """Compile the pass for changes with the functions named, and with the sums that the entropy needs or without.

    The compiled function takes, for B positions, P pairs and K tokens, float32 unless said otherwise: z (F x B x more
    than K) and the first column that counts; bias (K, zeros where there is none); what is subtracted from a logit to
    give log p (B); the entropy (B); the target's column (B int32; any number outside of the K where it is elsewhere),
    whose term is 0 by definition and would not be by rounding; m (N x K); the axis (K, if any); t and i (P int32); u (3
    x P: of z, of the MLP's logits, of the axis) and c, y (P), each times log2 e; the first of the pairs to compute and
    the one after the last; and the sums it adds to (1 or 3 x P float64): p (e^(δ−δ_y) − 1), and for the entropy the
    same times (log p + entropy), and p e^(δ−δ_y) (δ − δ_y).
    """

    @jit(
        "void(f4[:,:,::1], i8, f4[::1], f4[::1], f4[::1], i4[::1], f4[:,::1], f4[::1], i4[::1], i4[::1], f4[:,::1], "
        "f4[::1], f4[::1], i8, i8, f8[:,::1])",
        REORDERED,
    )
    def run(
        z: Any, first: int, bias: Any, base: Any, entropy: Any, target: Any, m: Any, axis: Any, t: Any, i: Any, u: Any,
        c: Any, y: Any, begin: int, end: int, sums: Any,
    ) -> None:  # fmt: skip
        K = m.shape[1]
        log_p, p = np.empty(K, np.float32), np.empty(K, np.float32)
        before = -1
        for j in range(begin, end):
            position = t[j]
            z_t = z[0, position, first : first + K]
            mlp_t = z[1, position, first : first + K] if has_mlp else z_t
            if position != before:
                before = position
                probabilities(z_t, bias, base[position], log_p, p)
                if 0 <= target[position] < K:
                    p[target[position]] = 0
            m_i = m[i[j]]
            of_z, of_mlp, of_axis, of_m, shift = u[0, j], u[1, j], u[2, j], c[j], y[j]
            growths, scores, tilts = np.float32(0), np.float32(0), np.float32(0)
            for v in range(K):
                x = of_z * z_t[v] + of_m * m_i[v] - shift
                if has_mlp:
                    x += of_mlp * mlp_t[v]
                if has_axis:
                    x += of_axis * axis[v]
                whole = np.rint(x)
                left = x - whole
                q = left * (_C0 + left * (_C1 + left * (_C2 + left * (_C3 + left * (_C4 + left * _C5)))))
                power = np.int32((np.int32(whole) + 127) << 23).view(np.float32)
                growth = power * q + (power - _ONE)
                growths += p[v] * growth
                if with_entropy:
                    scores += p[v] * growth * (log_p[v] + entropy[position])
                    tilts += p[v] * (growth + _ONE) * (x * _LN_2)
            sums[0, j] += growths
            if with_entropy:
                sums[1, j] += scores
                sums[2, j] += tilts

    return run
