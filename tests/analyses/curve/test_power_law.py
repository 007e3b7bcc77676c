"""The line: head, power law and tail in one fit, its window, and when there is no power law."""

import numpy as np
import pytest

from rare_tokens.analyses.curve.head_fits import HeadFits, fitted_ranks, head_ends, largest_head
from rare_tokens.analyses.curve.power_law import PowerLaw, power_law, power_laws, window_end
from rare_tokens.analyses.curve.ranked_curve import log_rank
from studies.synthetic.heads import LAWS, PLATEAUS, SMOOTH, measured


def noisy(name: str, n: int, seed: int, *, scattered: bool = True) -> np.ndarray:
    rng = np.random.default_rng([seed, n])
    return measured((SMOOTH | PLATEAUS)[name].layer(n, rng, scattered=scattered), 0.07, rng)


def by_brute_force(curve: np.ndarray, *, step: bool) -> dict[int, tuple[float, np.ndarray]]:
    """RSS and coefficients β, κ, τ, h (and s) of numpy's least squares, for every end of the head."""
    n = len(curve)
    r = np.arange(1, n // 2 + 1)
    found = {}
    for b in head_ends(n).tolist():
        base = [np.ones(len(r)), -np.log(r)]
        tail = [np.log((n + 1 - r) / (n + 1))]
        head = [(r <= b) * (np.log(b + 0.5) - np.log(r))] + ([(r <= b).astype(float)] if step else [])
        design = np.stack(base + tail + head, axis=1)
        solution = np.linalg.lstsq(design, curve[: len(r)], rcond=None)[0]
        if solution[2] < 0:
            design = np.stack(base + head, axis=1)
            solution = np.linalg.lstsq(design, curve[: len(r)], rcond=None)[0]
        rss = float(np.sum((curve[: len(r)] - design @ solution) ** 2))
        found[b] = rss, solution if len(solution) == 4 + step else np.insert(solution, 2, 0.0)
    return found


def test_heads_end_where_they_are_said_to() -> None:
    assert head_ends(150).tolist() == list(range(5, 23))
    ends = head_ends(6400)
    assert ends[:60].tolist() == list(range(5, 65))
    assert ends[-1] == largest_head(6400) == 960
    assert np.allclose(np.diff(np.log(ends[60:].astype(float))), np.log(960 / 64) / 63, atol=0.02)


@pytest.mark.parametrize("n", [150, 151, 512])
@pytest.mark.parametrize("name", ["power law, tail 0.8", "smooth convex", "15 raised by 0.5"])
def test_the_fit_is_that_of_brute_force_least_squares(name: str, n: int) -> None:
    for seed in range(3):
        curve = noisy(name, n, seed)
        for step in (True, False):
            expected = by_brute_force(curve, step=step)
            fits = HeadFits(curve[None, :])
            assert fits.rss(step=step)[0] == pytest.approx([rss for rss, _ in expected.values()], rel=1e-9)
            found = fits.best(step=step)
            best = min(expected, key=lambda b: expected[b][0])
            assert found.head_rank[0] == best
            values = [found.beta[0], found.kappa[0], found.tail[0], found.hinge[0], found.step[0]]
            assert values[: 4 + step] == pytest.approx(expected[best][1].tolist(), abs=1e-8)
            if step:
                assert fits.steps()[0] == pytest.approx([solution[4] for _, solution in expected.values()], abs=1e-8)


def test_a_negative_tail_is_left_out() -> None:
    """A curve that flattens towards its end: least squares wants τ < 0."""
    curve = -1.5 * np.log(np.arange(1, 401)) + 0.3 * np.arange(400) / 400
    assert power_law(curve).tail == 0.0
    assert power_law(curve).last_rank == fitted_ranks(400)


def test_a_line_without_noise_is_read_back() -> None:
    n, b, kappa, beta, tail, step, head = 1200, 40, 0.8, -1.5, 0.4, 0.6, 0.3
    r = np.arange(1, n + 1)
    curve = beta - kappa * np.log(r) + tail * np.log((n + 1 - r) / (n + 1))
    curve += (r <= b) * (step + (head - kappa) * (np.log(b + 0.5) - np.log(r)))
    line = power_law(curve)
    end = int(np.floor((n + 1) * (1 - np.exp(-0.1 / tail))))
    assert (line.kappa, line.beta, line.tail) == pytest.approx((kappa, beta, tail))
    assert (line.step, line.head_slope) == pytest.approx((step, head))
    assert (line.head_rank, line.first_rank, line.last_rank) == (b, b + 1, end)
    assert line.straight_share == 1.0
    assert line.reason is None
    taken = tail * np.log((n + 1 - r) / (n + 1))
    deviation = line.deviation(curve)
    assert deviation is not None
    assert deviation[b:] == pytest.approx(taken[b:])
    assert deviation[b - 1] == pytest.approx(step + (head - kappa) * np.log((b + 0.5) / b) + taken[b - 1])
    window = slice(b, end)
    spread = np.sum((curve[window] - curve[window].mean()) ** 2)
    assert line.r2 == pytest.approx(1 - np.sum(taken[window] ** 2) / spread)


def test_the_window_ends_where_the_tail_has_taken_a_tenth() -> None:
    n = 1536
    for tail in (0.15, 0.3, 0.8, 2.0):
        end = int(window_end(np.array([tail]), n)[0])
        takes = -tail * np.log((n + 1 - np.arange(1, n // 2 + 1)) / (n + 1))
        assert end == np.sum(takes <= 0.1)
    assert window_end(np.array([0.0, 0.01]), n).tolist() == [768, 768]


def test_many_curves_are_fitted_as_each() -> None:
    curves = np.stack([noisy(name, 512, seed) for name in SMOOTH for seed in range(3)])
    found = power_laws(curves)
    for place, curve in enumerate(curves):
        line = power_law(curve)
        assert (line.head_rank, line.last_rank) == (found.fit.head_rank[place], found.last_rank[place])
        assert line.step == pytest.approx(found.fit.step[place], abs=1e-9)
        assert (line.kappa is not None) == found.holds[place]
        if line.kappa is not None:
            assert line.kappa == pytest.approx(found.fit.kappa[place], abs=1e-9)
    raised = power_laws(curves + 50)
    assert raised.fit.kappa == pytest.approx(found.fit.kappa, abs=1e-8)
    assert raised.fit.beta == pytest.approx(found.fit.beta + 50)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = np.stack([noisy("shelf, cliff 43-57", 512, seed) for seed in range(7)])
    whole = power_laws(curves)
    monkeypatch.setattr("rare_tokens.analyses.curve.power_law.BATCH", 1024)
    parts = power_laws(curves)
    assert parts.fit.head_rank.tolist() == whole.fit.head_rank.tolist()
    assert parts.fit.kappa == pytest.approx(whole.fit.kappa, abs=1e-12)
    assert parts.straight.tolist() == whole.straight.tolist()


@pytest.mark.parametrize("name", ["power law, tail 0.3", "power law, tail 0.8", "50 raised by 0.7", "15 raised by 0.5"])
def test_kappa_is_found(name: str) -> None:
    found = power_laws(np.stack([noisy(name, 1536, seed, scattered=False) for seed in range(30)]))
    assert np.median(found.fit.kappa[found.holds]) == pytest.approx(0.8, abs=0.02)
    assert found.holds.mean() >= 0.9


def test_a_head_that_is_not_needed_leaves_the_power_law_room() -> None:
    """On an exact power law a head far down fits a little better than others in some draws: that is no reason to say
    that there is no power law."""
    curves = np.stack([noisy("power law, tail 0.8", 1536, seed, scattered=False) for seed in range(60)])
    smallest = HeadFits(curves).best(step=True)
    narrow = window_end(smallest.tail, 1536) < np.e * (smallest.head_rank + 1)
    assert narrow.sum() >= 10
    assert power_laws(curves).holds.sum() >= 54
    shelf = np.stack([noisy("shelf, cliff 43-57", 1536, seed) for seed in range(20)])
    assert (power_laws(shelf).fit.head_rank == HeadFits(shelf).best(step=True).head_rank).mean() >= 0.9


def test_where_there_is_no_power_law_the_reason_says_why() -> None:
    tailed = LAWS["power law, log-log tail from ln rank 5"].layer(1536, np.random.default_rng(0), scattered=False)
    line = power_law(tailed)
    assert line.kappa is None
    assert line.beta is None
    assert line.deviation(tailed) is None
    assert "span" in str(line.reason)
    assert line.head_rank is not None
    assert line.tail is not None
    stairs = -0.6 * np.round(log_rank(600) / 0.6)
    rough = power_law(stairs)
    assert rough.kappa is None
    assert rough.straight_share is not None
    assert rough.straight_share < 0.8
    assert f"{100 * rough.straight_share:.0f} % of the ranks {rough.first_rank} to {rough.last_rank}" in str(
        rough.reason
    )


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        (-log_rank(149), "149 neurons with an influence above 0; a power law needs 150"),
        (np.zeros(0), "0 neurons"),
        (np.full(300, 0.7), "all have the same influence"),
        (np.append(np.zeros(200), -log_rank(200)), "all have the same influence"),
        (np.append([np.inf], -log_rank(200)), "not finite"),
    ],
)
def test_curves_without_a_line_say_why(curve: np.ndarray, said: str) -> None:
    line = power_law(curve)
    assert said in str(line.reason)
    assert line == PowerLaw(reason=line.reason), "everything else is missing"


def test_many_short_curves_are_refused() -> None:
    with pytest.raises(ValueError, match="curves of 149 ranks"):
        power_laws(np.zeros((2, 149)))


def test_nothing_is_ever_nan() -> None:
    """Ties, a single step, and curves of two values."""
    curves = [np.repeat(-log_rank(30), 10), np.append(np.ones(40), np.zeros(260)), np.linspace(0, -9, 200)]
    curves.append(np.append(np.ones(1), np.full(199, -1e-7)))
    with np.errstate(all="raise"):
        lines = [power_law(curve) for curve in curves]
    for line in lines:
        values = [value for value in vars(line).values() if isinstance(value, float)]
        assert np.isfinite(values).all()
        assert line.kappa is not None or line.reason
