"""A whole ingest, in order: sample, load, capture, means, effects, self-check. It ends with a staged run.

`Workbench.prepare` does everything that can refuse a request; only then does `execute` write.
"""

import importlib.metadata
import logging
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from rare_tokens.common.errors import OptionError, UserError
from rare_tokens.common.parts import MANIFEST, Manifest, Summary, read_summary, write_manifest, write_summary
from rare_tokens.common.version import VERSION
from rare_tokens.ingest.ablation.stages.capture import Capture, Captured, mean_activations
from rare_tokens.ingest.ablation.stages.neurons import neuron_tables
from rare_tokens.ingest.ablation.stages.parts import position_block, read_baselines, write_relation
from rare_tokens.ingest.ablation.stages.selfcheck import Checked, Subject, self_check
from rare_tokens.ingest.dense.parts import dense_position_block
from rare_tokens.ingest.dense.selfcheck import dense_self_check
from rare_tokens.ingest.model.structure import Structure
from rare_tokens.ingest.model.tokenizer import require_file_ids
from rare_tokens.ingest.run.executors import Executor, gather
from rare_tokens.ingest.run.loading import LoadedModel, load
from rare_tokens.ingest.run.loading import choose_device as choose_device
from rare_tokens.ingest.run.request import Request
from rare_tokens.ingest.run.resources import require_space
from rare_tokens.ingest.run.resuming import agree, resumable
from rare_tokens.ingest.run.shared_storage import Place
from rare_tokens.ingest.run.stage_clock import StageClock
from rare_tokens.ingest.run.stages import AblationStage, ForwardStage, Loaded, Recipe, effect_units, rows_of
from rare_tokens.ingest.text.matched import NC_MATCHED, NothingToMeasureError
from rare_tokens.ingest.text.material import Material, draw_material
from rare_tokens.ingest.text.parts_of_speech import tagger_name
from rare_tokens.ingest.text.reading import begin_token_note

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
class Prepared:
    """A run that is ready to begin: its model fits and its sample is drawn."""

    manifest: Manifest
    material: Material
    loaded: Loaded
    notes: tuple[str, ...] = ()  # what a reader of the results should know of the model

    @property
    def model(self) -> PreTrainedModel:
        """The model."""
        return self.loaded.model

    @property
    def structure(self) -> Structure:
        """Its structure."""
        return self.loaded.structure

    @property
    def device(self) -> str:
        """The device that it is on."""
        return self.loaded.device


class Workbench:
    """Prepares the runs of one command, and makes only once what several revisions share."""

    def __init__(self) -> None:
        self._materials: dict[tuple[Any, ...], Material] = {}

    def prepare(self, request: Request, *, whole: bool = False, units: int = 1) -> Prepared:
        """Load the model, confirm its structure, draw the sample.

        Args:
            request: what is asked for.
            whole: whether the whole model must be on the device.
            units: about how many units the ablation is divided into, at least.

        Raises:
            UserError: there is too little memory, the corpus is too short, the count file does not fit, the layer does
                not exist, or the architecture is not supported.
        """
        found = load(request, whole=whole)
        material = self._material(request, found.structure.vocabulary_size)
        sample, counts = material.sample, material.counts.counts
        recipe = Recipe.of(request, sample, counts, whole=whole)
        loaded = Loaded(found.model, found.structure, found.device, sample, counts, recipe)
        return Prepared(manifest_of(request, found, material, units), material, loaded, _notes(request))

    def _material(self, request: Request, vocabulary_size: int) -> Material:
        key = (request.tokenizer_id, request.frequency_source_id, vocabulary_size)
        if key not in self._materials:
            self._materials[key] = _draw(request, vocabulary_size)
        return self._materials[key]


def _notes(request: Request) -> tuple[str, ...]:
    note = None if request.options.begin_token else begin_token_note(request.tokenizer)
    if note is not None:
        log.warning("Warning: %s", note)
    return (*request.look.notes, *([] if note is None else [note]))


def _draw(request: Request, vocabulary_size: int) -> Material:
    options = request.options
    try:
        found = draw_material(
            request.corpus,
            request.tokenizer,
            vocabulary_size=vocabulary_size,
            contexts=options.contexts,
            frequencies=options.frequencies,
            positions=options.tokens,
            window=options.window,
            seed=options.seed,
            begin_token=options.begin_token,
        )
    except NothingToMeasureError:
        raise
    except UserError as error:  # about the text, and so the same at every checkpoint
        raise OptionError(str(error)) from error
    if (largest := int(found.sample.tokens.max())) >= vocabulary_size:
        raise UserError(
            f"The tokenizer of {request.folder.name} gave token {largest}, but its unembedding has {vocabulary_size} "
            "rows: tokenizer and weights do not belong together."
        )
    require_file_ids(request.folder, request.tokenizer, found.first_texts)
    for warning in (*found.sample.warnings, *found.counts.warnings):
        log.warning("Warning: %s", warning)
    return found


def _facts(request: Request, loaded: LoadedModel, material: Material) -> dict[str, Any]:
    """What was found or chosen for a run, as opposed to what was asked for."""
    between = loaded.structure.between
    facts: dict[str, Any] = {
        "path": "dense" if between else "moments",
        "between": list(between),
        "device": loaded.device,
        "offloaded_bytes": loaded.offloaded,
        "weights_hash": request.weights_hash,
    }
    if request.look.ignored_weights:
        facts["ignored_weights"] = list(request.look.ignored_weights)
    if request.folder.above is not None:
        facts["tokenizer"] = "of the folder above"
    if request.options.contexts == NC_MATCHED:
        facts |= {"tagger": tagger_name(), **material.sample.notes}
    if request.corpus.streamed:
        facts["streams"] = [stream.asked for stream in request.corpus.streams]
    return facts


def manifest_of(request: Request, loaded: LoadedModel, material: Material, units: int) -> Manifest:
    """What a run is, before it begins; `units` is about how many the ablation is divided into, at least."""
    options, structure = request.options, loaded.structure
    block = position_block(len(material.sample.targets), structure.neurons, units)
    if structure.between:
        block = dense_position_block(material.sample, structure.neurons, units)
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
        quantisation=request.look.quantisation,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        identity=request.identity,
        options=options.given(request.folder.revision),
        facts=_facts(request, loaded, material),
        packages=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers of a run depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def execute(
    prepared: Prepared,
    folder: Path,
    executor: Executor,
    *,
    afresh: bool = False,
    place: Place | None = None,
    expected: Mapping[str, float] | None = None,
) -> Manifest:
    """Compute a run into its folder, or resume an interrupted one; returns its manifest.

    A run that is already staged stays as it is; `afresh` computes everything again. With a `place`, units leave their
    files there, an interrupted run resumes from there, and the folder gets its files from there. `expected` is how many
    seconds each stage is forecast to take, by its name in `stage_seconds`.

    Raises:
        UserError: the disk is too small, a value is not finite, the place cannot be used, or the self-check fails.
    """
    start, clock = time.perf_counter(), StageClock(expected or {}, executor.quiet)
    if place is not None:
        agree(place, folder, prepared.manifest)
    manifest = None if afresh else resumable(folder, prepared.manifest)
    if manifest is not None and read_summary(folder) is not None:
        return manifest
    if manifest is None:
        shutil.rmtree(folder, ignore_errors=True)
        manifest = prepared.manifest
        width, effects = prepared.structure.w_out.shape[1], len(manifest.effects)
        gathered = place is not None and place.is_at(folder)
        require_space(folder, manifest.positions, manifest.neurons, width, effects, twice_captured=gathered)
        write_manifest(folder, manifest)
        if place is not None and not place.is_at(folder):
            place.remove()
            place.put(folder / MANIFEST, MANIFEST)
    material, structure = prepared.material, prepared.structure
    tokens = material.sample.tokens
    with clock.stage("tokens"):
        _write_tokens(folder, material)
    if place is not None:
        with clock.stage("workers"):
            executor.ready(prepared.loaded)
    with clock.stage("forward"):
        captured = capture_rows(prepared, folder, executor, place, clock.expected.get("forward"))
    with clock.shown("neurons"):
        mean = mean_activations(captured.activations)
        reference = mean if manifest.ablation == "mean" else np.zeros_like(mean)
        tables = neuron_tables(structure, mean, reference, material.counts.counts)
        write_relation(folder, "dim_neuron", tables.neuron)
        write_relation(folder, "neuron_weight", tables.weight)
        write_relation(folder, "neuron_token", tables.token)
    replacing = reference.astype(np.float32)
    with clock.stage("effects"):
        exact_pairs = _effects(
            prepared, manifest, folder, captured, replacing, executor, place, clock.expected.get("effects")
        )
    with clock.shown("self-check"):
        subject = Subject(
            folder, prepared.model, structure, tokens, captured, replacing,
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


def capture_rows(
    prepared: Prepared, folder: Path, executor: Executor, place: Place | None, expected: float | None = None
) -> Captured:
    """Run the sample forward, resuming what was interrupted; returns what is captured in the folder.

    Raises:
        UserError: a value is not finite, or the place cannot be used.
    """
    sample = prepared.material.sample
    capture = Capture(folder, sample.tokens, prepared.model, prepared.structure, sample.predicted)
    capture.open()
    if place is None:
        executor.run("forward pass", range(capture.batches), capture.run, capture.is_done, expected)
        return capture.open("r")
    stage = ForwardStage(capture.batches, capture.windows_per_batch)

    def take(batch: int) -> None:
        if not capture.is_done(batch):
            with place.fetched(stage.files(batch)[0]) as path:
                capture.keep(batch, *rows_of(path))

    gather(executor, stage, prepared.loaded, place, take, expected)
    return capture.open("r")


def _effects(
    prepared: Prepared,
    manifest: Manifest,
    folder: Path,
    captured: Captured,
    reference: NDArray[np.float32],
    executor: Executor,
    place: Place | None,
    expected: float | None,
) -> int:
    """Compute the effect of every pair, then write the positions; returns how many pairs took the exact path."""
    sample = prepared.material.sample
    if place is None:
        units = effect_units(prepared.loaded, manifest, folder, captured, torch.from_numpy(reference), say=True)
        executor.run("ablation", range(manifest.blocks), units.run, units.is_done, expected)
    else:
        batch = Capture.windows_in_a_batch(sample.tokens) * sample.predicted
        stage = AblationStage(manifest, reference, batch)
        if prepared.structure.between:
            count = f"{stage.units} unit{'s' * (stage.units != 1)}"
            log.info("Dense path (%s), in %s.", "; ".join(prepared.structure.between), count)

        def take(block: int) -> None:
            for name in stage.files(block):
                place.get(name, folder / name)

        gather(executor, stage, prepared.loaded, place, take, expected)
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


def _summary(prepared: Prepared, checked: Checked, exact_pairs: int, seconds: float, clock: StageClock) -> Summary:
    warnings = [*prepared.notes, *prepared.material.sample.warnings, *prepared.material.counts.warnings]
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
