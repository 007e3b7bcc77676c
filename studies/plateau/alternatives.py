"""Compares κ of the line with other ways to find it, on curves whose κ is known.

    python -m studies.plateau.alternatives

Truths are those of `studies.synthetic.heads` and two whose second half falls off unlike any tail of the line; 1,536
fixed neurons, 200 seeds, an error of 0.07 in log influence. Each way fits the line's model at every end of the head and
takes the smallest (weighted) residual sum of squares, with one change; the middle piece is a straight line on the
middle of a continuous three-piece fit. Prints median κ, then how many curves leave the power law no room between head
and tail, with the line's head and with the head of the smallest residual sum of squares.
"""

from collections.abc import Callable

import numpy as np

from rare_tokens.analyses.curve.head_fits import HeadFits, fitted_ranks, head_ends, tail_shape
from rare_tokens.analyses.curve.middle_piece import middle_piece
from rare_tokens.analyses.curve.power_law import LEAST_LOG_WIDTH, power_laws, window_end
from rare_tokens.analyses.curve.ranked_curve import fit_line
from rare_tokens.analyses.result_table import BoolArray, FloatArray
from studies.plateau.study import Setting
from studies.synthetic.heads import KAPPA, LAWS, PLATEAUS, Head, measured

N, ERROR, SEEDS = 1_536, 0.07, 200
Way = Callable[[FloatArray], FloatArray]
LATE = {
    "power law, slope 2 after rank N/2": Head(
        lambda x, n: -KAPPA * np.log(x) - (2 - KAPPA) * np.maximum(np.log(2 * x / n), 0.0), KAPPA
    ),
    "power law, last fifth lower by 2": Head(
        lambda x, n: -KAPPA * np.log(x) - 2 * np.clip((x / n - 0.75) / 0.1, 0.0, 1.0), KAPPA
    ),
}


def main() -> None:
    """Print the table."""
    columns = [*WAYS, "no room: line", "no room: smallest residuals"]
    print(f"| truth | κ | {' | '.join(columns)} |\n|---|---:|{'---:|' * len(columns)}")
    for name, truth in (LAWS | LATE | PLATEAUS).items():
        layers = (Setting(name, truth, N, scattered=False).layer(seed) for seed in range(SEEDS))
        curves = np.stack([measured(layer, ERROR, rng) for layer, rng in layers])
        found = [f"{np.median(way(curves)):.2f}" for way in WAYS.values()]
        found += [f"{100 * np.mean(narrow):.0f} %" for narrow in (~power_laws(curves).wide, narrow_alone(curves))]
        print(f"| {name} | {truth.kappa:.2f} | {' | '.join(found)} |", flush=True)


def line(curves: FloatArray) -> FloatArray:
    """κ of the line, even where its power law does not hold."""
    return power_laws(curves).fit.kappa


def narrow_alone(curves: FloatArray) -> BoolArray:
    """Whether the head with the smallest residual sum of squares leaves less than a factor of e before the tail."""
    fit = HeadFits(curves).best(step=True)
    last = window_end(fit.tail, curves.shape[1])
    return np.asarray(np.log(np.maximum(last, 1) / (fit.head_rank + 1)) < LEAST_LOG_WIDTH)


def three_pieces(curves: FloatArray) -> FloatArray:
    """κ of the middle piece."""
    windows = [middle_piece(curve).tolist() for curve in curves]
    return np.array([fit_line(curve, first, last).kappa for curve, (first, last) in zip(curves, windows, strict=True)])


def fitted(curves: FloatArray, *, ranks: int, weighted: bool = False, slope: bool = True) -> FloatArray:
    """κ by least squares at the best end of the head.

    Args:
        curves: log influence in descending order, shape (B, n).
        ranks: how many are fitted.
        weighted: use weights 1/r instead of equal ones.
        slope: whether the head has a slope of its own.
    """
    n = curves.shape[1]
    r = np.arange(1, ranks + 1)
    root = r**-0.5 if weighted else np.ones(ranks)
    best, kappa = np.full(len(curves), np.inf), np.zeros(len(curves))
    for end in head_ends(n):
        head = [(r <= end).astype(float)]
        head += [np.maximum(np.log(end + 0.5) - np.log(r), 0.0)] if slope else []
        tailed = _least_squares(curves[:, :ranks], [np.ones(ranks), np.log(r), *head, tail_shape(r, n)], root)
        plain = _least_squares(curves[:, :ranks], [np.ones(ranks), np.log(r), *head], root)
        has_tail = tailed[0][-1] > 0
        rss = np.where(has_tail, tailed[1], plain[1])
        better = rss < best
        best = np.where(better, rss, best)
        kappa = np.where(better, -np.where(has_tail, tailed[0][1], plain[0][1]), kappa)
    return kappa


def _least_squares(curves: FloatArray, terms: list[FloatArray], root: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients (terms, B) and residual sums of squares (B,)."""
    design, values = np.stack(terms, axis=1) * root[:, None], (curves * root).T
    basis, triangle = np.linalg.qr(design)
    on_basis = basis.T @ values
    return np.linalg.solve(triangle, on_basis), (values**2).sum(axis=0) - (on_basis**2).sum(axis=0)


WAYS: dict[str, Way] = {
    "line": line,
    "middle piece": three_pieces,
    "weights 1/r": lambda curves: fitted(curves, ranks=fitted_ranks(N), weighted=True),
    "all ranks": lambda curves: fitted(curves, ranks=N),
    "no slope of its own": lambda curves: fitted(curves, ranks=fitted_ranks(N), slope=False),
}

if __name__ == "__main__":
    main()
