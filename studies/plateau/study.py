"""Does the line find κ, and is the decision on the plateau honest? A simulation study with known truths.

    python -m studies.plateau.study [--part laws smooth plateaus large] [--seeds 200]

Truths are those of `studies.synthetic.heads`, for N = 512 and 1,536, as a fixed layer and as scattered draws, every
neuron measured with an error of 0.07 in log influence and sorted again.

* `laws`: κ of the line, 400 seeds per cell.
* `smooth`: curves without a plateau, 400 seeds: how often is p below 0.01 and 0.05? To save time the jump's null
  distribution is drawn in two stages: 99 curves, and 1,900 more unless at least 10 of the first are as extreme (p is
  then above 0.1). `few_draws` is the same test with the first 499, as for the thresholds of a sensitivity.
* `plateaus`: the whole decision (999 draws, 400 resamples) on curves with a plateau, whose influence is measured in 98
  windows of text, gamma-distributed so that a neuron's standard error is 0.07. An interval should hold the value of the
  line through the same neurons without error, which is what more text would give. In fixed layers that is the truth;
  in scattered ones it does not include the neurons' own scatter.
* `large`: the decision on a pure power law of 6,400 neurons: is a plateau called absent?

Cells are written to studies/results/plateau.json one by one; those already there are not computed again.
"""

import argparse
import itertools
import json
import os
import platform
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rare_tokens.analyses.curve.head_jump import curves_without_step, jump, smooth_fit
from rare_tokens.analyses.curve.head_scan import scan, scan_p
from rare_tokens.analyses.curve.line_intervals import Interval
from rare_tokens.analyses.curve.plateau import Plateau, plateau
from rare_tokens.analyses.curve.power_law import power_laws
from rare_tokens.analyses.result_table import FloatArray
from studies.synthetic.heads import LAWS, PLATEAUS, SMOOTH, Head, measured, measured_in_windows

SIZES, ERROR, SEEDS = (1_536, 512), 0.07, 200
FIRST, ENOUGH, ALL, FEW = 99, 10, 1_999, 499
RESULTS = Path(__file__).resolve().parent.parent / "results" / "plateau.json"
Row = dict[str, Any]


def main() -> None:
    """Compute the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    for part in given.part:
        truths, sizes, cell = PARTS[part]
        for n, name, scattered in itertools.product(sizes, truths, (False, True)):
            known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
            key = f"N {n} | {name} | {'scattered' if scattered else 'fixed'}"
            if key in known.get(part, {}):
                continue
            start = time.process_time()
            row = cell(Setting(name, truths[name], n, scattered), given.seeds)
            row |= {"seconds_of_one_core": round(time.process_time() - start, 1)}
            known["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, NumPy {np.__version__}"
            known[part] = known.get(part, {}) | {key: row}
            write(known)
            print(part, key, row, flush=True)


def write(results: Row) -> None:
    """Replace the results atomically, so that stopping loses nothing."""
    RESULTS.parent.mkdir(exist_ok=True)
    beside = RESULTS.with_suffix(".part")
    beside.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(RESULTS)


@dataclass(frozen=True)
class Setting:
    """A truth, the number of neurons, and whether they are draws of it."""

    name: str
    truth: Head
    n: int
    scattered: bool

    def layer(self, seed: int) -> tuple[FloatArray, np.random.Generator]:
        """The neurons of one seed without error, and the generator that then measures them."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), self.n, self.scattered])
        return self.truth.layer(self.n, rng, scattered=self.scattered), rng


def law_cell(setting: Setting, seeds: int) -> Row:
    """κ of the line."""
    drawn = (setting.layer(seed) for seed in range(2 * seeds))
    found = power_laws(np.stack([measured(layer, ERROR, rng) for layer, rng in drawn]))
    kappa, holds = found.fit.kappa, found.holds
    return {
        "seeds": 2 * seeds,
        "kappa_true": setting.truth.kappa,
        "kappa": median(kappa[holds]),
        "kappa_5_95": [round(float(value), 3) for value in np.quantile(kappa[holds], [0.05, 0.95])]
        if any(holds)
        else None,
        "kappa_of_all_fits": median(kappa),
        "null_share": share(~holds),
        "null_as_too_narrow": share(~found.wide),
        "head_rank": median(found.fit.head_rank),
        "step": median(found.fit.step),
        "tail": median(found.fit.tail),
    }


def smooth_cell(setting: Setting, seeds: int) -> Row:
    """p without a plateau."""
    tests = []
    for seed in range(2 * seeds):
        layer, rng = setting.layer(seed)
        tests.append(quick_test(measured(layer, ERROR, rng), rng))
    p_scan, p_jump, p_few = np.array(tests).T
    p_value = np.minimum(1, 2 * np.minimum(p_scan, p_jump))
    return {
        "seeds": len(tests),
        "below_0_01": share(p_value < 0.01),
        "below_0_05": share(p_value < 0.05),
        "scan_below_0_005": share(p_scan < 0.005),
        "jump_below_0_005": share(p_jump < 0.005),
        "few_draws_below_0_01": share(np.minimum(1, 2 * np.minimum(p_scan, p_few)) < 0.01),
    }


def quick_test(curve: FloatArray, rng: np.random.Generator) -> tuple[float, float, float]:
    """p of scan and jump, and of the jump with few draws, its null distribution drawn in two stages."""
    n, fit, found = len(curve), smooth_fit(curve), float(jump(curve[None, :])[0])
    error = np.full(n, ERROR)

    def drawn(draws: int) -> FloatArray:
        return np.concatenate([jump(curves) for curves in curves_without_step(fit, n, draws, rng, error=error)])

    null = drawn(FIRST)
    if np.sum(null >= found) < ENOUGH:
        null = np.concatenate([null, drawn(ALL - FIRST)])
    p_scan = float(scan_p(scan(curve[None, :]).surprise, n)[0])
    return p_scan, p_of(found, null), p_of(found, null[:FEW])


def p_of(value: float, null: FloatArray) -> float:
    """(1 + #{null ≥ value}) / (1 + draws)."""
    return float((1 + np.sum(null >= value)) / (1 + len(null)))


def plateau_cell(setting: Setting, seeds: int) -> Row:
    """The decision, size, height and slopes with a plateau."""
    found, held = [], Counter[str]()
    widths: dict[str, list[float]] = {"size": [], "step": [], "kappa": [], "head_slope": []}
    for seed in range(seeds):
        layer, rng = setting.layer(seed)
        decided = plateau(measured_in_windows(layer, ERROR, rng), draws=999, resamples=400, seed=seed)
        without_error = power_laws(layer[None, :])
        own = {
            "size": without_error.fit.head_rank[0],
            "step": without_error.fit.step[0],
            "kappa": without_error.fit.kappa[0],
            "head_slope": without_error.head_slope[0],
        }
        for name, interval in intervals(decided).items():
            held[f"{name}_given"] += 1
            held[name] += holds(interval, own[name])
            widths[name].append(interval.high - interval.low)
            held[f"{name}_true"] += name == "size" and holds(interval, setting.truth.raised[0])
        found.append(decided)
    return decisions(found) | {
        "held_of_those_given": {name: round(held[name] / max(1, held[f"{name}_given"]), 3) for name in widths},
        "true_size_held": round(held["size_true"] / seeds, 3) if setting.truth.raised[0] else None,
        "width": {name: median(np.array(values)) for name, values in widths.items()},
    }


def intervals(decided: Plateau) -> dict[str, Interval]:
    """The intervals of a decision."""
    given = {
        "size": decided.size, "step": decided.step, "kappa": decided.kappa, "head_slope": decided.head_slope
    }  # fmt: skip
    return {name: interval for name, interval in given.items() if interval is not None}


def holds(interval: Interval, value: float) -> bool:
    """Whether an interval holds a value, up to rounding."""
    return interval.low - 1e-9 <= value <= interval.high + 1e-9


def decisions(found: list[Plateau]) -> Row:
    """Verdicts and medians of many decisions."""
    p_value = np.array([one.test.p_value for one in found if one.test])
    heads = Counter(str(one.head) for one in found)
    return {
        "seeds": len(found),
        **{
            verdict: share(np.array([one.verdict == verdict for one in found]))
            for verdict in ("present", "undecided", "absent")
        },
        "below_0_01": share(p_value < 0.01),
        "below_0_05": share(p_value < 0.05),
        "head_rank": median(np.array([one.line.head_rank for one in found])),
        "step": median(np.array([one.line.step for one in found])),
        "step_at_least_0_3": share(np.array([(one.line.step or 0) >= 0.3 for one in found])),
        "kappa": median(np.array([one.line.kappa for one in found if one.line.kappa is not None])),
        "null_share": share(np.array([one.line.kappa is None for one in found])),
        "heads": {name: round(heads[name] / len(found), 3) for name in sorted(heads)},
        "size_determined": share(np.array([one.size is not None and one.size.determined for one in found])),
        "power": median(np.array([one.power for one in found])),
    }


def large_cell(setting: Setting, seeds: int) -> Row:
    """The decision as a sensitivity makes it, on a layer large enough to show that a plateau is absent."""
    found = []
    for seed in range(max(1, seeds // 2)):
        layer, rng = setting.layer(seed)
        found.append(plateau(measured_in_windows(layer, ERROR, rng), draws=FEW, resamples=200, seed=seed))
    return decisions(found)


def share(of: np.ndarray[Any, Any]) -> float:
    """Share of True."""
    return round(float(np.mean(of)), 4)


def median(values: np.ndarray[Any, Any]) -> float | None:
    """Median, to three places; None if empty."""
    return round(float(np.median(values.astype(float))), 3) if len(values) else None


Cell = Callable[[Setting, int], Row]
PARTS: dict[str, tuple[dict[str, Head], tuple[int, ...], Cell]] = {
    "laws": (LAWS | PLATEAUS, SIZES, law_cell),
    "smooth": (SMOOTH, SIZES, smooth_cell),
    "plateaus": (PLATEAUS, SIZES, plateau_cell),
    "large": ({"power law, tail 0.3": LAWS["power law, tail 0.3"]}, (6_400,), large_cell),
}

if __name__ == "__main__":
    main()
