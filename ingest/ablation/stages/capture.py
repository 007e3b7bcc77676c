"""One forward pass over the sample: the residual stream before the final norm and the activations, memory-mapped.

The unembedding is left out: the ablation needs U x_t anyway, and pays for it once.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import write_atomically
from rare_tokens.ingest.machine import release_memory
from rare_tokens.ingest.model.structure import Structure, hooked

POSITIONS_PER_BATCH = 2_048
_READ_POSITIONS = 4_096
_ZEROS = 1 << 24
_SAMPLES, _SAMPLE = 16, 16  # stretches of a run, and positions in each, that show what it typically predicts


@dataclass(frozen=True)
class Captured:
    """The captured arrays of a run, memory-mapped from its folder: float32, T × d and T × N."""

    residual: NDArray[np.float32]
    activations: NDArray[np.float32]


class Capture:
    """Runs batches of windows through the decoder and keeps what the ablation needs.

    A marker beside the arrays says which batches are on disk, so an interrupted capture resumes. Only the last
    `predicted` positions of each window are kept: all (None), or in matched contexts the one they are about.
    """

    def __init__(
        self,
        folder: Path,
        tokens: NDArray[np.int64],
        model: PreTrainedModel,
        structure: Structure,
        predicted: int | None = None,
    ) -> None:
        self.folder = folder / "capture"
        self.tokens = tokens  # windows × (window + 1)
        self.model, self.structure = model, structure
        self.window = tokens.shape[1] - 1
        self.predicted = self.window if predicted is None else predicted
        self.windows_per_batch = self.windows_in_a_batch(tokens)
        self.folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def windows_in_a_batch(tokens: NDArray[np.int64]) -> int:
        """How many of these windows (window + 1 tokens each) make one unit of work."""
        return max(1, POSITIONS_PER_BATCH // (tokens.shape[1] - 1))

    @property
    def batches(self) -> int:
        """Number of units of work."""
        return -(-len(self.tokens) // self.windows_per_batch)

    def open(self, mode: Literal["r+", "r"] = "r+") -> Captured:
        """Map the arrays, creating them at their full size the first time."""
        positions = len(self.tokens) * self.predicted
        shapes = {"residual": self.structure.w_out.shape[1], "activations": self.structure.neurons}
        arrays = {}
        for name, width in shapes.items():
            path = self.folder / f"{name}.npy"
            if not path.exists():
                write_atomically(path, partial(_allocate, shape=(positions, width)))
            arrays[name] = np.load(path, mmap_mode=mode)
        return Captured(**arrays)

    def is_done(self, batch: int) -> bool:
        """Whether a batch is on disk."""
        return self._marker(batch).exists()

    def run(self, batch: int) -> None:
        """Run one batch of windows forward and write what is captured.

        Raises:
            UserError: the residual stream or an activation is NaN or infinite.
        """
        self.keep(batch, *self.compute(batch))
        release_memory()

    def compute(self, batch: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Residual stream (positions × d) and activations (positions × N) of one batch of windows.

        Raises:
            UserError: as `run`.
        """
        windows = slice(batch * self.windows_per_batch, (batch + 1) * self.windows_per_batch)
        inputs = torch.from_numpy(self.tokens[windows, :-1]).to(self.model.device)
        residual, activations = forward(self.model, self.structure, inputs, self.predicted)
        for name, values in (("residual stream", residual), ("activations", activations)):
            if not bool(torch.isfinite(values).all()):
                raise UserError(
                    f"NaN or infinity in the {name} of layer {self.structure.layer}, windows "
                    f"{windows.start}–{windows.stop - 1}. Try --dtype float32, or check the weights."
                )
        return residual.cpu().numpy(), activations.cpu().numpy()

    def keep(self, batch: int, residual: NDArray[np.float32], activations: NDArray[np.float32]) -> None:
        """Write what a batch captured, wherever it was computed."""
        start = batch * self.windows_per_batch * self.predicted
        at = slice(start, start + len(residual))
        arrays = self.open()
        arrays.residual[at], arrays.activations[at] = residual, activations
        for array in (arrays.residual, arrays.activations):
            array.flush()  # type: ignore[attr-defined]
        write_atomically(self._marker(batch), Path.touch)

    def _marker(self, batch: int) -> Path:
        return self.folder / f"{batch:05d}.done"


def forward(
    model: PreTrainedModel, structure: Structure, inputs: Tensor, predicted: int | None = None
) -> tuple[Tensor, Tensor]:
    """Residual stream before the final norm (positions × d) and activations (positions × N), float32.

    `inputs` is windows × window token ids; positions are in window order, the last `predicted` of each (None: all).
    """
    kept = inputs.shape[1] if predicted is None else predicted

    seen: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            values = args[0].detach().reshape(*inputs.shape, -1)[:, -kept:]
            seen[name] = values.float().reshape(len(inputs) * kept, -1)

        return hook

    hooks = (
        (structure.final_norm, "before", recorder("residual")),
        (structure.out_projection, "before", recorder("activations")),
    )
    # The unembedding is not needed, and its logits are large; but some models have the final norm in their head.
    body = model.base_model
    whole = body if any(module is structure.final_norm for module in body.modules()) else model
    with torch.inference_mode(), hooked(*hooks):
        whole(input_ids=inputs, use_cache=False)
    return seen["residual"], seen["activations"]


def mean_activations(activations: NDArray[np.float32]) -> NDArray[np.float64]:
    """n-bar (N): the mean over all T positions, summed in float64 in a fixed order."""
    total = np.zeros(activations.shape[1], dtype=np.float64)
    for start in range(0, len(activations), _READ_POSITIONS):
        total += activations[start : start + _READ_POSITIONS].sum(axis=0, dtype=np.float64)
    return total / len(activations)


def sample_of(residual: NDArray[np.float32], T: int) -> Tensor:
    """Residual streams at 256 of T positions (all, if fewer), in stretches spread over the run: S × d."""
    if T <= _SAMPLES * _SAMPLE:
        return torch.from_numpy(np.array(residual[0:T]))
    starts = np.linspace(0, T - _SAMPLE, _SAMPLES).astype(int).tolist()
    return torch.from_numpy(np.concatenate([residual[start : start + _SAMPLE] for start in starts]))


def _allocate(path: Path, shape: tuple[int, int]) -> None:
    """Create an .npy of the full size and reserve its space, so that a full disk is an error that can be reported.

    Writing to a full disk through a memory map would end the process with a bus error.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_2_0(stream, header)
        offset, size = stream.tell(), shape[0] * shape[1] * 4
        stream.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), offset, size)
            return
        for written in range(0, size, _ZEROS):
            stream.write(bytes(min(_ZEROS, size - written)))
