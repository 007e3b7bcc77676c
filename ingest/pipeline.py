"""The whole of an ingest, in order: sample, load, capture, means, effects, self-check. It ends with a staged run.

`Workbench.prepare` does everything that can refuse a request; only then does `execute` write.
"""

import importlib.metadata
import logging
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from common.errors import UserError
from common.parts import Manifest, Summary, read_manifest, read_summary, write_manifest, write_summary
from common.version import VERSION
from ingest import frequencies, models, sampling, words
from ingest.ablation import Ablation
from ingest.capture import Capture, Captured, mean_activations
from ingest.contexts import NC_MATCHED, draw_contexts
from ingest.corpus import parse_sources
from ingest.dense import DenseAblation, confirm_replay
from ingest.dense_check import dense_self_check
from ingest.dense_units import DenseUnits, announce, dense_position_block
from ingest.executors import Executor
from ingest.frequencies import Frequencies
from ingest.memory import planned
from ingest.request import Request
from ingest.sampling import Sample
from ingest.selfcheck import Checked, Subject, self_check
from ingest.space import require_space
from ingest.speech import tagger_name
from ingest.structure import Structure, find_structure
from ingest.units import EffectUnits, position_block, read_baselines, write_relation
from ingest.weights import neuron_tables

log = logging.getLogger("rare_tokens")

PACKAGES = (
    "datasets",
    "duckdb",
    "numpy",
    "pyarrow",
    "pyspellchecker",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)


@dataclass(frozen=True)
class Material:
    """What the sample of a run is made of; the same for every checkpoint of a series."""

    sample: Sample
    counts: Frequencies
    tokens: pl.DataFrame  # dim_token


@dataclass(frozen=True)
class Prepared:
    """A run that can begin: its model fits, its sample is drawn."""

    manifest: Manifest
    material: Material
    model: PreTrainedModel
    structure: Structure
    device: str


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


class Workbench:
    """Prepares the runs of one command; what several revisions share is made once."""

    def __init__(self) -> None:
        self._materials: dict[tuple[Any, ...], Material] = {}

    def prepare(self, request: Request, *, whole: bool = False) -> Prepared:
        """Load the model, confirm its structure, draw the sample; `whole`: none of it may wait off the device.

        Raises:
            UserError: the memory does not hold it, the corpus is too short, the count file does not fit, there is no
                such layer, or the architecture is not supported.
        """
        options = request.options
        device = choose_device(options.device)
        held = planned(request, device, whole=whole)
        model = models.load_model(
            request.folder, dtype=options.dtype, device=device, trust=options.trust, device_map=held.device_map
        )
        structure = find_structure(model, options.layer)
        if structure.between:
            confirm_replay(model, structure, options.edit_scope)
        material = self._material(request, structure.vocabulary_size)
        return Prepared(_manifest(request, structure, material, device), material, model, structure, device)

    def _material(self, request: Request, vocabulary_size: int) -> Material:
        key = (request.tokenizer_id, request.frequency_source_id, vocabulary_size)
        if key not in self._materials:
            self._materials[key] = _draw(request, vocabulary_size)
        return self._materials[key]


def choose_device(wanted: str) -> str:
    """The device of `--device`; `auto` takes CUDA, then MPS, then the CPU. On all of them float32 is float32, not TF32.

    Raises:
        UserError: the device is not known here, or not there.
    """
    torch.set_float32_matmul_precision("highest")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    kind, _, index = wanted.partition(":")
    fits = not index or (kind == "cuda" and index.isdigit() and int(index) < torch.cuda.device_count())
    if not available.get(kind, False) or not fits:
        raise UserError(
            f"--device {wanted}: not available here. Use auto, or {', '.join(k for k, v in available.items() if v)}."
        )
    return wanted


def _draw(request: Request, vocabulary_size: int) -> Material:
    options = request.options
    how: dict[str, Any] = {
        "positions": options.tokens,
        "window": options.window,
        "seed": options.seed,
        "begin_token": options.begin_token,
    }
    tokens = words.token_table(request.tokenizer, vocabulary_size)
    counts = _counts(request, vocabulary_size)
    if options.contexts == NC_MATCHED:
        if counts is None:
            counts = frequencies.count_corpus(
                request.corpus, request.tokenizer, vocabulary_size=vocabulary_size, seed=options.seed
            )
        sample = draw_contexts(request.corpus, request.tokenizer, counts, tokens, **how)
    elif counts is None:
        sample, counts = frequencies.sample_and_count(
            request.corpus, request.tokenizer, vocabulary_size=vocabulary_size, **how
        )
    else:
        sample = sampling.draw_sample(request.corpus, request.tokenizer, **how)
    if (largest := int(sample.tokens.max())) >= vocabulary_size:
        raise UserError(
            f"The tokenizer of {request.folder.name} gave token {largest}, but its unembedding has {vocabulary_size} "
            "rows: tokenizer and weights do not belong together."
        )
    for warning in (*sample.warnings, *counts.warnings):
        log.warning("Warning: %s", warning)
    return Material(sample, counts, tokens)


def _counts(request: Request, vocabulary_size: int) -> Frequencies | None:
    """The published counts that were named; None where the corpus itself is to be counted."""
    if request.options.frequencies == "corpus":
        return None
    path = Path(request.options.frequencies).expanduser()
    return frequencies.read_count_file(path, vocabulary_size, len(request.tokenizer))


def _manifest(request: Request, structure: Structure, material: Material, device: str) -> Manifest:
    options = request.options
    shown = {
        "model": request.folder.name, "corpus": [source.shown for source in parse_sources(options.corpus)],
        "frequencies": request.frequency_source, "tokens": options.tokens, "window": options.window,
        "begin_token": options.begin_token, "ablation": options.ablation, "effects": list(options.effects),
        "tolerance": options.tolerance, "device": device, "dtype": options.dtype, "seed": options.seed,
        "offload": options.offload, "revision": request.folder.revision, "layer": structure.layer,
        "edit_scope": options.edit_scope,
        "path": "; ".join(["dense", *structure.between]) if structure.between else "moments",
        "contexts": options.contexts, "allow_pickle": options.trust.pickle,
        "trust_remote_code": options.trust.remote_code,
    }  # fmt: skip
    if options.contexts == NC_MATCHED:
        shown |= {"contexts": NC_MATCHED, "tagger": tagger_name(), **material.sample.notes}
    block = position_block(len(material.sample.targets), structure.neurons)
    if structure.between:
        block = dense_position_block(material.sample, structure.neurons)
    return Manifest(
        run_id=request.run_id,
        model=request.folder.name,
        revision=request.folder.revision,
        layer=structure.layer,
        positions=len(material.sample.targets),
        neurons=structure.neurons,
        window_length=material.sample.predicted,
        tokenizer_id=request.tokenizer_id,
        frequency_source_id=request.frequency_source_id,
        frequency_source=request.frequency_source,
        corpus=request.corpus.name,
        corpus_hash=request.corpus.identity,
        model_hash=request.model_hash,
        ablation=options.ablation,
        seed=options.seed,
        dtype=options.dtype,
        tolerance=options.tolerance,
        effects=list(options.effects),
        separator_token_id=material.sample.separator_token_id,
        position_block=block,
        code_version=VERSION,
        contexts=options.contexts,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        identity=request.identity,
        options=shown,
        packages={"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES},
    )


def resumable(folder: Path, manifest: Manifest) -> Manifest | None:
    """The manifest of an interrupted run that computes the very same thing, or None.

    Code and package versions count: a run is never stitched together from two of them.
    """
    there = read_manifest(folder)
    if there is None:
        return None
    same = ("identity", "tolerance", "effects", "code_version", "packages", "format")
    return there if all(getattr(there, name) == getattr(manifest, name) for name in same) else None


def execute(prepared: Prepared, folder: Path, executor: Executor, *, afresh: bool = False) -> Manifest:
    """Compute a run into its folder, going on where an interrupted one stopped; returns its manifest.

    A run that is staged already is left as it is; `afresh` computes everything again.

    Raises:
        UserError: not enough disk, values that are not finite, or the self-check fails.
    """
    start, clock = time.perf_counter(), _Clock()
    manifest = None if afresh else resumable(folder, prepared.manifest)
    if manifest is not None and read_summary(folder) is not None:
        return manifest
    if manifest is None:
        shutil.rmtree(folder, ignore_errors=True)
        manifest = prepared.manifest
        width, effects = prepared.structure.w_out.shape[1], len(manifest.effects)
        require_space(folder, manifest.positions, manifest.neurons, width, effects)
        write_manifest(folder, manifest)
    material, structure = prepared.material, prepared.structure
    tokens = material.sample.tokens
    with clock.stage("tokens"):
        _write_tokens(folder, material)
    with clock.stage("forward"):
        captured = _capture(prepared, folder, executor)
    with clock.stage("neurons"):
        mean = mean_activations(captured.activations)
        tables = neuron_tables(structure, mean, material.counts.counts)
        write_relation(folder, "dim_neuron", tables.neuron)
        write_relation(folder, "neuron_weight", tables.weight)
        write_relation(folder, "neuron_token", tables.token)
    reference = (mean if manifest.ablation == "mean" else np.zeros_like(mean)).astype(np.float32)
    with clock.stage("effects"):
        exact_pairs = _effects(prepared, manifest, folder, captured, reference, executor)
    with clock.stage("self-check"):
        subject = Subject(
            folder, prepared.model, structure, tokens, captured, reference,
            manifest.position_block, manifest.tolerance, manifest.seed, material.sample.predicted,
            manifest.options["edit_scope"],
        )  # fmt: skip
        checked = dense_self_check(subject) if structure.between else self_check(subject)
    summary = _summary(prepared, checked, exact_pairs, time.perf_counter() - start, clock)
    write_summary(folder, summary)
    shutil.rmtree(folder / "capture")
    shutil.rmtree(folder / "baseline")
    return manifest


def _write_tokens(folder: Path, material: Material) -> None:
    write_relation(folder, "dim_document", material.sample.documents.to_arrow())
    write_relation(folder, "dim_token", material.tokens.to_arrow())
    counts = material.counts.counts
    if material.sample.contexts is not None:
        write_relation(folder, "position_context", material.sample.contexts.to_arrow())
    table = {"token_id": np.arange(len(counts), dtype=np.uint32), "count": counts.astype(np.uint64)}
    write_relation(folder, "token_frequency", pa.table(table))


def _capture(prepared: Prepared, folder: Path, executor: Executor) -> Captured:
    sample = prepared.material.sample
    capture = Capture(folder, sample.tokens, prepared.model, prepared.structure, sample.predicted)
    capture.open()
    executor.run("forward pass", range(capture.batches), capture.run, capture.is_done)
    return capture.open("r")


def _effects(
    prepared: Prepared,
    manifest: Manifest,
    folder: Path,
    captured: Captured,
    reference: NDArray[np.float32],
    executor: Executor,
) -> int:
    """Every pair's effect, then the positions' own part; returns how many pairs took the exact path."""
    sample = prepared.material.sample
    units = _units(prepared, manifest, folder, captured, torch.from_numpy(reference))
    executor.run("ablation", range(manifest.blocks), units.run, units.is_done)
    baseline = read_baselines(folder, manifest.blocks)
    window = sample.predicted
    positions = np.arange(manifest.positions, dtype=np.uint32)
    document = sample.document_ids.reshape(-1)
    table = pl.DataFrame(
        {
            "position_id": positions,
            "window_id": positions // window,
            "window_offset": positions % window,
            "document_id": document,
            "input_token_id": sample.inputs,
            "target_token_id": sample.targets,
            "loss": baseline.loss,
            "entropy": baseline.entropy,
        }
    ).with_columns(pl.when(pl.col("document_id") >= 0).then("document_id"))
    write_relation(folder, "dim_position", table.to_arrow())
    return baseline.exact_pairs


def _units(
    prepared: Prepared, manifest: Manifest, folder: Path, captured: Captured, reference: torch.Tensor
) -> EffectUnits:
    """The ablation by moments where the structure allows it, else the dense path, which says first what it costs."""
    structure, sample, effects = prepared.structure, prepared.material.sample, tuple(manifest.effects)
    counts = torch.from_numpy(prepared.material.counts.counts)
    if structure.between:
        scope = manifest.options["edit_scope"]
        dense = DenseAblation(
            prepared.model, structure, reference, edit_scope=scope, effects=effects, unigram_counts=counts
        )
        announce(dense, structure, sample, manifest.neurons)
        return DenseUnits(folder, dense, captured, sample, manifest.position_block, effects)
    log.debug("Ablation by moments: the MLP of layer %d reaches the final norm by plain addition.", structure.layer)
    ablation = Ablation(
        structure.head,
        structure.w_out,
        reference,
        tolerance=manifest.tolerance,
        effects=effects,
        unigram_counts=counts,
        device=prepared.device,
    )
    return EffectUnits(folder, ablation, captured, sample.targets, manifest.position_block, effects)


def _summary(prepared: Prepared, checked: Checked, exact_pairs: int, seconds: float, clock: _Clock) -> Summary:
    warnings = [*prepared.material.sample.warnings, *prepared.material.counts.warnings]
    if prepared.manifest.dtype in ("bfloat16", "float16"):
        warnings.append(
            f"Captured in {prepared.manifest.dtype}: the tolerance holds given the captured values, "
            "not against a float64 model."
            if not prepared.structure.between
            else f"Computed in float32 from {prepared.manifest.dtype} weights: its rounding adds to the tolerance."
        )
    return Summary(
        device=prepared.device,
        exact_pairs=exact_pairs,
        self_check_error=checked.numeric,
        structural_check_error=checked.structural,
        self_check_pairs=checked.numeric_pairs + checked.structural_pairs,
        seconds=round(seconds, 3),
        stage_seconds=clock.seconds,
        warnings=warnings,
    )
