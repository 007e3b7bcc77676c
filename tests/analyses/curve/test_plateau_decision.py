"""Steps among spacings, the bootstrap that decides, the equal-slope test and the break of the slope."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rare_tokens.analyses.curve.plateau_decision import Decision, decide
from rare_tokens.analyses.curve.power_law import log_rank
from rare_tokens.analyses.curve.slope_break import SlopeBreak, slope_break
from rare_tokens.analyses.curve.spacings import (
    LEAST_NEURONS,
    _runs,
    _surprise,
    bent,
    compare_slopes,
    draw_curves,
    find_steps,
    fit_slopes,
    head_gains,
    normalised_spacings,
    ranks_needed,
    tail_gains,
)
from studies.synthetic.curves import Noise, Truth


def decided(truth: Truth, seed: int, draws: int = 199, **options: bool) -> Decision:
    curve, error = truth.draw(np.random.default_rng([seed, 1]))
    found = decide(curve, error, draws=draws, seed=seed, bend=False, **options)
    assert isinstance(found, Decision)
    return found


def test_spacings_of_pareto_draws_are_independent_exponentials() -> None:
    rng = np.random.default_rng(0)
    curves = -np.sort(-1.84 * rng.standard_exponential((400, 200)), axis=1)
    spacings = normalised_spacings(curves) / 1.84
    assert stats.kstest(spacings.ravel(), "expon").pvalue > 0.01
    neighbours = np.corrcoef(spacings[:, :-1].ravel(), spacings[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.02


def test_drawn_curves_have_the_law_of_sorted_draws() -> None:
    rng = np.random.default_rng(1)
    drawn = draw_curves(np.full(299, 0.7), 2_000, rng)
    direct = -np.sort(-0.7 * rng.standard_exponential((2_000, 300)), axis=1)
    for rank in (0, 5, 100):
        fall = drawn[:, rank] - drawn[:, -1], direct[:, rank] - direct[:, -1]
        assert stats.ks_2samp(*fall).pvalue > 0.001
    assert (np.diff(draw_curves(np.full(99, 1.0), 10, rng, error=np.full(100, 0.3))) <= 0).all()


@pytest.mark.parametrize("run", [1, 2, 4])
def test_the_surprise_of_a_run_is_its_exact_p(run: int) -> None:
    """−ln p of a run among exponentials of one mean is itself exponential: checked on the run that never competes."""
    low, high, start, stop = (int(ends[7]) for ends in _runs(400, run))
    spacings = np.random.default_rng(2).standard_exponential((4_000, 399))
    inside = spacings[:, low - 1 : high].sum(axis=1, keepdims=True)
    around = spacings[:, start - 1 : stop].sum(axis=1, keepdims=True) - inside
    others = np.array([stop - start + 1.0 - run])
    surprise = _surprise(inside, around, run, others)
    assert surprise == pytest.approx(-stats.beta.logcdf(around / (inside + around), others, run), rel=1e-6)
    assert stats.kstest(surprise.ravel(), "expon").pvalue > 0.01


@pytest.mark.parametrize(("plateau", "n"), [(3, 1024), (10, 1024), (31, 3072), (109, 6400)])
def test_a_clear_step_is_found_at_its_rank_with_its_size(plateau: int, n: int) -> None:
    curve = Truth(n, 1.0, plateau, 0.8).curve()
    found = find_steps(normalised_spacings(curve)[None, : ranks_needed(n) - 1], n)
    assert found.rank[0] == plateau
    assert found.size[0] == pytest.approx(0.8, abs=0.05)
    scaled = find_steps(3.0 * normalised_spacings(curve)[None, : ranks_needed(n) - 1], n)
    assert scaled.surprise[0] == pytest.approx(found.surprise[0]), "κ does not matter"


def test_slopes_are_fitted_to_law_and_tail() -> None:
    truth = Truth(6400, 1.3, tail="linear")
    curve, _ = truth.draw(np.random.default_rng(3))
    fits = {fit.tail: fit for fit in fit_slopes(normalised_spacings(curve))}
    linear = fits["linear"]
    assert linear.log_likelihood == max(fit.log_likelihood for fit in fits.values())
    assert linear.kappa == pytest.approx(1.3, rel=0.3)
    assert linear.tail_slope == pytest.approx(3.9, rel=0.1)
    assert abs(np.log(linear.tail_rank) - 5) < 0.5
    assert linear.slopes(6400, 6400)[[0, -1]] == pytest.approx([linear.kappa, linear.tail_slope])
    gains = tail_gains(normalised_spacings(curve)[None, :])
    assert gains["linear"][0] == pytest.approx(linear.log_likelihood - fits["none"].log_likelihood)


def test_a_head_bends_only_where_it_does() -> None:
    rng = np.random.default_rng(8)
    spacings = rng.standard_exponential(1_999)
    spacings[500:] *= 3
    straight = max(fit_slopes(spacings), key=lambda fit: fit.log_likelihood)
    assert bent(straight, spacings).bend_rank is None
    spacings[:60] *= 0.3
    model = bent(max(fit_slopes(spacings), key=lambda fit: fit.log_likelihood), spacings)
    assert model.bend_rank is not None
    assert abs(np.log(model.bend_rank / 60)) < 0.3
    assert model.bend_slope == pytest.approx(0.3, rel=0.4)
    assert model.slopes(2_000, 100)[[0, 98]] == pytest.approx([model.bend_slope, model.kappa])


def test_heads_gain_where_there_is_one() -> None:
    rng = np.random.default_rng(4)
    level = rng.standard_exponential((200, 300))
    flat, stepped = level.copy(), level.copy()
    flat[:, :40] *= 0.3
    stepped[:, 39] += 30
    assert np.median(head_gains(flat, 1024)["hinge"]) > np.quantile(head_gains(level, 1024)["hinge"], 0.99)
    assert np.median(head_gains(stepped, 1024)["free"]) > np.quantile(head_gains(level, 1024)["free"], 0.99)
    for gains in (head_gains(level, 1024), head_gains(level[:, :9], 1024)):
        assert all((values >= 0).all() for values in gains.values())


def test_equal_slopes_are_rejected_at_their_level() -> None:
    rng = np.random.default_rng(5)
    results = [compare_slopes(rng.standard_exponential(150), 20, 20, 151) for _ in range(400)]
    assert 8 <= sum(result.p_value < 0.05 for result in results if result) <= 34
    assert 360 <= sum(result.low <= 1 <= result.high for result in results if result) <= 392
    spacings = rng.standard_exponential(150)
    assert compare_slopes(spacings, 2, 2, 151) is None
    assert compare_slopes(spacings, 20, 20, 25) is None


def test_errors_that_blur_the_step_are_allowed_for() -> None:
    """Read off the blurred curve the step of 0.5 looks like 0.3, and another blur would make it 0.2."""
    truth = Truth(6400, 0.6, plateau=109, step=0.5, noise="draws+error", error=0.1)
    found = [decided(truth, seed) for seed in range(9)]
    assert float(np.median([one.step for one in found])) == pytest.approx(0.5, abs=0.07)
    assert sum(one.step_low <= 0.5 <= one.step_high for one in found) >= 6
    assert all(one.rank_low <= 109 <= one.rank_high for one in found)
    assert float(np.median([one.rank_high - one.rank_low for one in found])) <= 8
    curve, error = truth.draw(np.random.default_rng([3, 1]))
    unaware = decide(curve, None, draws=199, seed=3, bend=False)
    assert isinstance(unaware, Decision)
    assert error is not None
    assert unaware.step < found[3].step - 0.1


@pytest.mark.parametrize("noise", ["draws", "draws+error"])
def test_a_strong_plateau_is_present_and_its_break_exact(noise: Noise) -> None:
    truth = Truth(3072, 1.0, plateau=31, step=1.0, noise=noise)
    for seed in range(3):
        found = decided(truth, seed)
        assert found.verdict == "present"
        assert found.p_value == 1 / 200
        assert (found.rank_low, found.rank, found.rank_high) == (31, 31, 31)
        assert found.step_low < 1.0 < found.step_high
        assert found.reason is None
        assert found.slopes is not None
        assert found.slopes.low < 1 < found.slopes.high


def test_no_plateau_where_one_would_be_seen_is_absent() -> None:
    verdicts = [decided(Truth(3072, 0.6, noise="draws+error"), seed) for seed in range(8)]
    assert all(found.power > 0.95 for found in verdicts)
    assert sum(found.verdict == "absent" for found in verdicts) >= 6
    assert sum(found.verdict == "present" for found in verdicts) <= 1
    assert all(found.reason for found in verdicts if found.verdict == "undecided")


def test_a_plateau_that_nobody_could_see_is_undecided_not_absent() -> None:
    found = [decided(Truth(1024, 1.84), seed) for seed in range(4)]
    assert all(one.power < 0.2 for one in found)
    assert {one.verdict for one in found} <= {"undecided", "present"}
    assert any("would be found with probability" in (one.reason or "") for one in found)


def test_the_null_of_a_fixed_population_is_sharper() -> None:
    truth = Truth(1024, 1.84, plateau=10, step=0.8, noise="error", error=0.02)
    drawn, fixed = decided(truth, 0), decided(truth, 0, scattered=False)
    assert fixed.p_value < 0.01 < drawn.p_value
    assert fixed.power > drawn.power


def test_a_decision_repeats_and_depends_on_its_seed_alone() -> None:
    truth = Truth(300, 1.0)
    assert decided(truth, 7) == decided(truth, 7)
    curve, _ = truth.draw(np.random.default_rng(0))
    first, second = (decide(curve, draws=100, seed=seed) for seed in (0, 1))
    assert isinstance(first, Decision)
    assert isinstance(second, Decision)
    assert (first.rank, first.step, first.law) == (second.rank, second.step, second.law)


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        (-log_rank(LEAST_NEURONS - 1), "59 neurons"),
        (np.zeros(200), "the same influence"),
        (np.zeros(0), "0 neurons"),
    ],
)
def test_curves_that_cannot_be_decided_say_why(curve: np.ndarray, said: str) -> None:
    assert said in str(decide(curve, draws=100))


def test_draws_that_cannot_reach_the_level_are_refused() -> None:
    with pytest.raises(ValueError, match="99 draws cannot"):
        decide(-log_rank(100), draws=99)


def test_the_smallest_curve_is_decided() -> None:
    assert isinstance(decide(Truth(60, 1.0, tail_at=3.0).draw(np.random.default_rng(0))[0], draws=100), Decision)


def test_the_slope_breaks_where_it_does() -> None:
    rng = np.random.default_rng(6)
    curve, _ = Truth(3072, 1.0, tail="linear").draw(rng)
    found = slope_break(curve, rng, draws=199)
    assert isinstance(found, SlopeBreak)
    assert found.near_five
    assert found.form == "jump"
    assert found.low <= 5 <= found.high
    assert found.change == pytest.approx(-2, abs=1)
    early, _ = replace(Truth(3072, 1.0, tail="linear"), tail_at=3.5).draw(rng)
    elsewhere = slope_break(early, rng, draws=199)
    assert isinstance(elsewhere, SlopeBreak)
    assert not elsewhere.near_five


def test_a_smooth_slope_is_not_said_to_break() -> None:
    """Log-normal influence: its slope grows all the way, without a kink anywhere."""
    rng = np.random.default_rng(7)
    curves = -np.sort(-1.2 * rng.standard_normal((20, 1024)), axis=1)
    p = [
        found.p_value
        for found in (slope_break(curve, rng, draws=99) for curve in curves)
        if isinstance(found, SlopeBreak)
    ]
    assert len(p) == 20
    assert sum(value < 0.05 for value in p) <= 4


def test_a_short_curve_has_no_slope_test() -> None:
    assert "needs 100" in str(slope_break(-log_rank(172), np.random.default_rng(0)))
