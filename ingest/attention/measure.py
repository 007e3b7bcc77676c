"""Adds attention and its heads to a published run: summaries, ablations, controls, patches.

What each is: docs/definitions.md, "Attention".

Activations are measured at every sampled position and kept as sums over *cells*: the positions of a few windows that
are in the same token groups, so that any group of neurons chosen later is a query and windows can be resampled. The
loss is measured in a seeded subsample of whole windows and kept per position; patches are tried in that subsample.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import write_atomically
from rare_tokens.common.parts import ATTENTION_RELATIONS, relation_path, schema
from rare_tokens.common.version import VERSION
from rare_tokens.ingest.ablation.stages.parts import write_relation
from rare_tokens.ingest.attention.cells import Cells, make_cells, positions_with_cells
from rare_tokens.ingest.attention.edits import ABLATIONS, HeadEdits
from rare_tokens.ingest.attention.heads import AttentionLayer, eager, find_heads, parse_layers
from rare_tokens.ingest.attention.selfcheck import structural_error
from rare_tokens.ingest.attention.units import UNITS, AttentionStage, AttentionUnits, batched, unit_name
from rare_tokens.ingest.run.executors import Executor, gather
from rare_tokens.ingest.run.pipeline import Prepared
from rare_tokens.ingest.run.resuming import begin
from rare_tokens.ingest.run.shared_storage import Place

log = logging.getLogger("rare_tokens")

SUBSAMPLE = 4_096  # positions whose loss is measured, in whole windows


@dataclass(frozen=True)
class AttentionRequest:
    """What `--attention` asks for: `layers`, ascending (None: the default ones), and what replaces a head's output."""

    layers: tuple[int, ...] | None = None
    ablation: str = "zero"

    def __post_init__(self) -> None:
        """Refuse an unknown ablation."""
        if self.ablation not in ABLATIONS:
            raise UserError(
                f"--head-ablation {self.ablation}: unknown. Use {', '.join(ABLATIONS[:-1])} or {ABLATIONS[-1]}."
            )


@dataclass(frozen=True)
class AttentionOptions:
    """The options of `ingest` about attention, as given; `layers` as spelled, None where they were left out."""

    wanted: bool = False
    layers: str | None = None
    ablation: str | None = None

    def __post_init__(self) -> None:
        """Refuse options that would do nothing."""
        for name, value in (("--attention-layers", self.layers), ("--head-ablation", self.ablation)):
            if value is not None and not self.wanted:
                raise UserError(f"{name} {value} says how to measure attention. Give --attention too, or leave it out.")

    def request(self, depth: int) -> AttentionRequest | None:
        """The request for a model of `depth` layers; None: nothing is asked.

        Raises:
            UserError: the model has no such layer.
        """
        layers = None if self.layers is None else tuple(parse_layers(self.layers, depth))
        return AttentionRequest(layers, self.ablation or "zero") if self.wanted else None


def attention_due(
    asked: AttentionRequest | None, stored: Sequence[AttentionRequest], *, recomputed: bool
) -> list[AttentionRequest]:
    """What to measure: what is asked for and not stored, with the stored layers; everything if the run is recomputed.

    Asking for more never loses what is stored.
    """
    there = {one.ablation: one for one in stored}
    if asked is not None and (old := there.get(asked.ablation)) is not None:
        both = tuple(sorted({*(asked.layers or ()), *(old.layers or ())}))
        asked = None if both == old.layers else AttentionRequest(both, asked.ablation)
    kept = [one for one in stored if asked is None or one.ablation != asked.ablation] if recomputed else []
    return [*kept, *([] if asked is None else [asked])]


def measure_attention(
    prepared: Prepared,
    groups: pl.DataFrame,
    folder: Path,
    request: AttentionRequest,
    executor: Executor,
    place: Place | None = None,
    expected: float | None = None,
) -> None:
    """Measure attention and write its parts to a folder, resuming an interrupted measurement.

    Args:
        prepared: the run's model and sample; the run itself is left as it is.
        groups: `position_group` of the run: preset, token_group, position_id.
        folder: for these parts alone.
        request: which layers, which ablation.
        executor: runs the units.
        place: where units leave their files; None: in the folder, by this process.
        expected: seconds that the units are forecast to take on this machine.

    Raises:
        UserError: there is no such layer, a layer has no attention weights, values are not finite, the place cannot be
            used, or the self-check fails.
    """
    began = time.perf_counter()
    model, structure, sample = prepared.model, prepared.structure, prepared.material.sample
    with eager(model):
        layers = find_heads(model, structure, request.layers)
    seed = prepared.manifest.seed
    edits = HeadEdits(
        model, structure, layers, ablation=request.ablation, predicted=sample.predicted,
        patches=len(sample.tokens) > 1, seed=seed,
    )  # fmt: skip
    cells = make_cells(
        groups, len(sample.tokens), sample.predicted, subsample=SUBSAMPLE, seed=seed,
        values=len(edits.edits) * structure.neurons,
        pairs=None if sample.contexts is None else sample.contexts["pair_id"].to_numpy().astype(np.int64),
    )  # fmt: skip
    begin(folder, _plan(prepared, request, layers), place)
    if request.ablation == "mean":
        edits.find_means(list(_batches(sample.tokens, np.arange(len(sample.tokens)))))
    units = AttentionUnits(folder, edits, sample.tokens, cells, structure.neurons)
    if place is None:
        executor.run("attention", range(len(cells.units)), units.run, units.is_done, expected)
    else:
        indices = tuple(layer.index for layer in layers)
        stage = AttentionStage(indices, request.ablation, seed, cells.without_table(), edits.means)

        def take(unit: int) -> None:
            place.get(unit_name(unit), units.path(unit))

        gather(executor, stage, prepared.loaded, place, take, expected)
    error = structural_error(edits, sample.tokens, cells)
    if not error <= 1:
        raise UserError(
            f"{type(model).__name__} is not supported with --attention: edited heads differ from the hooked model by "
            f"{error:.3g} times what its precision explains. Nothing was published."
        )
    about = {
        "head_ablation": request.ablation,
        "layers": [layer.index for layer in layers],
        "heads": [layer.heads for layer in layers],
        "loss_positions": int(sum(len(cells.units[unit]) for unit in cells.subsampled) * sample.predicted),
        "windows_per_unit": cells.windows_per_unit,
        "structural_check_error": error,
        "seconds": time.perf_counter() - began,
        "code_version": VERSION,
    }
    _write(folder, edits, cells, units, prepared, about)
    shutil.rmtree(folder / UNITS)


def _plan(prepared: Prepared, request: AttentionRequest, layers: Sequence[AttentionLayer]) -> dict[str, Any]:
    """What the units depend on."""
    return {
        "identity": prepared.manifest.identity,
        "ablation": request.ablation,
        "layers": [layer.index for layer in layers],
        "code_version": VERSION,
        "packages": prepared.manifest.packages,
    }


def _batches(tokens: NDArray[np.int64], windows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for chosen in batched(windows, tokens.shape[1] - 1):
        yield tokens[chosen]


def _write(
    folder: Path, edits: HeadEdits, cells: Cells, units: AttentionUnits, prepared: Prepared, about: dict[str, Any]
) -> None:
    """Write the parts: small ones whole, those of the cells unit by unit."""
    write_relation(folder, "dim_attention", pa.table({name: [value] for name, value in about.items()}))
    write_relation(folder, "dim_attention_cell", cells.table.to_arrow())
    write_relation(folder, "attention_position", positions_with_cells(cells, prepared.material.sample).to_arrow())
    largest = np.zeros(1 + max(edit.edit for edit in edits.edits))
    tables: dict[str, Callable[[int, Any], pa.Table]] = {
        "agg_attention_head": lambda unit, found: _head_rows(edits, cells.of_unit(unit).ids, found),
        "agg_attention_distance": lambda unit, found: _distance_rows(edits, cells.of_unit(unit).ids, found),
        "agg_attention_activation": lambda unit, found: _activation_rows(cells.of_unit(unit).ids, found),
        "fct_attention_effect": lambda unit, found: _loss_rows(edits, cells.positions_of(unit), found),
    }
    for relation, rows in tables.items():
        form = schema(relation)

        def fill(path: Path, rows: Callable[[int, Any], pa.Table] = rows, form: pa.Schema = form) -> None:
            with pq.ParquetWriter(path, form) as writer:
                for unit in range(len(cells.units)):
                    with np.load(units.path(unit)) as found:
                        np.maximum(largest, found["largest"], out=largest)
                        writer.write_table(rows(unit, found).cast(form))

        write_atomically(relation_path(folder, relation), fill)
    rows_of_edits = {
        name: [getattr(edit, name) for edit in edits.edits]
        for name in ("edit", "kind", "layer", "head", "draw", "feeds")
    }
    rows_of_edits["attention_layer"] = rows_of_edits.pop("layer")
    rows_of_edits["feeds_neurons"] = rows_of_edits.pop("feeds")
    rows_of_edits["largest_change"] = [float(largest[edit.edit]) for edit in edits.edits]
    form = schema("dim_attention_edit")
    write_relation(folder, "dim_attention_edit", pa.table(rows_of_edits).select(form.names))
    assert all(relation_path(folder, relation).exists() for relation in ATTENTION_RELATIONS)


def _heads(edits: HeadEdits) -> tuple[NDArray[Any], NDArray[Any]]:
    """(layer, head) of every head, in the order in which sums are kept."""
    layer_of = np.concatenate([np.full(layer.heads, layer.index) for layer in edits.layers])
    return layer_of, np.concatenate([np.arange(layer.heads) for layer in edits.layers])


def _head_rows(edits: HeadEdits, ids: NDArray[np.int64], found: Any) -> pa.Table:
    layer_of, heads = _heads(edits)
    columns = {"attention_layer": np.repeat(layer_of, len(ids)), "head": np.repeat(heads, len(ids))}
    columns["cell"] = np.tile(ids, len(heads))
    for name in ("gini_sum", "entropy_sum", "first_sum"):
        columns[name] = found[name].reshape(-1)
    return pa.table(columns)


def _distance_rows(edits: HeadEdits, ids: NDArray[np.int64], found: Any) -> pa.Table:
    layer_of, heads = _heads(edits)
    weight = found["weight_sum"]  # heads × cells × distances
    length = weight.shape[-1]
    return pa.table(
        {
            "attention_layer": np.repeat(layer_of, len(ids) * length),
            "head": np.repeat(heads, len(ids) * length),
            "cell": np.tile(np.repeat(ids, length), len(heads)),
            "distance": np.tile(np.arange(length), len(heads) * len(ids)),
            "weight_sum": weight.reshape(-1),
        }
    )


def _activation_rows(ids: NDArray[np.int64], found: Any) -> pa.Table:
    numbers, summed = found["activation_edits"], found["activation_sum"]  # edits; edits × cells × N
    neurons = summed.shape[-1]
    return pa.table(
        {
            "edit": np.repeat(numbers, len(ids) * neurons),
            "cell": np.tile(np.repeat(ids, neurons), len(numbers)),
            "neuron": np.tile(np.arange(neurons), len(numbers) * len(ids)),
            "activation_sum": summed.reshape(-1),
        }
    )


def _loss_rows(edits: HeadEdits, positions: NDArray[np.int64], found: Any) -> pa.Table:
    delta = found["delta_loss"]  # edits × positions; no rows where the loss was not measured
    numbers = np.arange(1, len(edits.edits) + 1)[: len(delta)]
    return pa.table(
        {
            "edit": np.repeat(numbers, delta.shape[1]),
            "position_id": np.tile(positions[: delta.shape[1]], len(numbers)),
            "delta_loss": delta.reshape(-1),
        }
    )
