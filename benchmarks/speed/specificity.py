"""What the test of specificity costs, beside the loop that one would write first.

    python -m benchmarks.speed.specificity [--quick]

Drawn effects of 25,088 positions in 98 windows for layers of 1,536 and 6,400 neurons, with the numbers of rare and
common positions that SmolLM2-135M has in each preset on C4, both matchings, 2,000 permutations and 1,000 bootstrap
samples: all that `analyze` computes for `neuron_specificity`, without reading the facts. Asked: at most 60 s for 6,400
neurons. The baseline takes one permutation after the other and a mean per stratum and side; 20 of them are timed for
one preset. Results go to benchmarks/results/specificity.json.
"""

import argparse
import json
import os
import platform
import sys
import time
from typing import Any

import numpy as np

from benchmarks import result
from benchmarks.memory.head import TreeMemory
from rare_tokens.analyses.result_table import FloatArray
from rare_tokens.analyses.specificity.contrasts import Contrasting
from rare_tokens.analyses.specificity.neuron_specificity import ANALYSIS, neuron_rows
from rare_tokens.analyses.specificity.strata import Strata, strata

RESULTS = result("specificity")
POSITIONS, WINDOW, BLOCK = 25_088, 256, 318
# Rare and common positions of SmolLM2-135M on C4, by preset and matching.
SIDES = {
    "es, loss": (1_576, 23_032), "es, loss+word": (1_287, 14_983), "nc, loss": (12_226, 12_828),
    "nc, loss+word": (8_827, 7_443), "ds, loss": (1_119, 10_908), "ds, loss+word": (687, 7_999),
}  # fmt: skip
LOOPED = 20


def main() -> None:
    """Time both layers, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 neurons; nothing is written")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    loss, window = rng.gamma(1.5, 2.2, POSITIONS), np.arange(POSITIONS) // WINDOW
    every = {name: drawn_strata(loss, window, *sides, rng) for name, sides in SIDES.items()}
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "asked": "25,088 × 6,400 with 2,000 permutations in at most 60 s",
        "parameters": dict(ANALYSIS.parameters),
        "layers": [timed_layer(neurons, loss, every, rng) for neurons in ((256,) if given.quick else (1_536, 6_400))],
    }
    text = json.dumps(found, indent=1, ensure_ascii=False)
    print(text)
    if not given.quick:
        RESULTS.write_text(text + "\n", encoding="utf-8")


def drawn_strata(loss: FloatArray, window: Any, rare: int, common: int, rng: np.random.Generator) -> Strata:
    """So many rare positions, harder ones more likely, and common ones of the rest."""
    chosen = rng.choice(len(loss), size=rare, replace=False, p=(loss + 1) / (loss + 1).sum())
    is_rare = np.isin(np.arange(len(loss)), chosen)
    others = rng.choice(np.flatnonzero(~is_rare), size=min(common, len(loss) - rare), replace=False)
    return strata(loss, window, is_rare, np.isin(np.arange(len(loss)), others))


def timed_layer(neurons: int, loss: FloatArray, every: dict[str, Strata], rng: np.random.Generator) -> dict[str, Any]:
    """Seconds and memory of all presets and matchings, and of the loop, for a layer of so many neurons."""
    blocks = [
        (rng.lognormal(-6, 1, (min(BLOCK, neurons - first), len(loss))) * (0.1 + loss)).astype(np.float32)
        for first in range(0, neurons, BLOCK)
    ]
    seconds = {}
    with TreeMemory() as memory:
        for name, found in every.items():
            start = time.perf_counter()
            contrasting = Contrasting(found, **ANALYSIS.parameters)
            for block in blocks:
                contrasting.add(block)
            rows = list(neuron_rows(np.arange(neurons), contrasting.result()))
            seconds[name] = round(time.perf_counter() - start, 2)
            print(f"{neurons} neurons, {name}: {seconds[name]} s, {len(rows)} rows", file=sys.stderr)
    first = next(iter(every.values()))
    start = time.perf_counter()
    for _ in range(LOOPED):
        permutation_by_hand(first, blocks, rng)
    looped = (time.perf_counter() - start) / LOOPED * int(ANALYSIS.parameters["permutations"])
    return {
        "neurons": neurons,
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 1),
        "loop_seconds_for_the_first": round(looped),
        "times_as_fast": round(looped / seconds[next(iter(seconds))], 1),
        "peak_memory_gb": round(memory.peak_gb, 2),
        "facts_in_memory_gb": round(sum(block.nbytes for block in blocks) / 1e9, 2),
    }


def permutation_by_hand(found: Strata, blocks: list[FloatArray], rng: np.random.Generator) -> list[FloatArray]:
    """One permutation: labels shuffled cell by cell, then a mean per stratum and side for every neuron."""
    labels = found.is_rare.copy()
    for cell in found.cells():
        labels[cell] = rng.permutation(labels[cell])
    values = []
    for block in blocks:
        of_block = block[:, found.chosen]
        expected = np.zeros(len(block))
        for k, weight in enumerate(found.weight):
            expected += weight * of_block[:, (found.stratum == k) & ~labels].mean(axis=1)
        values.append(np.log(of_block[:, labels].mean(axis=1)) - np.log(expected))
    return values


if __name__ == "__main__":
    main()
