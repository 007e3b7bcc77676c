"""Runs of any size without a model, for the benchmarks of the warehouse, and how long and how much publishing takes.

Facts are drawn (`studies.synthetic.runs`), targets by Zipf's law as in a text; parts are divided and written as in an
ingest.
"""

import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rare_tokens.common import parts
from rare_tokens.common.files import write_atomically
from rare_tokens.warehouse import connection
from studies.synthetic.runs import make_parts

VOCABULARY, WINDOW = 50_257, 256


def machine(threads: int) -> dict[str, Any]:
    """What every result begins with."""
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "threads": threads,
    }


def use_threads(threads: int) -> None:
    """Let every connection of this process compute with so many threads."""
    for config in (connection.READ_CONFIG, connection.WRITE_CONFIG):
        config["threads"] = threads


def make_run(folder: Path, positions: int, neurons: int, run_id: str, seed: int = 1, **changed: Any) -> parts.Manifest:
    """The parts of a run of `positions` × `neurons` pairs, written by the writer of an ingest's units."""
    from rare_tokens.ingest.ablation.stages.parts import position_block

    given: dict[str, Any] = {"vocabulary": VOCABULARY, "window": WINDOW, "zipf_share": 1.0} | changed
    given.setdefault("position_block", position_block(positions, neurons))
    return make_parts(
        folder, positions=positions, neurons=neurons, seed=seed, run_id=run_id, write_part=_as_an_ingest_does, **given
    )


def another(folder: Path, source: Path, run_id: str) -> None:
    """The parts of a run with the numbers of another, whose parts are in `source`: the same files, another name."""
    manifest, summary = parts.read_manifest(source), parts.read_summary(source)
    assert manifest is not None
    assert summary is not None
    for file in source.rglob("*.parquet"):
        (folder / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, folder / file.relative_to(source))
    parts.write_manifest(folder, replace(manifest, run_id=run_id))
    parts.write_summary(folder, summary)


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    call()
    return round(time.perf_counter() - start, 3)


class Stages(logging.Handler):
    """Collects the wall-clock and processor seconds that publishing logs, by stage."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, tuple[float, float]] = {}
        log = logging.getLogger("rare_tokens.publish")
        log.setLevel(logging.DEBUG)
        log.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the stage and its seconds."""
        assert isinstance(record.args, tuple)
        stage, wall, processor = record.args
        assert isinstance(wall, float)
        assert isinstance(processor, float)
        self.seconds[str(stage)] = round(wall, 3), round(processor, 3)


def _as_an_ingest_does(path: Path, first: int, activations: np.ndarray, delta: np.ndarray) -> None:
    """A part of `fct_effect` from N × B activations and effects."""
    import torch

    from rare_tokens.ingest.ablation.block import BlockEffects
    from rare_tokens.ingest.ablation.stages.parts import write_effects

    none = torch.empty(0)
    found = BlockEffects({"loss": torch.from_numpy(delta.T)}, none, none, 0)
    write_atomically(
        path, partial(write_effects, first=first, activations=activations.T, found=found, effects=("loss",))
    )
