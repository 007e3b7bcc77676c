"""Windows, lines, slopes and least-squares regimes of a curve of influence."""

import numpy as np
import pytest

from rare_tokens.analyses.curve.middle_piece import middle_piece
from rare_tokens.analyses.curve.piecewise import fit_regimes, head_ranks
from rare_tokens.analyses.curve.ranked_curve import (
    PAPER_WINDOW,
    break_grid,
    fit_line,
    influence_curve,
    local_slope,
    log_rank,
    second_derivative,
)
from studies.synthetic.curves import Truth


def test_a_pure_power_law_is_read_back_exactly() -> None:
    curve = 0.7 - 1.3 * log_rank(400)
    line = fit_line(curve, 11, 300)
    assert (line.kappa, line.beta, line.r2) == pytest.approx((1.3, 0.7, 1.0))
    assert np.abs(line.deviation(curve)).max() < 1e-12
    assert np.nanmax(np.abs(local_slope(curve) + 1.3)) < 1e-9
    assert np.nanmax(np.abs(second_derivative(curve))) < 1e-6


def test_influence_is_sorted_and_neurons_without_any_are_left_out() -> None:
    assert influence_curve(np.array([0.0, 2.0, 1.0, 0.0, 8.0])) == pytest.approx(np.log([8.0, 2.0, 1.0]))


def test_the_middle_piece_of_many_curves_is_that_of_each() -> None:
    curves = np.stack([Truth(500, 1.0).draw(np.random.default_rng(seed))[0] for seed in range(5)])
    assert middle_piece(curves).tolist() == [middle_piece(curve).tolist() for curve in curves]
    assert middle_piece(curves + 100).tolist() == middle_piece(curves).tolist(), "a constant changes no break"


def test_windows_that_do_not_fit_are_refused() -> None:
    curve = -log_rank(29)
    with pytest.raises(ValueError, match="29 ranks"):
        middle_piece(curve)
    with pytest.raises(ValueError, match="122 to 181 are no window of 29"):
        fit_line(curve, *PAPER_WINDOW)


def test_the_paper_window_is_log_rank_4_8_to_5_2() -> None:
    first, last = PAPER_WINDOW
    assert np.log(first - 1) < 4.8 <= np.log(first)
    assert np.log(last) <= 5.2 < np.log(last + 1)


def test_local_slope_and_second_derivative_are_regressions_within_a_quarter() -> None:
    curve, _ = Truth(300, 0.8).draw(np.random.default_rng(0))
    x, slope = log_rank(300), local_slope(curve)
    second = second_derivative(curve)
    for rank in (1, 8, 10, 60, 300):
        near = np.abs(x - x[rank - 1]) <= 0.25
        if near.sum() < 5:
            assert np.isnan(slope[rank - 1])
            continue
        assert slope[rank - 1] == pytest.approx(np.polyfit(x[near], curve[near], 1)[0])
        near &= np.isfinite(slope)
        if near.sum() >= 5:
            assert second[rank - 1] == pytest.approx(np.polyfit(x[near], slope[near], 1)[0], abs=1e-6)
    assert np.isnan(second).sum() >= np.isnan(slope).sum() > 0


@pytest.mark.parametrize("tail", ["loglog", "linear"])
def test_regimes_without_noise_are_found(tail: str) -> None:
    truth = Truth(1024, 1.0, plateau=17, step=0.5, tail=tail)  # type: ignore[arg-type]
    fits = {(fit.head, fit.tail): fit for fit in fit_regimes(truth.curve())}
    assert len(fits) == 12
    best = fits["level", tail]  # type: ignore[index]
    assert best.pieces == 3
    assert best.bic < min(fit.bic for key, fit in fits.items() if key not in (("level", tail), ("free", tail)))
    assert best.head_rank == 17
    assert abs(np.log(best.tail_rank or 0) - 5) < 0.1
    assert (best.kappa, best.step, best.head_kappa) == pytest.approx((1.0, 0.5, 1.0), abs=0.06), (
        "as the tail is on a grid"
    )
    assert fits["none", "none"].pieces == 1
    assert fits["none", "none"].kappa == pytest.approx(fit_line(truth.curve(), 1, 1024).kappa)


def test_every_regime_model_is_the_best_of_all_its_breaks() -> None:
    curve, _ = Truth(120, 1.0, plateau=4, step=1.0, tail_at=4.0).draw(np.random.default_rng(1))
    fits = {(fit.head, fit.tail): fit for fit in fit_regimes(curve)}
    x, spread = log_rank(120), float(np.sum((curve - curve.mean()) ** 2))
    best = {"hinge": np.inf, "level": np.inf, "free": np.inf}
    for head in head_ranks(120):
        for tail in break_grid(120):
            if head + 10 > tail:
                continue
            base = [np.ones(120), np.minimum(x, np.log(tail)), np.maximum(x - np.log(tail), 0)]
            hinge, step = np.maximum(np.log(head) - x, 0), (x <= np.log(head)).astype(float)
            for name, columns in (("hinge", [hinge]), ("level", [step]), ("free", [hinge, step])):
                design = np.stack([*base, *columns], axis=1)
                fitted = design @ np.linalg.lstsq(design, curve, rcond=None)[0]
                best[name] = min(best[name], float(np.sum((curve - fitted) ** 2)))
    for name, rss in best.items():
        assert (1 - fits[name, "linear"].r2) * spread == pytest.approx(rss, rel=1e-6)  # type: ignore[index]


def test_more_pieces_fit_no_worse() -> None:
    curve, _ = Truth(400, 0.6).draw(np.random.default_rng(2))
    fits = {(fit.head, fit.tail): fit for fit in fit_regimes(curve)}
    for (head, tail), fit in fits.items():
        assert fit.r2 >= fits["none", tail].r2 - 1e-9
        assert fit.r2 <= 1
        if head in ("hinge", "level"):
            assert fits["free", tail].r2 >= fit.r2 - 1e-9


@pytest.mark.parametrize("curve", [np.zeros(100), -log_rank(20)])
def test_a_flat_or_short_curve_has_no_regimes(curve: np.ndarray) -> None:
    with pytest.raises(ValueError, match="has no regimes"):
        fit_regimes(curve)
