"""A synthetic run: the parts folder that an ingest would leave, without a model or a text.

The facts are drawn so that every mart has something to find: influence falls with rank as a power law with a raised
head and a steeper tail, is larger on rare targets, and half of the neurons boost while the others suppress. Runs that
differ in nothing but `ablation` are references of one measurement: the same text and neurons, effects that are alike.
A first-order estimate (effect `attribution`) is off by the square of an effect, and a little by chance.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rare_tokens.common import parts
from rare_tokens.common.files import write_atomically

WIDTH = 16  # residual width of the weights
SEPARATOR = 0
WritePart = Callable[[Path, int, np.ndarray, np.ndarray], None]
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def make_parts(
    folder: Path,
    *,
    positions: int = 512,
    neurons: int = 64,
    vocabulary: int = 300,
    window: int = 64,
    seed: int = 0,
    run_id: str | None = None,
    position_block: int | None = None,
    effects: Sequence[str] = ("loss",),
    staged: bool = True,
    zipf_share: float = 0.5,
    model_seed: int | None = None,
    write_part: WritePart | None = None,
    **manifest: Any,
) -> parts.Manifest:
    """Write a run of `positions` × `neurons` pairs into `folder` (the run's own) and return its manifest.

    The same arguments always give the same files. `staged=False` leaves out the summary, like an interrupted ingest;
    `zipf_share` of the targets are drawn by their counts, as in a text, the others evenly over the types, so that rare
    groups fill in a small run; `model_seed` gives another model's neurons and effects on the same text; `write_part`
    replaces the writer here for a part of the facts, given its path, first position, activations and Δ (N × B each);
    further keywords replace fields of the manifest.
    """
    rng = np.random.default_rng(seed)
    fields: dict[str, Any] = {
        "run_id": run_id or f"synthetic-main-{seed:08x}",
        "model": "synthetic",
        "revision": "main",
        "layer": 3,
        "positions": positions,
        "neurons": neurons,
        "window_length": window,
        "tokenizer_id": f"synthetic-tokenizer-{vocabulary}",
        "frequency_source_id": f"synthetic-source-{vocabulary}-{seed:08x}",
        "frequency_source": "drawn at random",
        "corpus": "synthetic",
        "corpus_hash": f"{seed:064x}",
        "model_hash": f"{seed + 1:064x}",
        "ablation": "mean",
        "seed": seed,
        "dtype": "float32",
        "tolerance": 1e-6,
        "effects": list(effects),
        "separator_token_id": SEPARATOR,
        "position_block": position_block or min(positions, 4 * window),
        "code_version": "0.1.0",
        "created_at": "2026-11-21T00:00:00+00:00",
        "identity": {"seed": seed},
        "options": {"tokens": positions, "window": window},
        "packages": {"numpy": np.__version__},
    }
    described = parts.Manifest(**(fields | manifest))
    parts.write_manifest(folder, described)
    counts = _write_tokens(folder, vocabulary, rng)
    targets = _write_positions(folder, positions, window, counts, zipf_share, rng)
    rng = rng if model_seed is None else np.random.default_rng(model_seed)
    _write_neurons(folder, neurons, vocabulary, rng)
    _write_effects(folder, described, counts[targets] <= np.median(counts), rng, write_part)
    if staged:
        write_summary(folder, exact_pairs=positions * neurons)
    return described


def write(folder: Path, relation: str, columns: Mapping[str, Any]) -> None:
    """Write a relation's part from its columns."""
    table = pa.table(dict(columns), schema=parts.schema(relation))
    write_atomically(parts.relation_path(folder, relation), lambda path: pq.write_table(table, path))


def write_summary(folder: Path, **changed: Any) -> None:
    """Write a summary whose self-check passed; keywords replace its fields."""
    fields: dict[str, Any] = {
        "device": "cpu",
        "exact_pairs": 0,
        "self_check_error": 0.25,
        "structural_check_error": 0.5,
        "self_check_pairs": 64,
        "seconds": 1.5,
        "stage_seconds": {"capture": 0.5, "ablation": 1.0},
    }
    parts.write_summary(folder, parts.Summary(**(fields | changed)))


def _write_tokens(folder: Path, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    """Tokens, the same for every seed, and their counts (V): Zipf, ties in the tail, some types never seen."""
    ids = np.arange(vocabulary)
    starts = (ids % 5 < 3) & (ids != SEPARATOR)
    text = [(" " if start else "") + _word(i) for i, start in zip(ids.tolist(), starts, strict=True)]
    text[SEPARATOR] = "<|endoftext|>"
    is_word = (ids % 7 < 5) & (ids != SEPARATOR)
    special = ids == SEPARATOR
    columns = {"token_id": ids, "text": text, "is_word": is_word, "starts_word": starts, "is_special": special}
    columns["bytes"] = [None] * vocabulary
    write(folder, "dim_token", columns)
    ranks = rng.permutation(vocabulary) + 1
    counts = 10 * vocabulary // ranks
    counts[ranks > 0.97 * vocabulary] = 0
    counts[SEPARATOR] = 0
    write(folder, "token_frequency", {"token_id": ids, "count": counts})
    return counts


def _word(number: int) -> str:
    letters = ""
    while number or len(letters) < 2:
        number, last = divmod(number, 26)
        letters = ALPHABET[last] + letters
    return letters


def _write_positions(
    folder: Path, positions: int, window: int, counts: np.ndarray, zipf_share: float, rng: np.random.Generator
) -> np.ndarray:
    """Write positions and documents; return the targets (T)."""
    types = len(counts)
    chance = zipf_share * counts / counts.sum() + (1 - zipf_share) / types
    tokens = rng.choice(types, size=positions + 1, p=chance / chance.sum())
    ids = np.arange(positions)
    targets = tokens[1:]
    document = ids * 5 // positions
    columns = {
        "position_id": ids,
        "window_id": ids // window,
        "window_offset": ids % window,
        "document_id": pa.array(document, pa.uint32(), mask=targets == SEPARATOR),
        "input_token_id": tokens[:-1],
        "target_token_id": targets,
        "loss": rng.gamma(3.0, 1.5, positions).astype(np.float32),
        "entropy": rng.gamma(3.0, 1.0, positions).astype(np.float32),
    }
    write(folder, "dim_position", columns)
    first = [int(np.flatnonzero((document == d) & (targets != SEPARATOR))[0]) for d in range(5)]
    columns = {
        "document_id": range(6),
        "document_hash": [f"{d:064x}" for d in range(6)],
        "domain": ["synthetic"] * 6,
        "tokens": [positions // 5] * 6,
        "first_position": [*first, None],  # the last document was drawn, but none of its positions sampled
    }
    write(folder, "dim_document", columns)
    return targets


def _write_neurons(folder: Path, neurons: int, vocabulary: int, rng: np.random.Generator) -> None:
    ids = np.arange(neurons)
    weights = rng.standard_normal((2, neurons, WIDTH)).astype(np.float32)
    mean = rng.standard_normal(neurons)
    columns = {
        "neuron": ids,
        "mean_activation": mean,
        "reference_activation": mean,
        "reference_error": [None] * neurons,
        "reference_is_outside": [None] * neurons,
        "w_out_norm": np.linalg.norm(weights[0], axis=1),
        "null_space_share": rng.random(neurons).astype(np.float32),
        "logit_variance": rng.random(neurons).astype(np.float32),
        "frequency_correlation": rng.uniform(-1, 1, neurons).astype(np.float32),
    }
    write(folder, "dim_neuron", columns)
    w_out, w_in = (list(rows) for rows in weights)
    write(folder, "neuron_weight", {"neuron": ids, "w_out": w_out, "w_in": w_in, "w_up": [None] * neurons})
    top = 5
    logits = -np.sort(-rng.random((neurons, 2, top)), axis=2).astype(np.float32)
    logits[:, 1] *= -1
    columns = {
        "neuron": np.repeat(ids, 2 * top),
        "direction": np.tile(np.repeat(["up", "down"], top), neurons),
        "rank": np.tile(np.arange(1, top + 1), 2 * neurons),
        "token_id": rng.integers(0, vocabulary, neurons * 2 * top),
        "logit": logits.ravel(),
    }
    write(folder, "neuron_token", columns)


def scale(neurons: int) -> np.ndarray:
    """True typical |Δ| by rank (N), nats: κ = 0.8, a head raised by 0.7 in log influence, a tail of strength 0.5."""
    rank = np.arange(1, neurons + 1)
    head = 0.7 * (rank <= max(1, neurons // 40))
    tail = 0.5 * np.log1p(-rank / (neurons + 1))
    return 0.1 * np.exp(-0.8 * np.log(rank) + head + tail)


def _write_effects(
    folder: Path,
    manifest: parts.Manifest,
    rare: np.ndarray,
    rng: np.random.Generator,
    write_part: WritePart | None,
) -> None:
    """Δ of each pair: the neuron's scale × (± 0.5 + noise), half as large again on rare targets."""
    neurons = manifest.neurons
    size = scale(neurons)[rng.permutation(neurons)].astype(np.float32)
    of_reference = np.random.default_rng([manifest.seed, *manifest.ablation.encode()])
    if manifest.ablation != "mean":
        size *= np.exp(0.5 * of_reference.standard_normal(neurons, dtype=np.float32))
    sign = rng.choice(np.array([-0.5, 0.5], dtype=np.float32), neurons)
    schema = parts.schema("fct_effect", tuple(manifest.effects))
    for block in range(manifest.blocks):
        first = block * manifest.position_block
        last = min(first + manifest.position_block, manifest.positions)
        noise = rng.standard_normal((neurons, last - first), dtype=np.float32)
        delta = size[:, None] * (sign[:, None] + noise) * np.where(rare[first:last], np.float32(1.5), np.float32(1))
        activation = rng.standard_normal(delta.shape, dtype=np.float32)
        path = parts.effect_path(folder, block)
        if write_part is not None:
            write_part(path, first, activation, delta)
            continue
        columns = {
            "neuron": np.repeat(np.arange(neurons, dtype=np.uint16), last - first),
            "position_id": np.tile(np.arange(first, last, dtype=np.uint32), neurons),
            "activation": activation.ravel(),
            "delta_loss": delta.ravel(),
        }
        for name in schema.names[len(columns) :]:
            if name == parts.EFFECT_COLUMNS["attribution"]:
                noise = of_reference.standard_normal((2, *delta.shape), dtype=np.float32)
                columns[name] = (delta * (1 + noise[0] / 5) - delta**2 + noise[1] / 1_000).ravel()
            else:
                columns[name] = rng.standard_normal(delta.size, dtype=np.float32) * np.float32(0.01)
        table = pa.table(columns, schema=schema)
        rows = parts.NEURONS_PER_ROW_GROUP * (last - first)
        write_atomically(path, partial(pq.write_table, table, row_group_size=rows))
