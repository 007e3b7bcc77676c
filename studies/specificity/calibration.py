"""Does the test of specificity keep its level on a real run, and does it find what is planted?

    python -m studies.specificity.calibration --warehouse FILE.duckdb --run RUN [--draws 40]

Pseudo-rare positions are drawn among the common ones of preset es, as many in each stratum of loss as there are rare
ones, so that nothing but chance tells them from the rest. In each draw every neuron of the run is tested as `analyze`
tests it: how many have a p-value below 0.05, and is any adjusted p-value below it? Then, in the same draw, |Δ| of one
neuron, another in each draw, is multiplied by 1.5 at the pseudo-rare positions: is it found? Once the neuron is one of
the 50 that matter most for rare tokens, once any one of the layer.

Results are written to studies/results/specificity.json, and their table into docs/specificity.md.
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.warehouse.growth_report import between
from rare_tokens import warehouse
from rare_tokens.analyses.curve.effect_cells import COMMON, RARE
from rare_tokens.analyses.result_table import FloatArray, IntArray
from rare_tokens.analyses.specificity.contrasts import Contrasting, Contrasts
from rare_tokens.analyses.specificity.neuron_specificity import LEVEL, permutation_tests, specific_to
from rare_tokens.analyses.specificity.strata import STRATA, Strata, strata
from rare_tokens.common.version import VERSION

RESULTS = Path(__file__).resolve().parent.parent / "results" / "specificity.json"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "specificity.md"
MADE = "<!-- made by studies/specificity/calibration.py -->"
PERMUTATIONS, PLANTED, HEAD = 2_000, 1.5, 50
Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """What a run measured, as the draws need it.

    Attributes:
        loss: of every position, nats, shape (T,).
        window: of every position, shape (T,).
        rare: the rare positions of preset es, shape (T,).
        common: the common ones, shape (T,).
        magnitude: |Δ|, nats, shape (N, T).
    """

    loss: FloatArray
    window: IntArray
    rare: np.ndarray
    common: np.ndarray
    magnitude: FloatArray


def main() -> None:
    """Compute the draws and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warehouse", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--draws", type=int, default=40)
    given = parser.parse_args()
    with warehouse.open(given.warehouse) as opened:
        (run_row,) = opened.dim_run(run=[given.run]).rows(named=True)
    measured = read(given.warehouse, run_row["run_id"])
    draws = []
    for seed in range(given.draws):
        start = time.perf_counter()
        draws.append(draw(measured, seed) | {"seconds": round(time.perf_counter() - start, 1)})
        print(json.dumps(draws[-1]))
        write(run_row, measured, draws)
    PAGE.write_text(page(), encoding="utf-8")


def read(path: Path, run_id: str) -> Measured:
    """The positions and effects of a run."""
    with warehouse.open(path) as opened:
        positions = opened.dim_position(run_id=run_id).sort("position_id")
        groups = opened.position_group(run_id=run_id, preset="es")
    ids = positions["position_id"]
    sides = [ids.is_in(groups.filter(token_group=side)["position_id"].implode()).to_numpy() for side in (RARE, COMMON)]
    magnitude = np.concatenate(list(warehouse.Magnitudes(path, run_id)))
    return Measured(positions["loss"].to_numpy(), positions["window_id"].to_numpy(), *sides, magnitude)


def draw(measured: Measured, seed: int) -> Row:
    """One draw of pseudo-rare positions: the tests of all neurons, and of one that is planted."""
    rng = np.random.default_rng([seed, 14])
    pseudo = pseudo_rare(measured, rng)
    found = strata(measured.loss, measured.window, pseudo, measured.common & ~pseudo)
    null = contrasts(found, measured.magnitude, seed)
    tests = permutation_tests(null)
    influence = measured.magnitude[:, measured.rare].mean(axis=1)
    among = {"head": np.argsort(-influence)[:HEAD], "layer": np.arange(len(influence))}
    row: Row = {
        "seed": seed,
        "tested": int(np.isfinite(tests.p_value).sum()),
        "share_below": round(float(np.nanmean(tests.p_value < LEVEL)), 5),
        "smallest_adjusted": round(float(np.nanmin(tests.adjusted)), 5),
        "median_detectable": round(float(np.exp(np.nanmedian(tests.detectable))), 3),
    }
    for name, neurons in among.items():
        row |= {
            f"{name}_{key}": value for key, value in planted(measured, found, null, rng.choice(neurons), pseudo, seed)
        }
    return row


def planted(
    measured: Measured, found: Strata, null: Contrasts, neuron: int, pseudo: np.ndarray, seed: int
) -> Iterator[tuple[str, Any]]:
    """What the test says of a neuron whose |Δ| is multiplied at the pseudo-rare positions, among all the others."""
    magnitude = measured.magnitude[neuron : neuron + 1] * np.where(pseudo, PLANTED, 1.0)
    changed = contrasts(found, magnitude, seed)
    own, permuted = null.own.copy(), null.permuted.copy()
    own[neuron], permuted[neuron] = changed.own[0], changed.permuted[0]
    after = permutation_tests(Contrasts(own, null.resampled, permuted))
    ratio, adjusted = float(np.exp(after.specificity[neuron])), float(after.adjusted[neuron])
    yield "planted", int(neuron)
    yield "ratio", round(ratio, 4)
    yield "adjusted", round(adjusted, 5)
    yield "found", specific_to(ratio, adjusted) == RARE


def pseudo_rare(measured: Measured, rng: np.random.Generator) -> np.ndarray:
    """Common positions drawn as rare ones: as many in each decile of the rare positions' loss, shape (T,)."""
    edges = np.quantile(measured.loss[measured.rare], np.arange(1, STRATA) / STRATA)
    stratum = np.searchsorted(edges, measured.loss, side="right")
    chosen = np.zeros(len(measured.loss), dtype=bool)
    for k in range(STRATA):
        among = np.flatnonzero(measured.common & (stratum == k))
        wanted = int((measured.rare & (stratum == k)).sum())
        chosen[rng.choice(among, size=min(wanted, len(among) // 2), replace=False)] = True
    return chosen


def contrasts(found: Strata, magnitude: FloatArray, seed: int) -> Contrasts:
    """The contrasts of some neurons at the strata found, without samples of windows."""
    contrasting = Contrasting(found, draws=0, permutations=PERMUTATIONS, seed=seed)
    contrasting.add(magnitude)
    return contrasting.result()


def write(run_row: Row, measured: Measured, draws: list[Row]) -> None:
    """Write the draws so far, with what they were made from and the machine."""
    kept = ("model", "revision", "layer", "ablation", "positions", "neurons", "corpus")
    written = {
        "machine": f"{platform.machine()}, {platform.python_version()}",
        "version": VERSION,
        "run": {name: run_row[name] for name in kept},
        "rare_positions": int(measured.rare.sum()),
        "common_positions": int(measured.common.sum()),
        "permutations": PERMUTATIONS,
        "planted_ratio": PLANTED,
        "summary": summary(draws),
        "draws": draws,
    }
    RESULTS.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def summary(draws: list[Row]) -> Row:
    """What the draws say together."""
    frame = pl.DataFrame(draws)
    return {
        "draws": len(frame),
        "share_below": round(frame["share_below"].mean(), 4),  # type: ignore[arg-type]
        "draws_with_any_adjusted_below": int((frame["smallest_adjusted"] < LEVEL).sum()),
        "median_detectable": round(frame["median_detectable"].median(), 3),  # type: ignore[arg-type]
        "found_in_the_head": int(frame["head_found"].sum()),
        "found_in_the_layer": int(frame["layer_found"].sum()),
        "median_ratio_in_the_head": round(frame["head_ratio"].median(), 3),  # type: ignore[arg-type]
        "median_ratio_in_the_layer": round(frame["layer_ratio"].median(), 3),  # type: ignore[arg-type]
    }


def page() -> str:
    """The page with the table of the stored results between its marks."""
    made = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    return between(PAGE.read_text(encoding="utf-8"), MADE, made)


def table(stored: Row) -> list[str]:
    """What the draws say, as Markdown."""
    run, found, ratio = stored["run"], stored["summary"], stored["planted_ratio"]
    rows = (
        ("run", f"{run['model']}, layer {run['layer']}, {run['neurons']:,} neurons, {run['positions']:,} positions"),
        ("rare, common positions", f"{stored['rare_positions']:,}, {stored['common_positions']:,}"),
        ("draws", f"{found['draws']}"),
        ("neurons with `p_value` < 0.05", f"{100 * found['share_below']:.1f} % (5 % expected)"),
        ("draws with any `adjusted_p_value` < 0.05", f"{found['draws_with_any_adjusted_below']}"),
        (f"planted ratio of {ratio:g} found, in one of the first {HEAD}", f"{found['found_in_the_head']}"),
        ("median ratio measured there", f"{found['median_ratio_in_the_head']:.2f}"),
        (f"planted ratio of {ratio:g} found, in any neuron", f"{found['found_in_the_layer']}"),
        ("median ratio measured there", f"{found['median_ratio_in_the_layer']:.2f}"),
        ("median `detectable_ratio`", f"{found['median_detectable']:.2f}"),
    )
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


if __name__ == "__main__":
    main()
