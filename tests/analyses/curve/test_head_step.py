"""The scan, the jump, and the test that joins them."""

import numpy as np
import pytest
from scipy import stats

from rare_tokens.analyses.curve.head_fits import HeadFits, head_ends
from rare_tokens.analyses.curve.head_jump import curves_without_step, jump, smooth_fit
from rare_tokens.analyses.curve.head_scan import (
    NULL_DRAWS,
    WIDTHS,
    _bounds,
    scan,
    scan_null,
    scan_p,
    scanned_ranks,
    surprise_of_share,
)
from rare_tokens.analyses.curve.head_step import StepNull, step_test
from rare_tokens.analyses.curve.ranked_curve import log_rank
from studies.synthetic.heads import PLATEAUS, SMOOTH, measured


def pareto(rng: np.random.Generator, draws: int, n: int, kappa: float = 0.8) -> np.ndarray:
    return -np.sort(-kappa * rng.standard_exponential((draws, n)), axis=1)


def noisy(name: str, n: int, seed: int, *, scattered: bool = True) -> np.ndarray:
    rng = np.random.default_rng([seed, n])
    return measured((SMOOTH | PLATEAUS)[name].layer(n, rng, scattered=scattered), 0.07, rng)


def scan_by_brute_force(curve: np.ndarray) -> tuple[float, int, int]:
    """Every run, with scipy's F distribution."""
    n = len(curve)
    spacing = np.append(0.0, np.arange(1, n) * (curve[:-1] - curve[1:]))  # entry r is D_r
    best = (0.0, 0, 0)
    for w in WIDTHS:
        for a in range(5, int(0.15 * n) + 1):
            end = a + w
            if end > int(0.3 * n) or (w > 1 and end > 2.5 * a):
                continue
            m = min(n - 1, max(end + 40, n // 3))
            cliff, after, before = spacing[a:end].mean(), spacing[end:m].mean(), spacing[1:a].mean()
            if cliff / after > 1.3 and cliff / before > 1.3:
                tails = (
                    stats.f.logsf(cliff / after, 2 * w, 2 * (m - end)),
                    stats.f.logsf(cliff / before, 2 * w, 2 * a - 2),
                )
                best = max(best, (-max(tails), a, end))
    return best


@pytest.mark.parametrize("n", [150, 400])
def test_the_scan_is_that_of_every_run_and_scipys_f(n: int) -> None:
    rng = np.random.default_rng(n)
    gaps = rng.standard_exponential((9, n - 1))
    gaps[3:6, 19] += 12  # a jump
    gaps[6:9, 20:36] *= 2.5  # a wide cliff
    curves = np.append(np.cumsum((gaps / np.arange(1, n))[:, ::-1], axis=1)[:, ::-1], np.zeros((9, 1)), axis=1)
    found = scan(curves)
    for place, curve in enumerate(curves):
        surprise, first, last = scan_by_brute_force(curve)
        assert found.surprise[place] == pytest.approx(surprise, rel=1e-9)
        assert (found.first[place], found.last[place]) == (first, last)
        assert scan(curve[None, : scanned_ranks(n)], n).surprise[0] == found.surprise[place], "later ranks are not read"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_surprise_is_the_exact_f_tail_and_its_bounds_hold(width: int) -> None:
    rng = np.random.default_rng(width)
    others = rng.integers(4, 900, 300).astype(float)
    ratio = 1.3 + 3 * rng.random(300)
    share = others / (others + width * ratio)
    exact = surprise_of_share(share, width, others)
    assert exact == pytest.approx(-stats.f.logsf(ratio, 2 * width, 2 * others), rel=1e-8)
    low, high = _bounds(share, width, others, 1000)
    assert (low <= exact + 1e-9).all()
    assert (exact <= high + 1e-9).all()


def test_the_scan_does_not_depend_on_kappa_and_sees_no_bend() -> None:
    curves = pareto(np.random.default_rng(1), 5, 600)
    assert scan(3 * curves).surprise == pytest.approx(scan(curves).surprise)
    steep, concave = (
        SMOOTH[name].layer(1536, np.random.default_rng(0), scattered=False) for name in ("steep head", "concave hinge")
    )
    assert scan(np.stack([steep, concave])).surprise.max() < 1


def test_the_scans_null_is_drawn_once_and_is_what_pareto_draws_have() -> None:
    null = scan_null(300)
    assert null is scan_null(300)
    assert len(null) == NULL_DRAWS == 9_999
    assert (np.diff(null) >= 0).all()
    surprise = scan(pareto(np.random.default_rng(2), 2_000, 300, kappa=1.84)).surprise
    assert stats.ks_2samp(surprise, null).pvalue > 0.001
    p = scan_p(surprise, 300)
    assert p.min() >= 1e-4
    assert 66 <= np.sum(p < 0.05) <= 136
    value = float(null[-10])
    assert scan_p(np.array([value]), 300)[0] == (1 + np.sum(null >= value)) / 10_000
    assert scan_p(np.array([0.0]), 300)[0] == 1.0


def jump_by_brute_force(curve: np.ndarray) -> float:
    n = len(curve)
    r = np.arange(1, n // 2 + 1)
    y, hinge, free = curve[: len(r)], np.inf, np.inf
    for b in head_ends(n).tolist():
        for step in (False, True):
            head = [(r <= b) * (np.log(b + 0.5) - np.log(r))] + ([(r <= b).astype(float)] if step else [])
            design = np.stack([np.ones(len(r)), -np.log(r), *head, np.log((n + 1 - r) / (n + 1))], axis=1)
            solution = np.linalg.lstsq(design, y, rcond=None)[0]
            if solution[-1] < 0:
                design = design[:, :-1]
                solution = np.linalg.lstsq(design, y, rcond=None)[0]
            rss = float(np.sum((y - design @ solution) ** 2))
            if not step:
                hinge = min(hinge, rss)
            elif solution[3] > 0:
                free = min(free, rss)
    return (hinge - min(free, hinge)) / min(free, hinge)


@pytest.mark.parametrize("name", ["15 raised by 0.5", "power law, tail 0.3", "smooth convex"])
def test_the_jump_is_that_of_brute_force_least_squares(name: str) -> None:
    for n, seed in ((150, 0), (301, 1), (301, 2)):
        curve = noisy(name, n, seed)
        assert jump(curve[None, :])[0] == pytest.approx(jump_by_brute_force(curve), rel=1e-7, abs=1e-9)


def test_the_jump_has_no_units_and_is_zero_where_nothing_jumps() -> None:
    curve = noisy("50 raised by 0.3", 600, 0)
    assert jump(np.stack([7 + curve, 3 * curve])) == pytest.approx(jump(curve[None, :])[[0, 0]])
    r = np.arange(1, 601)
    hinged = -0.8 * np.log(r) + 0.5 * np.maximum(np.log(30.5) - np.log(r), 0)
    stepped = -0.8 * np.log(r) + 0.5 * (r <= 30)
    with np.errstate(all="raise"):
        exact = jump(np.stack([hinged, stepped, -0.8 * np.log(r)]))
    assert exact[[0, 2]].tolist() == [0.0, 0.0]
    assert np.isfinite(exact[1])
    assert exact[1] > 1e6


def test_curves_without_a_step_have_the_law_of_sorted_draws() -> None:
    n = 200
    r = np.arange(1, n + 1)
    curve = -0.7 * np.log(r) + 0.6 * np.maximum(np.log(30.5) - np.log(r), 0) + 0.3 * np.log1p(-r / (n + 1))
    fit = smooth_fit(curve)
    assert (fit.kappa[0], fit.hinge[0], fit.tail[0], fit.head_rank[0]) == pytest.approx((0.7, 0.6, 0.3, 30))
    drawn = np.concatenate(list(curves_without_step(fit, n, 3_000, np.random.default_rng(1))))
    uniform = np.sort(np.random.default_rng(2).random((3_000, n)), axis=1) * (n + 1)
    direct = (
        -0.7 * np.log(uniform)
        + 0.6 * np.maximum(np.log(30.5) - np.log(uniform), 0)
        + 0.3 * np.log1p(-uniform / (n + 1))
    )
    for rank in (1, 10, 90):
        assert stats.ks_2samp(drawn[:, rank - 1], direct[:, rank - 1]).pvalue > 1e-3
    raised = next(curves_without_step(fit, n, 5, np.random.default_rng(1), raised=(4, 0.5)))
    assert raised - drawn[:5] == pytest.approx(np.broadcast_to(0.5 * (np.arange(n) < 4), (5, n)))
    error = np.full(n, 0.3)
    spread = next(curves_without_step(fit, n, 500, np.random.default_rng(1), error=error))
    assert (np.diff(spread, axis=1) <= 0).all()
    assert spread[:, 0].mean() > drawn[:, 0].mean(), "errors spread sorted values"


def test_a_smooth_fit_has_no_step() -> None:
    curve = noisy("50 raised by 0.7", 512, 0)
    fit = smooth_fit(curve)
    assert fit.step.tolist() == [0.0]
    assert fit.rss[0] == pytest.approx(HeadFits(curve[None, :]).rss(step=False).min())


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("name", ["50 raised by 0.7", "shelf, cliff 43-57"])
def test_a_clear_step_is_found_where_it_is(name: str, scattered: bool) -> None:
    for seed in range(3):
        curve = noisy(name, 1536, seed, scattered=scattered)
        found = step_test(curve, StepNull(curve, np.full(1536, 0.07), draws=399))
        assert found.p_value < 0.01
        assert found.p_value == min(1, 2 * min(found.p_scan, found.p_jump))
        assert found.cliff_first is not None
        assert found.cliff_last is not None
        assert 30 <= found.cliff_first <= 60 <= found.cliff_last + 15 <= 95


@pytest.mark.slow
def test_smooth_curves_seldom_have_a_step() -> None:
    p = []
    for name in ("power law, tail 0.3", "log-normal 0.8", "steep head", "smooth convex"):
        for seed in range(15):
            curve = noisy(name, 512, seed)
            p.append(step_test(curve, StepNull(curve, np.full(512, 0.07), draws=399, seed=seed)).p_value)
    assert np.sum(np.array(p) < 0.05) <= 7
    assert np.sum(np.array(p) < 0.01) <= 2


def test_the_jumps_p_keeps_its_level_where_its_null_is_true() -> None:
    n, p = 300, []
    for seed in range(120):
        curve = noisy("power law, tail 0.3", n, seed)
        p.append(StepNull(curve, np.full(n, 0.07), draws=99, seed=seed).p_values(curve[None, :])[2][0])
    assert 3 <= np.sum(np.array(p) <= 0.1) <= 24
    assert 30 <= np.sum(np.array(p) <= 0.4) <= 67


def test_power_grows_with_the_plateau() -> None:
    curve = noisy("power law, tail 0.3", 1536, 0)
    null = StepNull(curve, np.full(1536, 0.07), draws=999)
    power = [null.power(size, 0.5, draws=60) for size in (2, 20, 150)]
    assert power[0] <= 0.1
    assert power[0] <= power[1] < power[2]
    assert power[2] >= 0.9
    assert null.power(150, 0.5, draws=60) == power[2], "it repeats"


def test_a_test_depends_on_its_seed_alone() -> None:
    curve = noisy("15 raised by 0.5", 300, 0)
    tests = [step_test(curve, StepNull(curve, np.full(300, 0.07), draws=399, seed=seed)) for seed in (3, 3, 4)]
    assert tests[0] == tests[1]
    assert tests[0].p_scan == tests[2].p_scan
    assert tests[0].jump == tests[2].jump


def test_ties_are_no_surprise_and_never_nan() -> None:
    tied = np.stack([np.repeat(-log_rank(30), 10), np.append(np.ones(30), np.zeros(270)), np.zeros(300)])
    with np.errstate(all="raise"):
        found = scan(tied)
        gains = jump(tied)
    assert np.isfinite(found.surprise).all()
    assert np.isfinite(gains).all()
    assert found.surprise[2] == 0
    assert (found.first[2], gains[2]) == (0, 0)
    assert found.first[1] == 30
    flat = step_test(tied[0], StepNull(tied[0], draws=399))
    assert 0 < flat.p_value <= 1
