"""The self-check of a run on the dense path (SPEC 2.1): whole forward passes with a neuron replaced by a hook.

(a) numeric: the model at the precision that computed, at the tolerance. Nothing is played back, cached or batched.
(b) structural: the model itself, in its own dtype.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from ingest.dense import widened
from ingest.replay import Unrounded
from ingest.selfcheck import RELATIVE_TOLERANCE, Checked, Subject, require_passed, stored_effects
from ingest.structure import hooked

WINDOWS = 2
NEURONS = 6  # a window, each at all its positions; half of them those whose edits are largest
POSITIONS = 24  # a window, one neuron each, where neurons are replaced at one position


def dense_self_check(subject: Subject) -> Checked:
    """Compare seeded pairs of the stored effects with hooked forward passes.

    Raises:
        UserError: a pair is beyond its tolerance.
    """
    generator = np.random.default_rng([subject.seed, 0x5E1F])
    chosen = np.sort(generator.choice(len(subject.tokens), min(WINDOWS, len(subject.tokens)), replace=False))
    wide, (wide_projection,) = widened(subject.model, subject.structure.out_projection)
    errors = {"numeric": 0.0, "structural": 0.0}
    pairs = 0
    for window in chosen.tolist():
        for neuron, position in _edits(subject, window, generator):
            where = np.arange(subject.predicted) if position is None else np.array([position])
            stored = _stored(subject, window, where, neuron)
            with Unrounded():
                delta, scale = _delta(subject, wide, wide_projection, window, neuron, position)
            rounding = 64 * torch.finfo(wide.dtype).eps * scale
            allowed = subject.tolerance + RELATIVE_TOLERANCE * np.abs(delta) + rounding
            errors["numeric"] = max(errors["numeric"], _worst(stored - delta[where], allowed[where]))
            own = (subject.model, subject.structure.out_projection)
            delta, scale = _delta(subject, *own, window, neuron, position)
            allowed = 32 * torch.finfo(subject.model.dtype).eps * scale + 0.02 * np.abs(delta)
            errors["structural"] = max(errors["structural"], _worst(stored - delta[where], allowed[where]))
            pairs += len(where)
    checked = Checked(errors["numeric"], errors["structural"], pairs, pairs)
    require_passed(subject, checked)
    return checked


def _worst(error: NDArray[np.float64], allowed: NDArray[np.float64]) -> float:
    return float((np.abs(error) / allowed).max())


def _edits(subject: Subject, window: int, generator: np.random.Generator) -> list[tuple[int, int | None]]:
    """(neuron, position among the predicted ones) to check in a window; position None: replaced at every one."""
    length = subject.predicted
    rows = slice(window * length, (window + 1) * length)
    norms = subject.structure.w_out.float().norm(dim=1).cpu().numpy()
    size = np.abs(subject.reference - np.asarray(subject.captured.activations[rows])) * norms  # T × N
    structure = subject.structure
    if subject.edit_scope == "window" or structure.layer == structure.depth - 1:
        drawn = generator.integers(0, structure.neurons, NEURONS // 2).tolist()
        largest = size.max(0).argsort()[::-1][: NEURONS - NEURONS // 2].tolist()
        return [(neuron, None) for neuron in [*drawn, *largest]]
    positions = generator.choice(length, min(POSITIONS, length), replace=False).tolist()
    return [
        (int(size[position].argmax()) if place % 2 else int(generator.integers(0, structure.neurons)), position)
        for place, position in enumerate(positions)
    ]


def _stored(subject: Subject, window: int, where: NDArray[np.int64], neuron: int) -> NDArray[np.float64]:
    positions = window * subject.predicted + where
    return stored_effects(subject, positions, np.full(len(positions), neuron))


def _delta(
    subject: Subject,
    model: PreTrainedModel,
    projection: nn.Module,
    window: int,
    neuron: int,
    position: int | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Δ at a window's predicted positions, and the scale of its rounding: largest of 1, the loss and |logit|."""
    tokens = torch.from_numpy(subject.tokens[window]).to(model.device)
    value = float(subject.reference[neuron])
    length, kept = len(tokens) - 1, slice(-subject.predicted, None)

    def replace(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        edited = args[0].clone()
        edited.view(length, -1)[slice(None) if position is None else position - subject.predicted, neuron] = value
        return (edited, *args[1:])

    def loss(*hooks: Any) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), hooked(*hooks):
            logits = model(input_ids=tokens[None, :-1], use_cache=False).logits[0, kept].cpu().double()
        found = torch.nn.functional.cross_entropy(logits, tokens[kept].cpu(), reduction="none")
        return found, logits.abs().amax(dim=1)

    before, largest = loss()
    after, _ = loss((projection, "before", replace))
    return (after - before).numpy(), torch.maximum(largest, before).clamp_min(1.0).numpy()
