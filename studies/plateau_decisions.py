"""Is the decision on the plateau honest? A simulation study with a known truth; and what regimes and sensitivity cost.

    python -m studies.plateau_decisions [--quick] [--workers 4] [--part times null smooth located]

Curves of N neurons with power law κ, tail from ln r = 5 and a plateau of 0.3, 1 or 1.7 % of N raised by δ, drawn as

* `draws`: neurons are independent draws (Pareto order statistics);
* `draws+error`: these, each measured with a log-normal error of median 5 % (what `novella` has at 8,192 positions) and
  sorted again: as real influence is, and as the decision's null is;
* `error`: a fixed curve, measured with such errors and sorted again, decided with the null for a fixed population
  (`scattered=False`), and for comparison with the decision's own, which is conservative there.

Asked (issue C): without a plateau at most 7 of 200 seeds are called present at p < 0.01, and 2 to 21 of 200 have
p < 0.05; with m neurons where m·δ ≥ 10 κ and δ ≥ 0.5, the break is within 0.15 in ln rank in at least 90 of 100 seeds
and inside its 95 % interval in 90 to 99. The baseline beside it is least squares with BIC. Everything goes to
studies/results/plateau_decisions.json.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rare_tokens.analyses.curve.effect_cells import WindowSums, window_sums
from rare_tokens.analyses.curve.intervals import influence_intervals
from rare_tokens.analyses.curve.piecewise import fit_regimes
from rare_tokens.analyses.curve.plateau_decision import Decision, decide
from rare_tokens.analyses.curve.power_law import LEAST_RANKS, auto_window, break_grid, log_rank
from rare_tokens.analyses.curve.regimes import regimes
from rare_tokens.analyses.curve.threshold_sensitivity import threshold_sensitivity
from studies.synthetic.curves import Truth

SIZES, KAPPAS = (1_024, 3_072, 6_400), (0.6, 1.0, 1.84)
SHARES, STEPS = (0.003, 0.01, 0.017), (0.3, 0.5, 1.0)
# Median relative standard error of a neuron's influence on novella's rare tokens, bootstrap over the windows of 25,088
# positions: 0.04 to 0.07 with the preset `es`, 0.07 to 0.16 with `ds`, whose rare tokens are a few hundred.
NOISES = ("draws", 0.05), ("draws+error", 0.05), ("draws+error", 0.1), ("draws+error", 0.16), ("error", 0.05)
RESULTS = Path(__file__).resolve().parent / "results" / "plateau_decisions.json"
Row = dict[str, Any]
Case = tuple[Truth, bool, int, int, bool]  # truth, scattered null, seed, draws, with the baseline


def main() -> None:
    """Run the parts asked for and write their results beside those of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the seeds; nothing is written")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    given = parser.parse_args()
    for name in given.part:
        start = time.perf_counter()
        result = PARTS[name](given.workers, 10 if given.quick else 1)
        result |= {"seconds": round(time.perf_counter() - start, 1), "workers": given.workers, "machine": machine()}
        print(json.dumps({name: {key: value for key, value in result.items() if key != "settings"}}, indent=2))
        if not given.quick:
            known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(known | {name: result}, indent=1) + "\n", encoding="utf-8")


def machine() -> str:
    """What the figures were measured on."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}"


# --- simulation study -----------------------------------------------------------------------------------------------


def decide_case(case: Case) -> Row:
    """Decide one synthetic curve."""
    truth, scattered, seed, draws, baseline = case
    key = [seed, truth.n, round(100 * truth.kappa), truth.plateau, round(100 * truth.step)]
    curve, error = truth.draw(np.random.default_rng(key))
    found = decide(curve, error, draws=draws, seed=seed, scattered=scattered, bend=False)
    assert isinstance(found, Decision)
    row: Row = {
        "verdict": found.verdict,
        "p": found.p_value,
        "power": found.power,
        "rank": found.rank,
        "covered": found.rank_low <= truth.plateau <= found.rank_high,
        "step_covered": found.step_low <= truth.step <= found.step_high,
        "step": found.step,
    }
    if baseline:
        fits = {(fit.head, fit.tail): fit for fit in fit_regimes(curve)}
        best = min(fits.values(), key=lambda fit: fit.bic)
        row |= {"bic_head": best.head != "none", "bic_rank": fits["level", truth.tail].head_rank}
    return row


def spread(work: Callable[[Any], Any], cases: Iterable[Any], workers: int) -> Iterator[Any]:
    """All cases, in order, on so many processes of one thread each."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # read by the workers, which start afresh
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(work, cases, chunksize=10)


def near(rank: int, plateau: int) -> bool:
    """Whether a break is within 0.15 in ln rank of the true one."""
    return abs(float(np.log(rank / plateau))) <= 0.15


def null_study(workers: int, part: int) -> Row:
    """No plateau in the truth: how often is one called, at 1 % and at 5 %?"""
    seeds = 200 // part
    kinds = [("draws", "loglog", True), ("draws+error", "loglog", True), ("draws+error", "linear", True)]
    kinds += [("error", "loglog", False), ("error", "loglog", True)]
    settings = [
        (Truth(n, kappa, noise=noise, tail=tail), scattered)  # type: ignore[arg-type]
        for (noise, tail, scattered), n, kappa in itertools.product(kinds, SIZES, KAPPAS)
    ]
    cases = [
        (truth, scattered, 10_000 + seed, 999, truth.noise == "draws" and seed < 60)
        for truth, scattered in settings
        for seed in range(seeds)
    ]
    found = spread(decide_case, cases, workers)
    rows = []
    for truth, scattered in settings:
        results = list(itertools.islice(found, seeds))
        bic = [row["bic_head"] for row in results if "bic_head" in row]
        rows.append(
            {
                **described(truth, scattered),
                "seeds": seeds,
                "present": sum(row["verdict"] == "present" for row in results),
                "below_0_05": sum(row["p"] < 0.05 for row in results),
                "undecided": sum(row["verdict"] == "undecided" for row in results),
                "power": round(float(np.mean([row["power"] for row in results])), 3),
                "bic_finds_a_head": f"{sum(bic)} of {len(bic)}" if bic else None,
            }
        )
        print(rows[-1], flush=True)
    specified = [row for row in rows if not (row["noise"] == "error" and row["null"] == "draws")]
    conservative = [row for row in rows if row["noise"] == "error" and row["null"] == "draws"]
    return {
        "asked": "of 200 seeds: present at most 7, p < 0.05 in 2 to 21",
        "settings_that_hold_it": f"{sum(holds_null(row) for row in specified)} of {len(specified)}",
        "present_largest": max(row["present"] for row in specified),
        "below_0_05_range": [min(r["below_0_05"] for r in specified), max(r["below_0_05"] for r in specified)],
        "fixed_curve_with_the_null_of_draws": {
            "present_largest": max(row["present"] for row in conservative),
            "below_0_05_range": [
                min(r["below_0_05"] for r in conservative),
                max(r["below_0_05"] for r in conservative),
            ],
        },
        "settings": rows,
    }


POPULATIONS: dict[str, Callable[[np.random.Generator, int], np.ndarray[Any, np.dtype[np.float64]]]] = {
    "log-normal, σ 0.8": lambda rng, n: 0.8 * rng.standard_normal(n),
    "log-normal, σ 1.2": lambda rng, n: 1.2 * rng.standard_normal(n),
    "exponential": lambda rng, n: np.log(rng.standard_exponential(n)),
    "gamma, shape 0.5": lambda rng, n: np.log(rng.standard_gamma(0.5, n)),
}


def smooth_case(case: tuple[str, int, int]) -> tuple[str, float]:
    """Decide a population that has no power law at all."""
    name, n, seed = case
    curve = -np.sort(-POPULATIONS[name](np.random.default_rng([seed, n]), n))
    found = decide(curve, draws=999, seed=seed, bend=False)
    assert isinstance(found, Decision)
    return found.verdict, found.p_value


def smooth_study(workers: int, part: int) -> Row:
    """Influence that falls smoothly without a power law, as that of real models does: is a plateau called?"""
    seeds, rows = 200 // part, []
    settings = list(itertools.product(POPULATIONS, SIZES))
    cases = [(name, n, seed) for name, n in settings for seed in range(seeds)]
    found = spread(smooth_case, cases, workers)
    for name, n in settings:
        results = list(itertools.islice(found, seeds))
        verdicts = [verdict for verdict, _ in results]
        counts = {verdict: verdicts.count(verdict) for verdict in ("present", "undecided", "absent")}
        rows.append(
            {"population": name, "n": n, "seeds": seeds} | counts | {"below_0_05": sum(p < 0.05 for _, p in results)}
        )
        print(rows[-1], flush=True)
    return {
        "asked": "of 200 seeds: present at most 7",
        "present_largest": max(r["present"] for r in rows),
        "settings": rows,
    }


def holds_null(row: Row) -> bool:
    """Whether a setting without a plateau keeps what is asked."""
    return row["present"] <= 7 and 2 <= row["below_0_05"] <= 21


def described(truth: Truth, scattered: bool) -> Row:
    """The setting, as columns."""
    return {
        "n": truth.n, "kappa": truth.kappa, "noise": truth.noise, "tail": truth.tail,
        "error": None if truth.noise == "draws" else truth.error,
        "null": "draws" if scattered else "fixed",
    }  # fmt: skip


def located_study(workers: int, part: int) -> Row:
    """A plateau in the truth: is it found, and where? Where no oracle finds it: only drawn as real influence is."""
    seeds = 100 // part
    every = [
        Truth(n, kappa, plateau=round(share * n), step=step, noise=noise, error=error)  # type: ignore[arg-type]
        for (noise, error), n, kappa, share, step in itertools.product(NOISES, SIZES, KAPPAS, SHARES, STEPS)
    ]
    settings = [truth for truth in every if findable(truth) or (truth.noise == "draws+error" and truth.error == 0.05)]
    cases = [
        (truth, truth.noise != "error", seed, 299, truth.noise == "draws" and findable(truth))
        for truth in settings
        for seed in range(seeds)
    ]
    found = spread(decide_case, cases, workers)
    rows = []
    for truth in settings:
        results = list(itertools.islice(found, seeds))
        bic = [row["bic_rank"] for row in results if row.get("bic_rank")]
        rows.append(
            {
                **described(truth, truth.noise != "error"),
                "plateau": truth.plateau,
                "step": truth.step,
                "strength": round(truth.plateau * truth.step / truth.kappa, 2),
                "asked": findable(truth) and truth.error == 0.05,
                "noisier": findable(truth) and truth.error > 0.05,
                "seeds": seeds,
                "near": sum(near(row["rank"], truth.plateau) for row in results),
                "exact": sum(row["rank"] == truth.plateau for row in results),
                "covered": sum(row["covered"] for row in results),
                "step_covered": sum(row["step_covered"] for row in results),
                "step_median": round(float(np.median([row["step"] for row in results])), 3),
                "present": sum(row["verdict"] == "present" for row in results),
                "undecided": sum(row["verdict"] == "undecided" for row in results),
                "absent": sum(row["verdict"] == "absent" for row in results),
                "least_squares_near": sum(near(rank, truth.plateau) for rank in bic) if bic else None,
            }
        )
        print(rows[-1], flush=True)
    asked = [row for row in rows if row["asked"]]
    rest = [row for row in rows if not row["asked"] and not row["noisier"]]
    squares = [row["least_squares_near"] for row in asked if row["least_squares_near"] is not None]
    return {
        "asked": "where m·δ ≥ 10 κ and δ ≥ 0.5, of 100 seeds: near at least 90, covered in 90 to 99",
        "near_smallest": min(row["near"] for row in asked),
        "settings_near": f"{sum(row['near'] >= 0.9 * seeds for row in asked)} of {len(asked)}",
        "covered_smallest": min(row["covered"] for row in asked),
        "settings_covered_90_to_99": f"{sum(90 <= row['covered'] <= 99 for row in asked)} of {len(asked)}",
        "settings_covered_100": f"{sum(row['covered'] == seeds for row in asked)} of {len(asked)}",
        "of_which_break_exact_in_95_or_more": sum(r["covered"] == seeds and r["exact"] >= 0.95 * seeds for r in asked),
        "present_mean": round(float(np.mean([row["present"] for row in asked])), 1),
        "present_smallest": min(row["present"] for row in asked),
        "step_covered_mean": round(float(np.mean([row["step_covered"] for row in asked])), 1),
        "least_squares_near_mean": round(float(np.mean(squares)), 1),
        "noisier": {
            str(error): {
                f"{name}_range": [min(row[name] for row in noisy), max(row[name] for row in noisy)]
                for name in ("near", "exact", "covered", "step_covered", "present")
            }
            for error, noisy in grouped_by_error([row for row in rows if row["noisier"]])
        },
        "elsewhere": {
            name: round(float(np.mean([row[name] for row in rest])), 1) for name in ("present", "undecided", "absent")
        },
        "settings": rows,
    }


def grouped_by_error(rows: list[Row]) -> list[tuple[float, list[Row]]]:
    """The settings of each standard error."""
    return [(error, [row for row in rows if row["error"] == error]) for error in sorted({row["error"] for row in rows})]


def findable(truth: Truth) -> bool:
    """Where even an oracle can find the plateau (issue C)."""
    return truth.step >= 0.5 and truth.plateau * truth.step >= 10 * truth.kappa - 1e-9


# --- times ----------------------------------------------------------------------------------------------------------


def times(_workers: int, part: int) -> Row:
    """Regimes, intervals and sensitivity of one run of 98 windows × 256 positions; 1,000 bootstraps each."""
    rows = []
    for n in (1_024, 6_400):
        cells = synthetic_cells(n, 98 // part)
        timed: Row = {"neurons": n, "positions": 98 // part * 256, "rows_of_agg_effect": cells.height}
        sums = clock(timed, "window_sums_of_six_groups", six_groups, cells)
        influence = pl.concat(
            pl.DataFrame({"preset": key[0], "token_group": key[1], "neuron": one.neurons, "influence": one.influence()})
            for key, one in sums.items()
        )
        curve = np.log(-np.sort(-influence["influence"].to_numpy()[:n]))
        clock(timed, "auto_window_once", auto_window, curve)
        clock(timed, "auto_window_once_by_lstsq", obvious_window, curve)
        clock(timed, "regimes_of_six_groups", regimes, influence, sums)
        clock(timed, "intervals_of_one_group", influence_intervals, "es", "rare", sums["es", "rare"])
        clock(timed, "intervals_of_six_groups", six_intervals, sums)
        clock(timed, "sensitivity", threshold_sensitivity, cells)
        rows.append(timed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"asked": "sensitivity ≤ 20 s, 1,000 bootstraps ≤ 30 s, ≤ 4 GB", "runs": rows, "peak_gb": round(peak, 2)}


def clock(row: Row, name: str, work: Callable[..., Any], *given: Any) -> Any:
    """Do the work and note its seconds."""
    start = time.perf_counter()
    result = work(*given)
    row[name + "_seconds"] = round(time.perf_counter() - start, 4)
    return result


def six_groups(cells: pl.DataFrame) -> dict[tuple[str, str], WindowSums]:
    """Sums by window of both groups of every preset."""
    found = {key: window_sums(cells, *key) for key in itertools.product(("es", "nc", "ds"), ("rare", "common"))}
    return {key: sums for key, sums in found.items() if isinstance(sums, WindowSums)}


def six_intervals(sums: dict[tuple[str, str], WindowSums]) -> list[pl.DataFrame]:
    """Intervals of both groups of every preset."""
    return [influence_intervals(preset, token_group, one) for (preset, token_group), one in sums.items()]


def synthetic_cells(n: int, windows: int) -> pl.DataFrame:
    """`agg_effect` of n neurons as a text would make it: percentiles spread, both kinds rising together."""
    rng = np.random.default_rng(0)
    curve, _ = Truth(n, 1.0, plateau=round(0.01 * n), step=0.5).draw(rng)
    share = rng.beta(4, 1, (windows, 256))
    percentile = np.where(share > 0.5, 75.0, 5 * np.floor(20 * share) + 2.5)
    kinds = (
        pl.DataFrame({"window_id": np.repeat(np.arange(windows), 256), "percentile_bucket": percentile.ravel()})
        .with_columns(
            occurrence_bucket=pl.Series(np.where(share**4 > 0.5, 75.0, 5 * np.floor(20 * share**4) + 2.5).ravel()),
            is_word=pl.Series(rng.random(windows * 256) < 0.7),
            is_elbow=pl.Series(rng.random(windows * 256) < 0.02),
        )
        .group_by(pl.all(), maintain_order=True)
        .agg(positions=pl.len().cast(pl.UInt32))
    )
    neurons = pl.DataFrame({"neuron": np.arange(n, dtype=np.uint16), "influence": np.exp(curve)})
    frame = neurons.join(kinds, how="cross")
    noise = pl.Series(np.exp(0.4 * rng.standard_normal(frame.height)))
    return frame.select(
        "neuron", "window_id", "percentile_bucket", "occurrence_bucket", "is_word", "is_elbow", "positions",
        abs_delta_sum=pl.col("influence") * pl.col("positions") * noise,
    )  # fmt: skip


def obvious_window(curve: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[int, int]:
    """The baseline of `auto_window`: one least-squares problem a pair of breaks."""
    x, best = log_rank(len(curve)), (np.inf, 0, 0)
    for first, second in itertools.combinations(break_grid(len(curve)).tolist(), 2):
        if second - first >= LEAST_RANKS:
            hinges = [np.maximum(x - np.log(rank), 0.0) for rank in (first, second)]
            design = np.stack([np.ones(len(x)), x, *hinges], axis=1)
            rest = curve - design @ np.linalg.lstsq(design, curve, rcond=None)[0]
            best = min(best, (float(rest @ rest), first + 1, second))
    return best[1], best[2]


PARTS: dict[str, Callable[[int, int], Row]] = {
    "times": times,
    "null": null_study,
    "smooth": smooth_study,
    "located": located_study,
}

if __name__ == "__main__":
    main()
