"""The stages of a run that other machines can compute: what a worker is sent, and what it does with it.

A worker gets a `Recipe`, loads the model itself, and turns a `Stage` into work on units. The files of a unit go to a
`Place`. The unit is done when all of them are there; doing it twice gives the same files. There is a barrier between
the stages, because the ablation's reference is a mean over the whole forward stage.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from rare_tokens.common.errors import UserError
from rare_tokens.common.parts import Manifest, effect_path
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.ablation.stages.capture import Capture, Captured, sample_of
from rare_tokens.ingest.ablation.stages.parts import EffectUnits, baseline_path
from rare_tokens.ingest.ablation.stages.references import Reference
from rare_tokens.ingest.dense.ablation import DenseAblation
from rare_tokens.ingest.dense.parts import DenseUnits, announce
from rare_tokens.ingest.machine import release_memory
from rare_tokens.ingest.model import locate
from rare_tokens.ingest.model.files import model_hash
from rare_tokens.ingest.model.look import look
from rare_tokens.ingest.model.structure import Structure
from rare_tokens.ingest.run.loading import load
from rare_tokens.ingest.run.request import Request
from rare_tokens.ingest.run.shared_storage import Place
from rare_tokens.ingest.text.windows import Sample

Work = Callable[[int], None]


@dataclass(frozen=True)
class Loaded:
    """What units are computed from, on any machine: a model, the sample, and the counts of its tokens (V)."""

    model: PreTrainedModel
    structure: Structure
    device: str
    sample: Sample
    counts: NDArray[np.int64]
    recipe: "Recipe"  # by which another machine loads the same


@dataclass(frozen=True)
class Recipe:
    """How a worker loads what the driver has loaded: small, and the same on every machine."""

    request: Request  # without tokenizer, corpus and configuration
    sample: Sample
    counts: NDArray[np.int64]
    is_local: bool  # the model is a folder, which workers must find under the same path
    is_whole: bool  # none of the model may wait off the device

    @classmethod
    def of(cls, request: Request, sample: Sample, counts: NDArray[np.int64], *, whole: bool = False) -> "Recipe":
        """The recipe for a run whose sample is drawn; with `whole`, for workers that edit the model itself."""
        is_local = Path(request.options.model).expanduser().exists()
        folder = replace(request.folder, path=request.folder.path.resolve())
        nothing = cast("Any", None)
        light = replace(request, folder=folder, tokenizer=nothing, corpus=nothing, look=nothing)
        return cls(light, replace(sample, documents=sample.documents.clear(), contexts=None), counts, is_local, whole)

    def find(self) -> Request:
        """The request with the path that the model has on this machine.

        Raises:
            UserError: the model is not here, or has other weights.
        """
        options = self.request.options
        folder, trust = self.request.folder, options.trust
        if not self.is_local:
            folder = locate.locate(folder.name, folder.revision, trust)
        elif not folder.path.is_dir():
            raise UserError(f"--model {folder.path}: a worker has no such folder. Put it where every worker sees it.")
        if model_hash(folder, trust) != self.request.model_hash:
            raise UserError(f"--model {folder.name} ({folder.revision}): a worker has other weights under this name.")
        return replace(
            self.request, folder=folder, look=look(folder, trust, self.request.layer, options.ignore_weights)
        )

    def load(self) -> Loaded:
        """Load the model on this machine's device.

        Raises:
            UserError: as `find`, or it cannot be loaded.
        """
        found = load(self.find(), whole=self.is_whole)
        return Loaded(found.model, found.structure, found.device, self.sample, self.counts, self)


class Stage(Protocol):
    """Units of work as they are sent to workers: small, and pickled."""

    @property
    def title(self) -> str:
        """Its name in messages."""

    @property
    def units(self) -> int:
        """How many units there are."""

    def files(self, unit: int) -> tuple[str, ...]:
        """Names of the files that a unit leaves at its place."""

    def build(self, loaded: Loaded, place: Place) -> Work:
        """Make what its units share, once per worker; returns the work on one unit."""


@dataclass(frozen=True)
class ForwardStage:
    """Runs batches of windows through the model; one file holds the captured rows of a batch."""

    units: int
    windows_per_batch: int
    title: str = "forward pass"

    def files(self, unit: int) -> tuple[str, ...]:
        """The batch's rows."""
        return (_rows_name(unit),)

    def build(self, loaded: Loaded, place: Place) -> Work:
        """Capture with the loaded model."""
        scratch = tempfile.TemporaryDirectory(prefix="rare-tokens-")
        folder = Path(scratch.name)
        capture = Capture(folder, loaded.sample.tokens, loaded.model, loaded.structure, loaded.sample.predicted)
        capture.windows_per_batch = self.windows_per_batch

        def work(batch: int) -> None:
            residual, activations = capture.compute(batch)
            path = (
                Path(scratch.name) / "rows.npz"
            )  # named through `scratch`, so that the folder lives as long as the work
            np.savez(path, residual=residual, activations=activations)
            place.put(path, _rows_name(batch))
            del residual, activations
            release_memory()

        return work


@dataclass(frozen=True)
class AblationStage:
    """Ablates every neuron in blocks of positions; each block leaves a part of ``fct_effect`` and a baseline.

    Of several runs, one for each reference, the first one's files lie at the place, the others' in folders there.
    """

    manifests: tuple[Manifest, ...]
    references: tuple[Reference, ...]
    positions_per_batch: int  # of the forward stage
    title: str = "ablation"

    @property
    def units(self) -> int:
        """Blocks of the run."""
        return self.manifests[0].blocks

    def folders(self, at: Path) -> list[Path]:
        """Where each run's files are, if the first one's are there."""
        return [at, *(at / manifest.run_id for manifest in self.manifests[1:])]

    def files(self, unit: int) -> tuple[str, ...]:
        """The baselines, then the parts."""
        paths = (baseline_path, effect_path)
        return tuple(path(folder, unit).as_posix() for path in paths for folder in self.folders(Path()))

    def files_in(self, folders: Sequence[Path], unit: int) -> tuple[Path, ...]:
        """The same files in the folders of the runs."""
        return tuple(path(folder, unit) for path in (baseline_path, effect_path) for folder in folders)

    def build(self, loaded: Loaded, place: Place) -> Work:
        """Ablate what the forward stage left at the place."""
        scratch = tempfile.TemporaryDirectory(prefix="rare-tokens-")
        captured = captured_at(place, self.positions_per_batch)
        folders = self.folders(Path(scratch.name))
        units = effect_units(loaded, self.manifests[0], folders, captured, self.references)
        return carried(units.run, self.files, scratch, place)


def carried(
    run: Work, files: Callable[[int], tuple[str, ...]], scratch: "tempfile.TemporaryDirectory[str]", place: Place
) -> Work:
    """`run`, whose unit leaves its `files` in a scratch folder, and then their way to the place."""

    def work(unit: int) -> None:
        run(unit)
        for name in files(unit):
            path = Path(scratch.name) / name  # through `scratch`, so that the folder lives as long as the work
            place.put(path, name)
            path.unlink()

    return work


def rows_of(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Residual stream and activations of a batch, from the file of the forward stage."""
    with np.load(path) as arrays:
        return arrays["residual"], arrays["activations"]


def effect_units(
    loaded: Loaded,
    manifest: Manifest,
    folders: Sequence[Path],
    captured: Captured,
    references: Sequence[Reference],
    *,
    say: bool = False,
) -> EffectUnits:
    """The ablation by moments if the structure allows it, else the dense path, whose cost `say` announces first.

    Args:
        loaded: the model and the sample.
        manifest: of one of the runs, which differ in their references alone.
        folders: of the runs.
        captured: of the forward pass.
        references: of the runs.
        say: whether to.
    """
    structure, sample, effects = loaded.structure, loaded.sample, tuple(manifest.effects)
    if not structure.between:
        ablation = last_layer_ablation(loaded, manifest, captured, torch.zeros(manifest.neurons), effects=effects)
        block = manifest.position_block
        return EffectUnits(folders, ablation, references, captured, sample.targets, block, effects)
    constants = [reference.constant for reference in references]
    dense = [
        DenseAblation(
            loaded.model,
            structure,
            torch.from_numpy(constant.astype(np.float32)),
            edit_scope=manifest.options["edit_scope"],
            effects=effects,
            unigram_counts=torch.from_numpy(np.array(loaded.counts)),
        )
        for constant in constants
        if constant is not None
    ]
    assert len(dense) == len(references), "a reference that is no constant is refused before"
    if say:
        announce(dense[0], structure, sample, manifest.neurons * len(dense))
    return DenseUnits(folders, dense, captured, sample, manifest.position_block, effects)


def last_layer_ablation(
    loaded: Loaded, manifest: Manifest, captured: Captured, reference: torch.Tensor, *, effects: tuple[str, ...]
) -> Ablation:
    """The ablation by moments of a run's effects."""
    structure = loaded.structure
    return Ablation(
        structure.head,
        structure.w_out,
        reference,
        post_norm=structure.post_norm,
        tolerance=manifest.tolerance,
        effects=effects,
        unigram_counts=torch.from_numpy(np.array(loaded.counts)),
        device=loaded.device,
        sample=sample_of(captured.residual, len(loaded.sample.targets)),
    )


def captured_at(place: Place, positions_per_batch: int) -> Captured:
    """What the forward stage left at a place, to be read in slices of rows."""
    rows = _Rows(place, positions_per_batch)
    return Captured(cast("Any", _Column(rows, "residual")), cast("Any", _Column(rows, "activations")))


class _Rows:
    """Captured rows, fetched from where the forward stage left them; the last slice is kept."""

    def __init__(self, place: Place, positions_per_batch: int) -> None:
        self.place, self.step = place, positions_per_batch
        self._kept: tuple[slice, dict[str, NDArray[np.float32]]] | None = None

    def read(self, rows: slice) -> dict[str, NDArray[np.float32]]:
        if self._kept is None or self._kept[0] != rows:
            self._kept = None
            self._kept = (rows, self._fetched(rows))
        return self._kept[1]

    def _fetched(self, rows: slice) -> dict[str, NDArray[np.float32]]:
        batches = range(rows.start // self.step, -(-rows.stop // self.step))
        with tempfile.TemporaryDirectory(prefix="rare-tokens-") as folder:
            parts = []
            for batch in batches:
                path = Path(folder) / "rows.npz"
                self.place.get(_rows_name(batch), path)
                parts.append(rows_of(path))
                path.unlink()
        first = batches.start * self.step
        inside = slice(rows.start - first, rows.stop - first)
        residual, activations = (np.concatenate(column)[inside] for column in zip(*parts, strict=True))
        return {"residual": residual, "activations": activations}


class _Column:
    """One of the captured arrays, of which units read slices of rows."""

    def __init__(self, rows: _Rows, name: str) -> None:
        self.rows, self.name = rows, name

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        return self.rows.read(rows)[self.name]


def _rows_name(batch: int) -> str:
    return f"capture/{batch:05d}.npz"
