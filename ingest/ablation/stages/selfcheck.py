"""The self-check of every ingest: stored effects against the definition, and against the hooked model.

(a) numeric: captured residual streams and activations through final norm and unembedding in float64, at the tolerance.
(b) structural: the model itself with a neuron's activation replaced by a hook, in its own dtype. In the last layer an
edit at one position reaches no other position's logits, so one forward pass of a window checks a neuron at each.

Errors are in units of their tolerance: at most 1 (docs/definitions.md, "Self-check").
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from rare_tokens.common.errors import UserError
from rare_tokens.common.parts import NEURONS_PER_ROW_GROUP, effect_path
from rare_tokens.ingest.ablation.numerics.rounding import RELATIVE_TOLERANCE
from rare_tokens.ingest.ablation.reference import reference_effects
from rare_tokens.ingest.ablation.stages.capture import Captured
from rare_tokens.ingest.ablation.stages.references import Reference, averaged_values
from rare_tokens.ingest.model.structure import Structure, hooked

NUMERIC_PAIRS = 256
STRUCTURAL_WINDOWS = 2
LEAST_POSITIONS = 32  # looked at structurally at least, where windows are short
_COPIED = 32  # positions whose logits are copied at a time
_CANDIDATES = 64  # neurons drawn at a position; the one with the largest edit is checked


@dataclass(frozen=True)
class Checked:
    """Largest errors, each in units of its tolerance, and how many pairs each half looked at."""

    numeric: float
    structural: float
    numeric_pairs: int
    structural_pairs: int


@dataclass(frozen=True)
class Subject:
    """What is checked: a run's parts with what they were computed from.

    `tokens` is windows × (window + 1), of which the last `predicted` are targets; `reference` is what replaces a
    neuron's activation.
    """

    folder: Path
    model: PreTrainedModel
    structure: Structure
    tokens: NDArray[np.int64]
    captured: Captured
    reference: Reference
    position_block: int
    tolerance: float
    seed: int
    predicted: int
    edit_scope: str = "position"

    def draws(self, positions: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        """What replaces the activations at P positions, P × N in each draw."""
        draws = self.reference.draws(self.captured.activations, positions)
        return [np.broadcast_to(one.numpy(), (len(positions), self.structure.neurons)) for one in draws]


def self_check(subject: Subject) -> Checked:
    """Compare seeded pairs of the stored effects with both references.

    Raises:
        UserError: a pair is beyond its tolerance: the architecture is not what it seems, or the numbers are wrong.
    """
    generator = np.random.default_rng([subject.seed, 0x5E1F])
    predicted = subject.predicted
    count = min(max(STRUCTURAL_WINDOWS, LEAST_POSITIONS // predicted), len(subject.tokens))
    windows = np.sort(generator.choice(len(subject.tokens), count, replace=False))
    positions = (windows[:, None] * predicted + np.arange(predicted)).reshape(-1)
    neurons = _telling_neurons(subject, positions, generator)
    stored = stored_effects(subject, positions, neurons)
    structural = _structural_error(
        subject, windows, neurons.reshape(count, predicted), stored.reshape(count, predicted)
    )
    some = generator.choice(len(positions), min(NUMERIC_PAIRS, len(positions)), replace=False)
    numeric = _numeric_error(subject, positions[some], neurons[some], stored[some])
    checked = Checked(numeric, structural, len(some), len(positions))
    require_passed(subject, checked)
    return checked


def require_passed(subject: Subject, checked: Checked) -> None:
    """Refuse a run in which a pair is beyond its tolerance.

    Raises:
        UserError: one is; the message says by how much.
    """
    name = type(subject.model).__name__
    if not checked.numeric <= 1:
        raise UserError(
            f"Self-check failed: an effect is off by {checked.numeric:.3g} times the tolerance. Nothing was published."
        )
    if not checked.structural <= 1:
        raise UserError(
            f"{name} is not supported: effects differ from the hooked model by {checked.structural:.3g} times what its "
            f"precision explains, so its MLP does not act as the ablation assumes. Nothing was published."
        )


def _telling_neurons(subject: Subject, positions: NDArray[np.int64], generator: np.random.Generator) -> NDArray[Any]:
    """A neuron per position: any at even positions; at odd ones the largest edit of a few, which can show errors."""
    total = subject.structure.neurons
    drawn = generator.integers(0, total, size=(len(positions), min(_CANDIDATES, total)))
    activations = np.take_along_axis(np.asarray(subject.captured.activations[positions]), drawn, axis=1)
    norms = subject.structure.w_out.float().norm(dim=1).cpu().numpy()
    replacing = np.take_along_axis(subject.draws(positions)[0], drawn, axis=1)
    edit = np.abs(replacing - activations) * norms[drawn]
    choice = np.where(np.arange(len(positions)) % 2, edit.argmax(1), 0)
    return drawn[np.arange(len(positions)), choice]


def stored_effects(subject: Subject, positions: NDArray[np.int64], neurons: NDArray[Any]) -> NDArray[np.float64]:
    """Δ of the pairs as stored in the parts; NaN where a pair is missing. Row groups are read one at a time."""
    found = np.full(len(positions), np.nan)
    blocks, groups = positions // subject.position_block, neurons // NEURONS_PER_ROW_GROUP
    wanted = _key(neurons, positions)
    for block in np.unique(blocks):
        with pq.ParquetFile(effect_path(subject.folder, int(block))) as part:
            for group in np.unique(groups[blocks == block]):
                pairs = np.flatnonzero((blocks == block) & (groups == group))
                table = part.read_row_group(int(group), columns=["neuron", "position_id", "delta_loss"])
                keys = _key(*(table[name].to_numpy() for name in ("neuron", "position_id")))  # ascending
                places = np.searchsorted(keys, wanted[pairs]).clip(max=len(keys) - 1)
                values = table["delta_loss"].to_numpy()[places].astype(np.float64)
                found[pairs] = np.where(keys[places] == wanted[pairs], values, np.nan)
    return found


def _key(neurons: NDArray[Any], positions: NDArray[Any]) -> NDArray[np.int64]:
    return neurons.astype(np.int64) << 32 | positions.astype(np.int64)


def _numeric_error(
    subject: Subject, positions: NDArray[np.int64], neurons: NDArray[Any], stored: NDArray[np.float64]
) -> float:
    targets = subject.tokens[:, -subject.predicted :].reshape(-1)[positions]
    device = subject.structure.w_out.device
    pairs = torch.stack([torch.arange(len(positions)), torch.from_numpy(neurons.astype(np.int64))], dim=1)
    truth = averaged_values(
        [
            reference_effects(
                subject.structure.head,
                subject.structure.w_out,
                torch.from_numpy(np.array(replacing)).to(device),
                torch.from_numpy(subject.captured.residual[positions]).to(device),
                torch.from_numpy(subject.captured.activations[positions]).to(device),
                torch.from_numpy(targets).to(device),
                pairs.to(device),
                post_norm=subject.structure.post_norm,
            )["loss"]
            for replacing in subject.draws(positions)
        ]
    ).numpy()
    return float((np.abs(stored - truth) / (subject.tolerance + RELATIVE_TOLERANCE * np.abs(truth))).max())


def captured_eps(dtype: torch.dtype) -> float:
    """Rounding of what effects are computed from: of the model's dtype, or of float32, in which it is captured."""
    return max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)


def _structural_error(
    subject: Subject, windows: NDArray[np.int64], neurons: NDArray[Any], stored: NDArray[np.float64]
) -> float:
    worst = 0.0
    for number, window in enumerate(windows):
        tokens = torch.from_numpy(subject.tokens[window]).to(subject.model.device)
        loss, largest = _losses(subject, tokens, None)
        positions = window * subject.predicted + np.arange(subject.predicted)
        chosen = torch.from_numpy(neurons[number].astype(np.int64))
        deltas = []
        for replacing in subject.draws(positions):
            values = torch.from_numpy(np.take_along_axis(replacing, neurons[number][:, None].astype(np.int64), 1)[:, 0])
            deltas.append(_losses(subject, tokens, (chosen, values))[0] - loss)
        delta = averaged_values(deltas).cpu().numpy()
        scale = torch.maximum(largest, loss).clamp_min(1.0).cpu().numpy()
        allowed = 32 * captured_eps(subject.model.dtype) * scale + 0.02 * np.abs(delta)
        worst = max(worst, float((np.abs(stored[number] - delta) / allowed).max()))
    return worst


def _losses(subject: Subject, tokens: Tensor, edit: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Loss and largest |logit| at each predicted position; an edit gives the neuron replaced at each, and by what."""

    def replace(_module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if edit is None:
            return None
        edited = args[0].clone()
        chosen, values = edit[0].to(edited.device), edit[1].to(edited.device, edited.dtype)
        each = torch.arange(len(chosen), device=edited.device)
        edited.view(-1, edited.shape[-1])[-len(chosen) :][each, chosen] = values
        return (edited, *args[1:])

    with hooked((subject.structure.out_projection, "before", replace)):
        return window_losses(subject.model, tokens, subject.predicted)


def window_losses(model: PreTrainedModel, tokens: Tensor, predicted: int) -> tuple[Tensor, Tensor]:
    """Loss (in float64) and largest |logit| at the last `predicted` positions of a window + 1 token ids."""
    with torch.inference_mode():
        logits = model(input_ids=tokens[None, :-1], use_cache=False).logits[0, -predicted:]
    targets = tokens[-predicted:]
    # A few positions at a time: in float64 a window's logits take gigabytes where the vocabulary is large
    copies = zip(logits.split(_COPIED), targets.split(_COPIED), strict=True)
    losses = [torch.nn.functional.cross_entropy(few.double(), y, reduction="none") for few, y in copies]
    return torch.cat(losses), logits.abs().amax(dim=1).double()
