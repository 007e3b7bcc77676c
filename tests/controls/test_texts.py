"""How far two texts of the controls lie apart."""

import numpy as np
import pytest

from rare_tokens.analyses.curve.effect_cells import WindowSums
from studies.controls.texts import blocks, planted_elsewhere, text_difference
from studies.synthetic.heads import Head, power_law

NEURONS = 400


def test_windows_as_one_keep_their_sums_and_leave_the_rest_out():
    sums = WindowSums(np.arange(2), np.array([1.0, 2, 3, 4, 5]), np.arange(10.0).reshape(2, 5))
    found = blocks(sums, 2)
    assert found.positions.tolist() == [3, 7]
    assert found.sums.tolist() == [[1, 5], [11, 15]]


def test_the_move_between_two_texts_and_its_slope_are_what_they_were_made():
    rng = np.random.default_rng(0)
    line = -0.4 * np.log(np.arange(1, NEURONS + 1))
    windows = rng.gamma(50, size=(NEURONS, 40)) / 50
    first = WindowSums(np.arange(NEURONS), np.ones(40), np.exp(line)[:, None] * windows)
    other = WindowSums(np.arange(NEURONS), np.ones(40), np.exp(0.9 * line)[:, None] * windows)
    found = text_difference(first, other)
    assert found["slope"] == pytest.approx(-0.1, abs=0.01)
    assert found["moved"] == pytest.approx(0.1 * line.std(), rel=0.1)
    # Windows are independent here, so neighbours taken together say the same error.
    assert found["error"]["8"] == pytest.approx(found["error"]["1"], rel=0.2)
    assert found["error"]["1"] == pytest.approx(1 / np.sqrt(50 * 40), rel=0.1)


def test_a_slope_between_texts_raises_the_step_and_flattens_the_line():
    own = -0.4 * np.log(np.arange(1, NEURONS + 1))
    truth = Head(power_law(0.4, 0.3), 0.4, (10, 0.7))
    alike = planted_elsewhere(own, truth, 0.02, 0.0, draws=10)
    apart = planted_elsewhere(own, truth, 0.05, -0.1, draws=10)
    assert alike["step"] == pytest.approx(0.7, abs=0.05)
    assert alike["kappa"] == pytest.approx(0.4, abs=0.02)
    assert apart["step"] > alike["step"] + 0.05
    assert apart["kappa"] < alike["kappa"] - 0.02
