"""A whole ingest by the project's own functions, without a database: how long its stages took and what it found."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from rare_tokens.common.effects import LOSS
from rare_tokens.common.parts import read_summary
from rare_tokens.ingest.run.execution import execute
from rare_tokens.ingest.run.executors import LocalExecutor
from rare_tokens.ingest.run.pipeline import Workbench
from rare_tokens.ingest.run.request import Options, identify


@dataclass(frozen=True)
class Ingested:
    """What an ingest left.

    Attributes:
        path: `moments` or `dense`.
        between: why the dense path was taken, in words.
        stage_seconds: by stage of the pipeline; `effects` is the ablation.
        check: largest error of its own self-check against float64, in units of the tolerance.
        facts: ``fct_effect``, by neuron and position.
    """

    path: str
    between: tuple[str, ...]
    stage_seconds: dict[str, float]
    check: float
    facts: pl.DataFrame


def ingested(
    model: Path, corpus: str, positions: int, *, window: int, device: str = "cpu", effects: tuple[str, ...] = (LOSS,)
) -> Ingested:
    """Ingest a model's last layer on a text.

    Raises:
        UserError: as `ingest` itself.
    """
    options = Options(
        str(model), corpus=(corpus,), tokens=positions, window=window, device=device, effects=effects
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="rare-tokens-") as scratch:
        folder = Path(scratch, "run")
        manifest = execute(Workbench().prepare(identify(options)[0]), folder, LocalExecutor(quiet=True))
        summary = read_summary(folder)
        assert summary is not None
        facts = pl.read_parquet(folder / "fct_effect" / "*.parquet").sort("neuron", "position_id")
    facts_of_run = manifest.facts
    return Ingested(
        facts_of_run["path"],
        tuple(facts_of_run["between"]),
        summary.stage_seconds,
        summary.self_check_error,
        facts,
    )
