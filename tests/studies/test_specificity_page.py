"""docs/specificity.md: its table of the calibration is that of the stored draws, which hold what they should."""

import json

import numpy as np
import pytest

from studies.specificity import calibration


@pytest.fixture(scope="module")
def stored():
    return json.loads(calibration.RESULTS.read_text(encoding="utf-8"))


def test_the_page_has_the_stored_table():
    assert calibration.PAGE.read_text(encoding="utf-8") == calibration.page()


def test_the_summary_is_that_of_the_draws_and_within_what_is_asked(stored):
    assert stored["summary"] == calibration.summary(stored["draws"])
    assert stored["summary"]["draws"] == 40
    assert 0.03 <= stored["summary"]["share_below"] <= 0.07
    assert stored["summary"]["draws_with_any_adjusted_below"] <= 6


def test_pseudo_rare_positions_have_the_rare_ones_losses():
    rng = np.random.default_rng(0)
    loss = rng.gamma(2, 2, 20_000)
    rare = rng.random(20_000) < loss / 40
    measured = calibration.Measured(loss, np.arange(20_000) // 200, rare, ~rare, np.ones((1, 20_000)))
    chosen = calibration.pseudo_rare(measured, rng)
    assert not (chosen & rare).any()
    assert chosen.sum() == pytest.approx(rare.sum(), rel=0.02)
    deciles = np.arange(1, 10) / 10
    assert np.quantile(loss[chosen], deciles) == pytest.approx(np.quantile(loss[rare], deciles), rel=0.05)
