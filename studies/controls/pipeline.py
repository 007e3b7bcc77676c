"""The whole pipeline as a user runs it: `ingest` of a model folder, `analyze`, and the relations of the warehouse."""

import contextlib
import io
import json
import random
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import rare_tokens
from rare_tokens.analyses.curve.effect_cells import RARE
from rare_tokens.analyses.result_table import FloatArray
from rare_tokens.cli import cli
from rare_tokens.commands.analyze import analyze_all
from rare_tokens.commands.support.chosen_runs import published_runs
from rare_tokens.commands.support.settings import Settings
from studies.controls.last_mlp import LastMlp

# Words of a passage. A few thousand positions of whole documents are a few documents, in which neurons matter otherwise
# than in a few others; passages make two halves of the same text.
PASSAGE = 200


@dataclass(frozen=True)
class Text:
    """What is ablated on: options of `ingest`, and the warehouse that the runs go to.

    Attributes:
        corpus: file of documents.
        frequencies: count file, or `corpus`.
        positions: T.
        window: positions per window.
        seed: of the sample.
    """

    corpus: Path
    frequencies: str
    positions: int
    window: int = 64
    seed: int = 0


def command(*arguments: object) -> str:
    """Run a command of the program in this process and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli.main(args=[str(one) for one in arguments], prog_name="rare-tokens", standalone_mode=False)
    return printed.getvalue()


def ingest(model: Path, text: Text, warehouse: Path) -> str:
    """Ablate every neuron of the model's last MLP; returns the id of the run."""
    options = {
        "--model": model, "--corpus": text.corpus, "--frequencies": text.frequencies, "--tokens": text.positions,
        "--window": text.window, "--seed": text.seed, "--device": "cpu", "--warehouse": warehouse,
    }  # fmt: skip
    (run,) = json.loads(command("ingest", *(part for pair in options.items() for part in pair), "--json", "--quiet"))
    return str(run["run_id"])


def analyze(warehouse: Path, run_id: str, only: Collection[str] | None = None) -> None:
    """Compute all analyses of the run as the command does, or to save time only those named."""
    if only is None:
        command("analyze", run_id, "--warehouse", warehouse, "--quiet")
        return
    settings = Settings(warehouse=warehouse, quiet=True)
    analyze_all(published_runs(settings, (run_id,)), settings, only=only)


def read(warehouse: Path, relation: str, **values: Any) -> pl.DataFrame:
    """Rows of a relation with these values."""
    with rare_tokens.open(warehouse) as opened:
        return opened.read(relation, **values)


def influence(mlp: LastMlp, text: Text, preset: str, folder: Path) -> FloatArray:
    """Influence of every neuron of an edited model on rare words, through a whole ingest, shape (N,), nats."""
    warehouse = folder / "planting.duckdb"
    run_id = ingest(mlp.save(folder / "planting"), text, warehouse)
    rows = read(warehouse, "neuron_influence", run=run_id, preset=preset, token_group=RARE).sort("neuron")
    warehouse.unlink()
    return rows["influence"].to_numpy()


def halves(corpus: Path, folder: Path, *, words: int | None = PASSAGE, seed: int = 0) -> tuple[Path, Path]:
    """Divide a JSON-lines corpus at random: text to plant with, and text to find it on.

    Args:
        corpus: documents, a `text` each.
        folder: where the two files go.
        words: length of the passages that are divided; None: whole documents.
        seed: of the division.
    """
    texts = [str(json.loads(line)["text"]) for line in corpus.read_text(encoding="utf-8").splitlines()]
    if words is not None:
        split = [text.split(" ") for text in texts]
        texts = [" ".join(one[at : at + words]) for one in split for at in range(0, len(one), words)]
    random.Random(seed).shuffle(texts)
    middle = len(texts) // 2
    paths = folder / "planting.jsonl", folder / "finding.jsonl"
    for path, part in zip(paths, (texts[:middle], texts[middle:]), strict=True):
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part), encoding="utf-8")
    return paths


def permuted_counts(counts: Path, seed: int, to: Path) -> Path:
    """Save the same counts, permuted over the token types that have one: who is rare is then chance."""
    values = np.load(counts)
    counted = np.flatnonzero(values > 0)
    values[counted] = np.random.default_rng(seed).permutation(values[counted])
    np.save(to, values)
    return to
