"""The reference values of the runs that are measured together, once the forward pass is done."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rare_tokens.common.effects import LOSS
from rare_tokens.common.errors import OptionError
from rare_tokens.common.files import write_atomically
from rare_tokens.common.parts import Manifest
from rare_tokens.ingest.ablation.stages.capture import Captured
from rare_tokens.ingest.ablation.stages.optimum import Optimum, optimum
from rare_tokens.ingest.ablation.stages.references import (
    MEAN,
    RESAMPLE,
    ZERO,
    Choice,
    Constant,
    ReferenceValues,
    Resampled,
    choices,
    resampled,
)
from rare_tokens.ingest.model.structure import Structure
from rare_tokens.ingest.run.stages import Loaded, last_layer_ablation
from rare_tokens.ingest.text.windows import Sample


def require_possible(manifests: Sequence[Manifest], structure: Structure, sample: Sample) -> None:
    """Refuse references that this run cannot have, before anything is computed.

    Raises:
        OptionError: the dense path is needed and a reference is no constant, or there is a single window to take
            activations from.
    """
    for choice in map(_choice, manifests):
        if structure.between and not choice.is_constant:
            raise OptionError(
                f"--ablation {choice.name}: this layer takes the dense path ({'; '.join(structure.between)}), which "
                "has the references mean and zero."
            )
        if choice.kind == RESAMPLE:
            _resampled(choice, sample, seed=0)


def reference_values(
    manifests: Sequence[Manifest], loaded: Loaded, captured: Captured, mean: NDArray[np.float64], folder: Path
) -> list[ReferenceValues]:
    """The reference of each run.

    Args:
        manifests: the runs.
        loaded: the model and the sample.
        captured: of the forward pass.
        mean: N, n̄.
        folder: where optimal constants are kept until the run is published: finding them takes long.
    """
    found = []
    for manifest in manifests:
        choice = _choice(manifest)
        if choice.kind == MEAN:
            found.append(ReferenceValues(Constant(mean)))
        elif choice.kind == ZERO:
            found.append(ReferenceValues(Constant(np.zeros_like(mean))))
        elif choice.kind == RESAMPLE:
            found.append(ReferenceValues(_resampled(choice, loaded.sample, manifest.seed)))
        else:
            best = _optimum(manifest, loaded, captured, mean, folder / "optimum.npz")
            found.append(ReferenceValues(Constant(best.values), best.error, best.is_outside))
    return found


def _choice(manifest: Manifest) -> Choice:
    return choices(manifest.ablation)[0]


def _resampled(choice: Choice, sample: Sample, seed: int) -> Resampled:
    return resampled(choice, len(sample.targets) // sample.predicted, sample.predicted, seed)


def _optimum(manifest: Manifest, loaded: Loaded, captured: Captured, mean: NDArray[np.float64], path: Path) -> Optimum:
    if not path.exists():
        nothing = torch.zeros(len(mean))
        ablation = last_layer_ablation(loaded, manifest, captured, nothing, effects=(LOSS,))
        found = optimum(ablation, captured, loaded.sample.targets, mean, seed=manifest.seed)

        def save(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.savez(stream, values=found.values, error=found.error, is_outside=found.is_outside)

        write_atomically(path, save)
    with np.load(path) as stored:
        return Optimum(stored["values"], stored["error"], stored["is_outside"])
