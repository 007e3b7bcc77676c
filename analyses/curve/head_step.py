"""Is there a step at the head of a curve of influence? The scan and the jump, as one test.

They see different plateaus: the scan sees a cliff that stands out from the spacings around it, the jump a head that no
continuous curve can follow. Either may find the step, so p = min(1, 2 min(p_scan, p_jump)) (Bonferroni).
"""

from dataclasses import dataclass

import numpy as np

from rare_tokens.analyses.curve.head_jump import curves_without_step, jump, smooth_fit
from rare_tokens.analyses.curve.head_scan import scan, scan_p
from rare_tokens.analyses.result_table import FloatArray

DRAWS = 1_999  # from the jump's null distribution
FEWEST_DRAWS = 399  # with fewer, p below 0.01 takes luck: 2/(1 + draws) must be well below it
POWER_DRAWS = 199
LEVEL = 0.01


@dataclass(frozen=True)
class StepTest:
    """The test of one curve.

    Attributes:
        p_value: min(1, 2 min(p_scan, p_jump)).
        p_scan: p of the most surprising run of spacings, allowing for the search.
        p_jump: p of what a step gains over the best curve without one.
        surprise: the scan's statistic, −ln p of that run before allowing for the search.
        jump: the jump's statistic, (RSS_hinge − RSS_free) / RSS_free.
        cliff_first: last rank above the scan's run; None if no run stands out at all.
        cliff_last: first rank below it.
    """

    p_value: float
    p_scan: float
    p_jump: float
    surprise: float
    jump: float
    cliff_first: int | None
    cliff_last: int | None


class StepNull:
    """The test's null distribution: curves like a given one that have no step.

    Args:
        curve: log influence in descending order, shape (n,), n ≥ 150, not all equal.
        error: standard error of each neuron's log influence, in the same order, shape (n,); None: taken as 0.
        draws: from the jump's null distribution.
        seed: of the draws.
    """

    def __init__(
        self, curve: FloatArray, error: FloatArray | None = None, *, draws: int = DRAWS, seed: int = 0
    ) -> None:
        self.n, self.error, self.seed = len(curve), error, seed
        self.fit = smooth_fit(curve)
        rng = np.random.default_rng([seed, 0])
        drawn = curves_without_step(self.fit, self.n, draws, rng, error=error)
        self.jumps = np.sort(np.concatenate([jump(curves) for curves in drawn]))

    def p_values(self, curves: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """p, p_scan and p_jump of B curves (B, n), shape (B,) each."""
        at_least = len(self.jumps) - np.searchsorted(self.jumps, jump(curves), side="left")
        p_jump = (1 + at_least) / (1 + len(self.jumps))
        p_scan = scan_p(scan(curves).surprise, self.n)
        return np.minimum(1.0, 2 * np.minimum(p_scan, p_jump)), p_scan, p_jump

    def power(self, size: int, height: float, *, draws: int = POWER_DRAWS) -> float:
        """How often p < 0.01 where the `size` most influential neurons are raised by `height` in log influence."""
        rng = np.random.default_rng([self.seed, 1])
        drawn = curves_without_step(self.fit, self.n, draws, rng, error=self.error, raised=(size, height))
        return float(np.mean(np.concatenate([self.p_values(curves)[0] for curves in drawn]) < LEVEL))


def step_test(curve: FloatArray, null: StepNull) -> StepTest:
    """Test one curve, shape (n,), against curves like it that have no step."""
    found = scan(curve[None, :])
    p_value, p_scan, p_jump = (float(p[0]) for p in null.p_values(curve[None, :]))
    first, last = int(found.first[0]), int(found.last[0])
    return StepTest(
        p_value=p_value,
        p_scan=p_scan,
        p_jump=p_jump,
        surprise=float(found.surprise[0]),
        jump=float(jump(curve[None, :])[0]),
        cliff_first=first or None,
        cliff_last=last or None,
    )
