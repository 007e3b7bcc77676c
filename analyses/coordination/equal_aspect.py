"""Spectra of sub-matrices of one shape, so that exponents of matrices of different shapes can be compared.

Hill's α of W Wᵀ depends on W's shape even where the entries have one law: independent normal entries give 9.1 for
15 × 576 and 2.0 for 1,536 × 576 (rule `mid`). Hu et al. (2025, "Eigenspectrum Analysis of Neural Networks without
Aspect Ratio Bias", FARMS) therefore fit α to the pooled eigenvalues of sub-matrices of one aspect ratio. Here all of
them have one shape too, `ROWS` × `COLUMNS`, and a sample has as many from any matrix: with the aspect alone the same,
α of heavy-tailed entries still grows with the size (Student's t with 3 degrees of freedom, rule `tenth`, aspect 1: 2.1
for 15 rows, 3.4 for 200), and fix-finger depends on how many eigenvalues it sees.

Ten rows fit into the smallest groups that are usual (1 % of a layer), and twice as many columns tell heavy tails from
normal entries better than as many.
"""

from collections.abc import Iterator

import numpy as np

from rare_tokens.analyses.result_table import FloatArray, IntArray

ROWS, COLUMNS = 10, 20  # of every sub-matrix: the one place that says so
ASPECT = ROWS / COLUMNS
POOLED = 32  # sub-matrices whose eigenvalues are one sample
CHUNK = 100  # groups whose sub-matrices are held at once: 20 MB with 4 samples


def too_small(neurons: int, width: int) -> str | None:
    """Why a matrix of this shape has no such sub-matrix; None if it has."""
    if neurons >= ROWS and width >= COLUMNS:
        return None
    return f"no exponent of equal aspect: a sub-matrix takes {ROWS} × {COLUMNS}, the group is {neurons} × {width}"


def pooled_spectra(rows: FloatArray, members: IntArray, *, samples: int, seed: int) -> Iterator[FloatArray]:
    """Samples of eigenvalues of each group's sub-matrices, each of W Wᵀ / `COLUMNS`.

    Rows and columns of a sub-matrix are drawn at random without replacement. All groups of one size have the same
    columns and, in order of norm, the same rows, so a group and its random groups are treated alike. The order of the
    neurons in the layer plays no part.

    Args:
        rows: the layer's weight vectors, N × d.
        members: neurons of each group, shape (D, k), large enough (`too_small`).
        samples: per group, S.
        seed: of the draws.

    Yields:
        For each group its samples, descending, shape (S, `POOLED` · `ROWS`); 0 where rounding leaves nothing else.
    """
    k, width = members.shape[1], rows.shape[1]
    rng = np.random.default_rng([seed, k])
    chosen = _subsets(rng, samples * POOLED, k, ROWS)
    columns = _subsets(rng, samples * POOLED, width, COLUMNS)
    norms = np.linalg.norm(rows, axis=1)
    by_norm = np.take_along_axis(members, np.argsort(norms[members], axis=1, kind="stable"), axis=1)
    for part in np.array_split(by_norm, -(-len(by_norm) // CHUNK)):
        cut = rows[part[:, chosen][..., None], columns[:, None, :]]  # groups × sub-matrices × ROWS × COLUMNS
        values = np.linalg.eigvalsh(cut @ cut.swapaxes(-1, -2) / COLUMNS)
        rounding = ROWS * np.finfo(np.float64).eps * values[..., -1:]
        values[values <= rounding] = 0.0
        yield from -np.sort(-values.reshape(len(part), samples, POOLED * ROWS), axis=-1)


def _subsets(rng: np.random.Generator, count: int, size: int, taken: int) -> IntArray:
    """`count` random subsets of 0 … size − 1, shape (count, taken)."""
    return np.stack([rng.choice(size, taken, replace=False) for _ in range(count)])
