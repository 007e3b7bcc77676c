"""The self-check of a run on the dense path, by whole forward passes in which a hook replaces a neuron.

(a) numeric: the wider copy that computed, at the tolerance. Nothing is played back, cached or batched.
(b) structural: the model itself, in its own dtype.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from rare_tokens.ingest.ablation.numerics.rounding import RELATIVE_TOLERANCE
from rare_tokens.ingest.ablation.stages.selfcheck import Checked, Subject, captured_eps, require_passed, stored_effects
from rare_tokens.ingest.dense.ablation import widened
from rare_tokens.ingest.dense.replay import Unrounded
from rare_tokens.ingest.model.structure import MANY, hooked

WINDOWS = 2
NEURONS = 6  # per window, each at all its positions; half of them those with the largest edits
POSITIONS = 24  # per window, one neuron each, where neurons are replaced at one position


@dataclass(frozen=True)
class Edit:
    """Neurons replaced at once in a window, at all its positions or at one of the predicted ones."""

    neurons: Sequence[int]
    values: NDArray[np.float32]  # what replaces each
    position: int | None  # among the predicted ones; None: at every position of the window
    predicted: int  # positions that are looked at, the window's last ones

    @property
    def where(self) -> NDArray[np.int64]:
        """The predicted positions at which the edit's effect is compared."""
        return np.arange(self.predicted) if self.position is None else np.array([self.position])


def dense_self_check(subject: Subject) -> Checked:
    """Compare seeded pairs of the stored effects with hooked forward passes.

    Raises:
        UserError: a pair is beyond its tolerance.
    """
    generator = np.random.default_rng([subject.seed, 0x5E1F])
    chosen = np.sort(generator.choice(len(subject.tokens), min(WINDOWS, len(subject.tokens)), replace=False))
    wide, (wide_projection,) = widened(subject.model, subject.structure.out_projection)
    numeric = structural = 0.0
    pairs = 0
    assert subject.reference.constant is not None
    replacing = subject.reference.constant.astype(np.float32)
    for window in chosen.tolist():
        for neuron, position in _edits(subject, window, generator):
            edit = Edit([neuron], replacing[[neuron]], position, subject.predicted)
            stored = _stored(subject, window, edit.where, neuron)
            tokens = subject.tokens[window]
            with Unrounded():
                delta, scale = hooked_effect(wide, wide_projection, tokens, edit)
            rounding = MANY * torch.finfo(wide.dtype).eps * scale
            allowed = subject.tolerance + RELATIVE_TOLERANCE * np.abs(delta) + rounding
            numeric = max(numeric, float((np.abs(stored - delta) / allowed).max()))
            own = structural_error(subject.model, subject.structure.out_projection, tokens, edit, stored)
            structural = max(structural, own)
            pairs += len(stored)
    checked = Checked(numeric, structural, pairs, pairs)
    require_passed(subject, checked)
    return checked


def structural_error(
    model: PreTrainedModel, projection: nn.Module, tokens: NDArray[np.int64], edit: Edit, stored: NDArray[np.float64]
) -> float:
    """Largest error of stored effects of an edit against the hooked model, in units of its tolerance (b)."""
    delta, scale = hooked_effect(model, projection, tokens, edit)
    allowed = 32 * captured_eps(model.dtype) * scale + 0.02 * np.abs(delta)
    return float((np.abs(stored - delta) / allowed).max())


def _edits(subject: Subject, window: int, generator: np.random.Generator) -> list[tuple[int, int | None]]:
    """(neuron, position among the predicted ones) to check in a window; position None: replaced at every one."""
    predicted = subject.predicted
    at = slice(window * predicted, (window + 1) * predicted)
    norms = subject.structure.w_out.float().norm(dim=1).cpu().numpy()
    positions = np.arange(at.start, at.stop)
    size = np.abs(subject.draws(positions)[0] - np.asarray(subject.captured.activations[at])) * norms  # T × N
    structure = subject.structure
    if subject.edit_scope == "window" or structure.layer == structure.depth - 1:
        drawn = generator.integers(0, structure.neurons, NEURONS // 2).tolist()
        strongest = size.max(0).argsort()[::-1][: NEURONS - NEURONS // 2].tolist()
        return [(neuron, None) for neuron in [*drawn, *strongest]]
    positions = generator.choice(predicted, min(POSITIONS, predicted), replace=False).tolist()
    return [
        (int(size[position].argmax()) if place % 2 else int(generator.integers(0, structure.neurons)), position)
        for place, position in enumerate(positions)
    ]


def _stored(subject: Subject, window: int, where: NDArray[np.int64], neuron: int) -> NDArray[np.float64]:
    position_ids = window * subject.predicted + where
    return stored_effects(subject, position_ids, np.full(len(where), neuron))


def hooked_effect(
    model: PreTrainedModel, projection: nn.Module, tokens: NDArray[np.int64], edit: Edit
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Δ where an edit is compared, and the scale of its rounding there: the largest of 1, the loss and |logit|."""
    ids = torch.from_numpy(tokens).to(model.device)
    length, kept = len(ids) - 1, slice(-edit.predicted, None)
    columns = torch.tensor(edit.neurons, device=model.device)
    values = torch.from_numpy(edit.values).to(model.device)

    def replace(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        edited = args[0].clone()
        flat = edited.view(length, -1)
        if edit.position is None:
            flat[:, columns] = values.to(edited.dtype)
        else:
            flat[edit.position - edit.predicted, columns] = values.to(edited.dtype)
        return (edited, *args[1:])

    def loss(*hooks: Any) -> tuple[Tensor, Tensor]:
        with torch.inference_mode(), hooked(*hooks):
            logits = model(input_ids=ids[None, :-1], use_cache=False).logits[0, kept].cpu().double()
        found = torch.nn.functional.cross_entropy(logits, ids[kept].cpu(), reduction="none")
        return found, logits.abs().amax(dim=1)

    before, largest = loss()
    after, _ = loss((projection, "before", replace))
    scale = torch.maximum(largest, before).clamp_min(1.0)
    return (after - before).numpy()[edit.where], scale.numpy()[edit.where]
