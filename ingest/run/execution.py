"""A whole ingest, in order: capture, means, references, effects, self-check. It ends with staged runs.

Runs that differ in their reference alone are measured together: one forward pass, one set of moments, a folder each.
"""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from rare_tokens.common.parts import MANIFEST, Manifest, Summary, read_summary, write_manifest, write_summary
from rare_tokens.ingest.ablation.stages.capture import Capture, Captured, mean_activations
from rare_tokens.ingest.ablation.stages.neurons import neuron_tables, with_reference
from rare_tokens.ingest.ablation.stages.parts import read_baselines, write_relation
from rare_tokens.ingest.ablation.stages.references import OPTIMAL, Reference, ReferenceValues
from rare_tokens.ingest.ablation.stages.selfcheck import Checked, Subject, self_check
from rare_tokens.ingest.dense.selfcheck import dense_self_check
from rare_tokens.ingest.run.executors import Executor, gather
from rare_tokens.ingest.run.pipeline import Prepared
from rare_tokens.ingest.run.reference_values import reference_values
from rare_tokens.ingest.run.resources import require_space
from rare_tokens.ingest.run.resuming import agree, resumable
from rare_tokens.ingest.run.shared_storage import Place
from rare_tokens.ingest.run.stage_clock import StageClock
from rare_tokens.ingest.run.stages import AblationStage, ForwardStage, effect_units, rows_of
from rare_tokens.ingest.text.material import Material

log = logging.getLogger("rare_tokens")


def execute(
    prepared: Prepared,
    folder: Path,
    executor: Executor,
    *,
    afresh: bool = False,
    place: Place | None = None,
    expected: Mapping[str, float] | None = None,
) -> Manifest:
    """Compute the prepared runs, or resume interrupted ones; returns the first one's manifest.

    Runs that are already staged stay as they are; `afresh` computes everything again. With a `place`, units leave their
    files there, interrupted runs resume from there, and the folders get their files from there.

    Args:
        prepared: the runs.
        folder: of the first one; the others' are beside it, under their ids. What they share waits in it.
        executor: who computes.
        afresh: start again.
        place: where units leave their files; None: in the folders.
        expected: how many seconds each stage is forecast to take, by its name in `stage_seconds`.

    Raises:
        UserError: the disk is too small, a value is not finite, the place cannot be used, or the self-check fails.
    """
    start, clock = time.perf_counter(), StageClock(expected or {}, executor.quiet)
    if place is not None:
        agree(place, folder, prepared.manifest)
    folders = folders_of(prepared, folder)
    manifests = _begun(prepared, folders, place, afresh=afresh)
    if all(read_summary(one) is not None for one in folders):
        return manifests[0]
    material, structure = prepared.material, prepared.structure
    with clock.stage("tokens"):
        for one in folders:
            _write_tokens(one, material)
    if place is not None:
        with clock.stage("workers"):
            executor.ready(prepared.loaded)
    with clock.stage("forward"):
        captured = capture_rows(prepared, folder, executor, place, clock.expected.get("forward"))
    with clock.shown("neurons"):
        mean = mean_activations(captured.activations)
        tables = neuron_tables(structure, mean, material.counts.counts)
    with clock.shown("references") if OPTIMAL in (manifest.ablation for manifest in manifests) else nullcontext():
        found = reference_values(manifests, prepared.loaded, captured, mean, folder / "capture")
    for one, values in zip(folders, found, strict=True):
        write_relation(one, "dim_neuron", with_reference(tables.neuron, values))
        write_relation(one, "neuron_weight", tables.weight)
        write_relation(one, "neuron_token", tables.token)
    references = [values.reference for values in found]
    with clock.stage("effects"):
        _effects(prepared, manifests, folders, captured, references, executor, place, clock.expected.get("effects"))
        exact_pairs = [_write_positions(one, manifests[0], prepared) for one in folders]
    with clock.shown("self-check"):
        checked = _checked(prepared, manifests, folders, captured, found)
    for one, manifest, errors, pairs in zip(folders, manifests, checked, exact_pairs, strict=True):
        write_summary(one, _summary(prepared, manifest, errors, pairs, time.perf_counter() - start, clock))
    shutil.rmtree(folder / "capture")
    for one in folders:
        shutil.rmtree(one / "baseline")
    return manifests[0]


def folders_of(prepared: Prepared, folder: Path) -> list[Path]:
    """The folders of all prepared runs, where the first one's is `folder`."""
    return [folder, *(folder.parent / manifest.run_id for manifest in prepared.others)]


def _begun(prepared: Prepared, folders: list[Path], place: Place | None, *, afresh: bool) -> list[Manifest]:
    """The manifests of the runs, as they are on disk: interrupted ones that compute the same are resumed."""
    there = [
        None if afresh else resumable(folder, manifest)
        for folder, manifest in zip(folders, prepared.manifests, strict=True)
    ]
    block = (there[0] or prepared.manifest).position_block
    for number, (folder, manifest, found) in enumerate(zip(folders, prepared.manifests, there, strict=True)):
        if found is not None and found.position_block == block:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        there[number] = replace(manifest, position_block=block)
    manifests = [manifest for manifest in there if manifest is not None]
    new = [number for number, folder in enumerate(folders) if not (folder / MANIFEST).exists()]
    if new:
        first, width = manifests[0], prepared.structure.w_out.shape[1]
        gathered = place is not None and place.is_at(folders[0])
        require_space(
            folders[0],
            first.positions,
            first.neurons,
            width,
            len(first.effects),
            runs=len(new),
            twice_captured=gathered,
        )
    for number in new:
        write_manifest(folders[number], manifests[number])
    if 0 in new and place is not None and not place.is_at(folders[0]):
        place.remove()
        place.put(folders[0] / MANIFEST, MANIFEST)
    return manifests


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
    manifests: Sequence[Manifest],
    folders: Sequence[Path],
    captured: Captured,
    references: Sequence[Reference],
    executor: Executor,
    place: Place | None,
    expected: float | None,
) -> None:
    """Compute the effect of every pair by each reference."""
    sample, first = prepared.material.sample, manifests[0]
    if place is None:
        units = effect_units(prepared.loaded, first, folders, captured, references, say=True)
        executor.run("ablation", range(first.blocks), units.run, units.is_done, expected)
        return
    batch = Capture.windows_in_a_batch(sample.tokens) * sample.predicted
    stage = AblationStage(tuple(manifests), tuple(references), batch)
    if prepared.structure.between:
        count = f"{stage.units} unit{'s' * (stage.units != 1)}"
        log.info("Dense path (%s), in %s.", "; ".join(prepared.structure.between), count)

    def take(block: int) -> None:
        local = stage.files_in(folders, block)
        for name, path in zip(stage.files(block), local, strict=True):
            place.get(name, path)

    gather(executor, stage, prepared.loaded, place, take, expected)


def _write_positions(folder: Path, manifest: Manifest, prepared: Prepared) -> int:
    """Write the positions of a run; returns how many pairs took the exact path."""
    sample, window = prepared.material.sample, prepared.material.sample.predicted
    baseline = read_baselines(folder, manifest.blocks)
    positions = np.arange(manifest.positions, dtype=np.uint32)
    table = pl.DataFrame(
        {
            "position_id": positions,
            "window_id": positions // window,
            "window_offset": positions % window,
            "document_id": sample.document_ids.reshape(-1),
            "input_token_id": sample.inputs,
            "target_token_id": sample.targets,
            "loss": baseline.loss,
            "entropy": baseline.entropy,
        }
    ).with_columns(pl.when(pl.col("document_id") >= 0).then("document_id"))
    write_relation(folder, "dim_position", table.to_arrow())
    return baseline.exact_pairs


def _checked(
    prepared: Prepared,
    manifests: Sequence[Manifest],
    folders: Sequence[Path],
    captured: Captured,
    found: Sequence[ReferenceValues],
) -> list[Checked]:
    """The self-check of each run."""
    structure, sample = prepared.structure, prepared.material.sample
    check = dense_self_check if structure.between else self_check
    return [
        check(
            Subject(
                folder, prepared.model, structure, sample.tokens, captured, values.reference,
                manifest.position_block, manifest.tolerance, manifest.seed, sample.predicted,
                manifest.options["edit_scope"],
            )
        )
        for folder, manifest, values in zip(folders, manifests, found, strict=True)
    ]  # fmt: skip


def _summary(
    prepared: Prepared, manifest: Manifest, checked: Checked, exact_pairs: int, seconds: float, clock: StageClock
) -> Summary:
    warnings = [*prepared.notes, *prepared.material.sample.warnings, *prepared.material.counts.warnings]
    if manifest.dtype in ("bfloat16", "float16"):
        warnings.append(
            f"Captured in {manifest.dtype}: the tolerance holds given the captured values, not against a float64 model."
            if not prepared.structure.between
            else f"Computed in float32 from {manifest.dtype} weights: its rounding adds to the tolerance."
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
