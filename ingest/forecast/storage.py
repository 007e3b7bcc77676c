"""What reading and writing takes, at fixed rates: too little of a run to be tried before each."""

import os

from rare_tokens.common.parts import Manifest

# Measured: writing a pair (6.3 million of them, one core), what a small run pays beside its stages (two cores), and
# publishing a pair (77 million, benchmarks/results/publishing.json). Assumed, since little depends on them: the others.
_CAPTURED_A_SECOND = 8e8  # bytes of captured rows
_PART, _PART_EFFECT = 4e-8, 1e-8  # seconds a pair to write it with one effect, and with each further one
_READ = 3e-8  # seconds a pair of the blocks that the self-check reads
_PUBLISH = 5.0  # seconds to open the warehouse, audit and publish, however small a run is
_PUBLISHED, _MOST_CORES = 3.5e-7, 4  # processor seconds a pair, on at most so many cores


def captured_seconds(positions: int, width: int) -> float:
    """Seconds to write the captured rows of all positions, `width` floats each."""
    return positions * width * 4 / _CAPTURED_A_SECOND


def parts_seconds(pairs: int, effects: int) -> float:
    """Seconds to write the parts of `fct_effect`."""
    return pairs * (_PART + _PART_EFFECT * (effects - 1))


def read_seconds(manifest: Manifest) -> float:
    """Seconds in which the self-check reads stored effects: those of at most two blocks."""
    return _READ * min(manifest.positions, 2 * manifest.position_block) * manifest.neurons


def publish_seconds(pairs: int, runs: int = 1) -> float:
    """Seconds to audit and publish runs of so many pairs each."""
    return _PUBLISH + runs * pairs * _PUBLISHED / min(_MOST_CORES, os.cpu_count() or 1)
