"""As `kernel`, in float64 and for the loss alone: what float32 may not hold."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from rare_tokens.ingest.ablation.numerics.compiler import REORDERED, jit

_LOG2_E = np.float64(math.log2(math.e))
# 2^f on |f| ≤ ½ by its first terms; what is left out is below 1e-14
_TERMS = tuple(np.float64(math.log(2) ** k / math.factorial(k)) for k in range(12))
_T0, _T1, _T2, _T3, _T4, _T5, _T6, _T7, _T8, _T9, _T10, _T11 = _TERMS
_LEAST = np.float64(-1000)  # of an exponent of two


@functools.cache
def compiled(has_mlp: bool) -> Callable[..., None]:
    """Compile the pass; `has_mlp` as in `kernel.compiled`.

    The compiled function takes, for B positions, P pairs and K tokens, float64 unless said otherwise: z (F x B x K);
    what is added to it to give log p (K), and subtracted (B); m (N x K); t and i (P int32); u (F x P), c and y (P); the
    first of the pairs to compute and the one after the last; and what it adds to (2 x P): the largest exponent so far,
    of two, and the sum of p e^(δ−δ_y) over two to that.
    """

    @jit(
        "void(f8[:,:,::1], f8[::1], f8[::1], f8[:,::1], i4[::1], i4[::1], f8[:,::1], f8[::1], f8[::1], i8, i8, "
        "f8[:,::1])",
        REORDERED | {"nnan"},
    )
    def run(
        z: Any, bias: Any, base: Any, m: Any, t: Any, i: Any, u: Any, c: Any, y: Any, begin: int, end: int, sums: Any
    ) -> None:
        x = np.empty(len(bias), np.float64)
        for j in range(begin, end):
            z_t, m_i = z[0, t[j]], m[i[j]]
            mlp_t = z[1, t[j]] if has_mlp else z_t
            of_z, of_m, shift = 1 + u[0, j], c[j], base[t[j]] + y[j]
            of_mlp = u[1, j] if has_mlp else 0.0
            largest = sums[0, j]
            for v in range(len(bias)):
                exponent = of_z * z_t[v] + of_m * m_i[v] + (bias[v] - shift)
                if has_mlp:
                    exponent += of_mlp * mlp_t[v]
                x[v] = exponent * _LOG2_E
                largest = max(largest, x[v])
            total = 0.0
            for v in range(len(bias)):
                below = max(x[v] - largest, _LEAST)
                whole = np.rint(below)
                f = below - whole
                power = np.int64((np.int64(whole) + 1023) << 52).view(np.float64)
                high = _T6 + f * (_T7 + f * (_T8 + f * (_T9 + f * (_T10 + f * _T11))))
                total += power * (_T0 + f * (_T1 + f * (_T2 + f * (_T3 + f * (_T4 + f * (_T5 + f * high))))))
            sums[1, j] = sums[1, j] * 2.0 ** max(sums[0, j] - largest, _LEAST) + total
            sums[0, j] = largest

    return run
