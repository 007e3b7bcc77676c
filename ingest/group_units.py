"""The effects of groups as units of work: a batch of windows becomes one file, here or on a worker."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rare_tokens.common.files import write_atomically
from rare_tokens.ingest.ablation.stages.capture import Capture, Captured
from rare_tokens.ingest.dense.ablation import DenseAblation
from rare_tokens.ingest.dense.parts import announce
from rare_tokens.ingest.machine import release_memory
from rare_tokens.ingest.model.head import ROWS, Head
from rare_tokens.ingest.run.shared_storage import Place
from rare_tokens.ingest.run.stages import Loaded, Work, captured_at, carried

Members = Sequence[Sequence[int]]  # the neurons of each group


@dataclass(frozen=True)
class GroupUnits:
    """Ablates each group in batches of windows, as many windows as a batch of the forward pass has.

    Attributes:
        folder: where the files go.
        loaded: the model and the sample.
        members: the neurons of each of the G groups.
        reference: N, the value that each activation is replaced by.
        captured: rows of the forward pass; the dense path does not read them.
        edit_scope: where a neuron below the last layer is replaced.
    """

    folder: Path
    loaded: Loaded
    members: Members
    reference: NDArray[np.float32]
    captured: Captured
    edit_scope: str

    @property
    def units(self) -> int:
        """How many units there are."""
        return -(-len(self.loaded.sample.tokens) // self._windows)

    def path(self, unit: int) -> Path:
        """The file of a unit: positions × G float32."""
        return self.folder / unit_name(unit)

    def is_done(self, unit: int) -> bool:
        """Whether it is on disk."""
        return self.path(unit).exists()

    def run(self, unit: int) -> None:
        """Ablate each group at every position of the unit's windows, and write the effects."""
        first = unit * self._windows
        windows = range(first, min(first + self._windows, len(self.loaded.sample.tokens)))
        effects = np.concatenate(self._replayed(windows) if self.loaded.structure.between else self._added(windows))
        write_atomically(self.path(unit), lambda path: _save(path, effects))
        release_memory()

    def announce(self) -> None:
        """Say how long the dense path will take, where it is taken."""
        if self.loaded.structure.between:
            announce(self._dense, self.loaded.structure, self.loaded.sample, len(self.members))

    @property
    def _windows(self) -> int:
        return Capture.windows_in_a_batch(self.loaded.sample.tokens)

    @cached_property
    def _dense(self) -> DenseAblation:
        reference = torch.from_numpy(self.reference)
        return DenseAblation(self.loaded.model, self.loaded.structure, reference, edit_scope=self.edit_scope)

    def _replayed(self, windows: range) -> list[NDArray[np.float32]]:
        """Effects window by window, each positions × G, from running the model again."""
        sample = self.loaded.sample
        return [
            self._dense.window(sample.tokens[window], self.members, sample.predicted).values["loss"]
            for window in windows
        ]

    def _added(self, windows: range) -> list[NDArray[np.float32]]:
        """The same from adding Σ a_i w_i to the captured residual stream."""
        structure, sample, device = self.loaded.structure, self.loaded.sample, self.loaded.device
        place = torch.device("cpu" if device == "mps" else device)
        each = sample.predicted
        batch = slice(windows.start * each, windows.stop * each)
        residual, activations = np.array(self.captured.residual[batch]), np.array(self.captured.activations[batch])
        parts = []
        for number, window in enumerate(windows):
            rows = slice(number * each, (number + 1) * each)
            x = torch.from_numpy(residual[rows]).to(place, torch.float64)
            n = torch.from_numpy(activations[rows]).to(place, torch.float64)
            shift = torch.from_numpy(self.reference).to(n) - n
            targets = torch.from_numpy(sample.targets[window * each : (window + 1) * each]).to(place)
            before = exact_loss(structure.head, x, targets)
            columns = []
            for neurons in self.members:
                chosen = torch.tensor(neurons, device=place)
                edited = structure.moved(x, n, shift[:, chosen], chosen)
                columns.append(exact_loss(structure.head, edited, targets) - before)
            parts.append(torch.stack(columns, dim=1).float().cpu().numpy())
        return parts


@dataclass(frozen=True)
class GroupStage:
    """Ablates groups of neurons in batches of windows; one file holds the effects in a batch."""

    units: int
    members: Members
    reference: NDArray[np.float32]  # N
    edit_scope: str
    positions_per_batch: int  # of the forward stage
    title: str = "groups"

    def files(self, unit: int) -> tuple[str, ...]:
        """The batch's effects."""
        return (unit_name(unit),)

    def build(self, loaded: Loaded, place: Place) -> Work:
        """Ablate what the forward stage left at the place."""
        scratch = tempfile.TemporaryDirectory(prefix="rare-tokens-")
        captured = captured_at(place, self.positions_per_batch)
        units = GroupUnits(Path(scratch.name), loaded, self.members, self.reference, captured, self.edit_scope)
        return carried(units.run, self.files, scratch, place)


def unit_name(unit: int) -> str:
    """Name of a unit's file within the folder of the groups."""
    return f"units/{unit:05d}.npy"


def exact_loss(head: Head, residual: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy (P) of targets (P) from the residual stream before the final norm (P × d), in its own dtype."""
    normed = head.norm(residual)
    total = torch.full_like(normed[:, 0], -torch.inf)
    for start in range(0, len(head.unembedding), ROWS):
        logits = _logits(head, normed, slice(start, start + ROWS))
        total = torch.logaddexp(total, logits.logsumexp(1))
    rows = targets.to(head.unembedding.device)
    target = (normed * head.unembedding[rows].to(normed)).sum(1)
    return total - (target if head.logit_bias is None else target + head.logit_bias[rows].to(normed))


def _logits(head: Head, normed: Tensor, rows: slice) -> Tensor:
    logits = normed @ head.unembedding[rows].to(normed).T
    return logits if head.logit_bias is None else logits + head.logit_bias[rows].to(normed)


def _save(path: Path, effects: NDArray[np.float32]) -> None:
    with path.open("wb") as stream:
        np.save(stream, effects)
