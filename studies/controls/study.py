"""Plants known truths in a model folder and looks for them with the whole pipeline.

    python -m studies.controls.study --data DIR [--part curves together untrained shuffled texts] [--only TEXT]

DIR holds `models/novella`, `corpora/c4-sample` and `frequencies/novella-training.npy`. Half of the corpus's passages
are for planting, the other half is what the pipeline sees. Each row goes to studies/results/controls.json as soon as it
is there, and rows already there are not computed again. `python -m studies.controls.page` then writes docs/controls.md.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rare_tokens.analyses.result_table import FloatArray
from studies.controls import shuffled, texts
from studies.controls.found import OF_MODULES, difference_found, module_found, plateau_found
from studies.controls.last_mlp import LastMlp, untrained
from studies.controls.pipeline import PASSAGE, Text, analyze, halves, influence, ingest, permuted_counts
from studies.controls.planting import Planted, plant, share_driver
from studies.synthetic.heads import Head, power_law, quadratic

RESULTS = Path(__file__).resolve().parent.parent / "results" / "controls.json"
Row = dict[str, Any]
NEURONS, PLANTED = 1_024, 10  # 1 % of the layer
PRESETS = ("es", "nc", "ds")
LINE = power_law(0.4, 0.3)  # about as steep as novella's own curve
TRUTHS = {
    "1 % raised by 0.7": Head(LINE, 0.4, (PLANTED, 0.7)),
    "1 % raised by 0.5": Head(LINE, 0.4, (PLANTED, 0.5)),
    "line without a step": Head(LINE, 0.4),
    "smooth concave curve": Head(quadratic(0.15, 0.045)),
}
FIXED, SCATTERED, DOCUMENTS = "fixed", "scattered", "documents"  # how a curve is planted: see `curves`
MODULE, SHARE, STRONG = 20, 0.9, 0.98
AS_MODULE = Head(LINE, 0.4, (MODULE, 0.7))


@dataclass(frozen=True)
class Bench:
    """Where the study works.

    Attributes:
        data: folder of real models, corpora and counts.
        folder: an empty folder.
        planting: text that is planted with.
        finding: text that the pipeline sees.
    """

    data: Path
    folder: Path
    planting: Text
    finding: Text

    @property
    def trained(self) -> Path:
        """The last step of novella."""
        return self.data / "models" / "novella" / "step3979"

    @property
    def counts(self) -> Path:
        """Counts of its training tokens."""
        return self.data / "frequencies" / "novella-training.npy"

    def of(self, positions: int) -> "Bench":
        """The same with this many positions of both texts."""
        return replace(
            self,
            planting=replace(self.planting, positions=positions),
            finding=replace(self.finding, positions=positions),
        )


def bench(data: Path, folder: Path, positions: int = 8_192, *, documents: bool = False) -> Bench:
    """Divide the corpus, by passages or by whole documents."""
    words = None if documents else PASSAGE
    planting, finding = halves(data / "corpora" / "c4-sample" / "c4_sample.jsonl", folder, words=words)
    counts = str(data / "frequencies" / "novella-training.npy")
    return Bench(data, folder, Text(planting, counts, positions), Text(finding, counts, positions))


@cache
def unedited(at: Bench, preset: str) -> FloatArray:
    """Influence of novella's neurons as they are, on the text for planting."""
    return influence(LastMlp(at.trained), at.planting, preset, at.folder)


def planted_curve(at: Bench, truth: Head, preset: str, seed: int, *, scattered: bool = False) -> tuple[Planted, str]:
    """Plant a curve in novella, save it, and ablate it on the other text; returns what was planted and the run."""
    rng = np.random.default_rng([seed, 151])
    mlp = LastMlp(at.trained)
    first = rng.choice(NEURONS, truth.raised[0], replace=False)
    curve = truth.layer(NEURONS, rng, scattered=scattered)
    planted = plant(
        mlp, curve, first, lambda edited: influence(edited, at.planting, preset, at.folder),
        edits=2, start=unedited(at, preset),
    )  # fmt: skip
    return planted, ingest(mlp.save(at.folder / "edited"), at.finding, at.folder / "controls.duckdb")


def curves(at: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    """A step at the head, a line and a smooth curve without one.

    Neurons lie on the curve (`fixed`) or are independent draws of it (`scattered`); `documents` is as `fixed`, but
    whole documents are divided into the two texts.
    """

    def row(name: str, preset: str, seed: int, kind: str) -> Row:
        here = at.of(16_384) if preset == "es" else at  # so few positions are rare words of `es`
        if kind == DOCUMENTS:
            (at.folder / DOCUMENTS).mkdir(exist_ok=True)
            here = bench(at.data, at.folder / DOCUMENTS, documents=True)
        planted, run_id = planted_curve(here, TRUTHS[name], preset, seed, scattered=kind == SCATTERED)
        warehouse = here.folder / "controls.duckdb"
        analyze(warehouse, run_id, ["regimes"])
        size, step = TRUTHS[name].raised
        return {
            "truth": name, "preset": preset, "seed": seed, "positions": here.finding.positions, "kind": kind,
            "planted": {"size": size, "step": step, "kappa": TRUTHS[name].kappa},
            "planting_error": round(planted.error, 4),
            **plateau_found(warehouse, run_id, preset, planted),
        }  # fmt: skip

    for seed in range(3):
        for name, preset, kind, seeds in (
            ("1 % raised by 0.7", "nc", FIXED, 3),
            ("smooth concave curve", "nc", FIXED, 1),
            ("smooth concave curve", "nc", SCATTERED, 2),
            ("1 % raised by 0.7", "es", FIXED, 1),
            ("1 % raised by 0.5", "nc", FIXED, 2),
            ("line without a step", "nc", FIXED, 1),
            ("1 % raised by 0.7", "nc", SCATTERED, 1),
            ("1 % raised by 0.7", "nc", DOCUMENTS, 1),
        ):
            if seed < seeds:
                yield f"{name} | {preset} | {kind} | {seed}", partial(row, name, preset, seed, kind)


def together(at: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Neurons that read one direction, and the model without them."""

    def row(seed: int | None, share: float) -> Row:
        warehouse, rng = at.folder / "controls.duckdb", np.random.default_rng([seed or 0, 152])
        members = np.sort(rng.choice(NEURONS, MODULE, replace=False))
        mlp, planted = LastMlp(at.trained), {}
        if seed is not None:
            share_driver(mlp, members, share, rng)
            curve = AS_MODULE.layer(NEURONS, rng, scattered=False)
            made = plant(
                mlp, curve, members, lambda edited: influence(edited, at.planting, "nc", at.folder),
                edits=2,
            )  # fmt: skip
            planted = {"size": MODULE, "share": share, "planting_error": round(made.error, 4)}
        run_id = ingest(mlp.save(at.folder / "edited"), at.finding, warehouse)
        analyze(warehouse, run_id, OF_MODULES)
        return {"seed": seed, "planted": planted, **module_found(warehouse, run_id, members)}

    for seed, share in (*((seed, SHARE) for seed in range(2)), *((seed, STRONG) for seed in range(4))):
        yield f"module | {share} | {seed}", partial(row, seed, share)
    yield "module | none", partial(row, None, 0.0)


def no_training(at: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Step 0 of novella, and models of the same shape drawn anew."""

    def row(seed: int) -> Row:
        warehouse = at.folder / "controls.duckdb"
        model = at.data / "models" / "novella" / "step0"
        if seed:
            model = untrained(model, seed, at.folder / "untrained")
        run_id = ingest(model, at.finding, warehouse)
        analyze(warehouse, run_id, ["regimes"])
        return {"seed": seed, **{preset: plateau_found(warehouse, run_id, preset) for preset in PRESETS}}

    for seed in range(3):
        yield f"untrained | {seed}", partial(row, seed)


def shuffled_labels(at: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Whole runs with permuted counts; then many shuffles over the stored effects of one run."""
    warehouse = at.folder / "controls.duckdb"

    def row(seed: int) -> Row:
        counts = permuted_counts(at.counts, seed, at.folder / f"permuted-{seed}.npy")
        run_id = ingest(at.trained, replace(at.finding, frequencies=str(counts)), warehouse)
        analyze(warehouse, run_id, ["regimes", "plateau_difference"])
        return {"seed": seed, **{preset: difference_found(warehouse, run_id, preset) for preset in PRESETS}}

    def many() -> Row:
        run_id = ingest(at.trained, at.finding, warehouse)
        effects, counts = shuffled.stored_effects(warehouse, run_id, at.finding.window), np.load(at.counts)
        true = shuffled.halves_of_occurrences(effects, counts)
        draws: dict[str, Callable[[np.random.Generator], shuffled.Labels]] = {
            "positions": lambda rng: shuffled.by_positions(true, rng),
            "coins": lambda rng: shuffled.by_coins(effects, len(counts), rng),
            "counts": lambda rng: shuffled.by_counts(effects, counts, rng),
        }
        return {kind: shuffled.rejections(effects, draw, 200) for kind, draw in draws.items()}

    yield "stored effects", many
    for seed in range(4):
        yield f"shuffled | {seed}", partial(row, seed)


def two_texts(at: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    """What the text for planting and the text in hand say of the same neurons."""

    def row() -> Row:
        warehouse = at.folder / "controls.duckdb"
        runs = [ingest(at.trained, text, warehouse) for text in (at.planting, at.finding)]
        for run_id in runs:
            analyze(warehouse, run_id, ["regimes"])
        first, second = (texts.rare_sums(warehouse, run_id, "nc") for run_id in runs)
        found = texts.text_difference(first, second)
        return {
            "preset": "nc",
            **found,
            "decided": [plateau_found(warehouse, run_id, "nc") for run_id in runs],
            "simulated": [
                texts.planted_elsewhere(np.log(first.influence()), TRUTHS["1 % raised by 0.7"], found["moved"], slope)
                for slope in (0.0, found["slope"])
            ],
        }

    yield "unedited", row


PARTS = {
    "curves": curves,
    "together": together,
    "untrained": no_training,
    "shuffled": shuffled_labels,
    "texts": two_texts,
}


def write(part: str, key: str, row: Row) -> None:
    """Add a row to the results, replacing the file atomically, so that stopping loses nothing."""
    known = stored()
    known["machine"] = (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, PyTorch "
        f"{torch.__version__}, NumPy {np.__version__}"
    )
    known[part] = known.get(part, {}) | {key: row}
    RESULTS.parent.mkdir(exist_ok=True)
    beside = RESULTS.with_suffix(".part")
    beside.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(RESULTS)


def stored() -> dict[str, Any]:
    """The results so far."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    return found


def main() -> None:
    """Compute the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of models, corpora and frequencies")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        at = bench(given.data, Path(temporary))
        for part in given.part:
            for key, compute in PARTS[part](at):
                if given.only not in key or key in stored().get(part, {}):
                    continue
                start = time.perf_counter()
                row = compute()
                write(part, key, row | {"seconds": round(time.perf_counter() - start, 1)})
                print(part, key, row, flush=True)
                (at.folder / "controls.duckdb").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
