"""The dense path (SPEC 2.1): what lies between an edit and the loss is run again, batched over neurons or groups.

It serves what the ablation by moments cannot: layers below the last, a norm after the MLP, soft-capped logits. The
definition of an effect is the same; only U z + c m is replaced by the model itself, one forward pass from the edit on
for each neuron and window (`edit_scope` window: the neuron is replaced at every position of it) or for each neuron and
position (`position`: at that one alone, earlier positions read from the attention's cache).

It computes one precision above the model's own, because a difference of two losses must be good to 1e-6 nats.
"""

import copy
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.dense.replay import Replay, Unrounded
from rare_tokens.ingest.model.structure import PROBE_TOKENS, Structure, hooked, linear_weight, same_logits

WIDER = {torch.float32: torch.float64, torch.float64: torch.float64}  # half precisions: float32
MOST_ROWS = 512  # edits in a batch
MEMORY = 2 << 30  # bytes of a batch
_PROBED = 2  # edits tried when a model is confirmed


@dataclass(frozen=True)
class WindowEffects:
    """Effects of S edits at the T positions of one window, nats, and the unablated model's loss and entropy there."""

    effects: dict[str, NDArray[np.float32]]  # by name, each T × S
    loss: NDArray[np.float32]  # T
    entropy: NDArray[np.float32]  # T


class DenseAblation:
    """Ablates neurons, or groups of them, by running the model again from the edit on."""

    def __init__(
        self,
        model: PreTrainedModel,
        structure: Structure,
        reference: Tensor,
        *,
        edit_scope: str = "window",
        effects: tuple[str, ...] = ("loss",),
        unigram_counts: Tensor | None = None,
        memory: int = MEMORY,
    ) -> None:
        """Make the wider copy of the model that computes.

        Args:
            model: the model as it was captured; left as it is.
            structure: the layer in it.
            reference: N, the value each activation is replaced by.
            edit_scope: `window`, or `position` (the same thing in the last layer, which other positions do not read).
            effects: of `loss`, `direct`, `entropy`, `kl`, `frequency`.
            unigram_counts: V, needed by `kl` and `frequency`.
            memory: bytes that a batch may take.
        """
        self.model, (edited, norm) = widened(model, structure.out_projection, structure.final_norm)
        self.device, self.dtype = self.model.device, self.model.dtype
        self.effects, self.memory = effects, memory
        self.at_once = edit_scope == "window" or structure.layer == structure.depth - 1
        self._reference = reference.to(self.device, self.dtype)
        self._rows = linear_weight(edited).T  # N × d
        self._axes = None
        if {"kl", "frequency"} & set(effects):
            assert unigram_counts is not None
            self._axes = _Axes.of(unigram_counts, self.device, self.dtype)
        self._frozen = _FrozenNorm(norm, structure.head.norm, structure.head.eps)
        with Unrounded():
            self._replay = Replay(self.model, edited, _probe_tokens(self.model, structure))
        self._vocabulary, self._heads = structure.vocabulary_size, _heads(model)

    def window(
        self, tokens: NDArray[np.int64], groups: Sequence[Sequence[int]] | None = None, predicted: int | None = None
    ) -> WindowEffects:
        """Effects at the positions of one window: of every neuron, or of every group of neurons ablated at once.

        Args:
            tokens: window + 1 token ids; the last is a target only.
            groups: indices of the neurons of each group.
            predicted: how many of the window's positions, its last ones, are asked for (T); None: all of them.

        Raises:
            UserError: an effect is NaN or infinite.
        """
        ids = torch.from_numpy(tokens).to(self.device)
        with Unrounded(), torch.inference_mode():
            with self._frozen.watching():
                logits = self._replay.record(ids[:-1], prefixes=not self.at_once)
            base = _Base.of(logits, ids[1:], self._axes, predicted or len(logits))
            members = _members(len(self._rows), groups, self.device)
            shift = self._reference - self._replay.activations  # window × N: n̄ − n
            one = self._over_window if self.at_once else self._over_positions
            parts = [one(shift, few, base) for few in members.split(self._batch(len(ids) - 1))]
        found = {name: torch.cat([part[name] for part in parts], dim=1) for name in self.effects}
        for name, values in found.items():
            if not bool(torch.isfinite(values).all()):
                raise UserError(f"An ablation's {name} is NaN or infinite. Try --dtype float32, or check the weights.")
        return WindowEffects(
            {name: values.float().cpu().numpy() for name, values in found.items()},
            base.loss.float().cpu().numpy(),
            base.entropy.float().cpu().numpy(),
        )

    def seconds_per_row(self, tokens: NDArray[np.int64]) -> float:
        """Time that a position run again takes, measured on one batch at a window (window + 1 ids) or its middle."""
        ids = torch.from_numpy(tokens).to(self.device)
        with Unrounded(), torch.inference_mode():
            with self._frozen.watching():
                logits = self._replay.record(ids[:-1], prefixes=not self.at_once)
            base = _Base.of(logits, ids[1:], self._axes, len(logits))
            shift = self._reference - self._replay.activations
            members = _members(len(self._rows), None, self.device)[: self._batch(len(logits))]
            one, rows = self._over_window, len(members) * len(logits)
            if not self.at_once:
                middle = len(logits) // 2
                one, base, shift, rows = self._over_positions, base.at(middle), shift[: middle + 1], len(members)
            best = float("inf")
            for _ in range(2):
                start = time.perf_counter()
                one(shift, members, base)["loss"].cpu()
                best = min(best, time.perf_counter() - start)
        return best / rows

    def _over_window(self, shift: Tensor, members: Tensor, base: "_Base") -> dict[str, Tensor]:
        edits = self._edits(shift, members).transpose(0, 1)
        found = base.effects(self._replay.logits(edits)[:, base.first :], self.effects)
        if "direct" in self.effects:
            with self._frozen.frozen(None):
                found["direct"] = base.effects(self._replay.logits(edits)[:, base.first :], ("loss",))["loss"]
        return {name: values.T for name, values in found.items()}

    def _over_positions(self, shift: Tensor, members: Tensor, base: "_Base") -> dict[str, Tensor]:
        parts = []
        for place, position in enumerate(range(base.first, len(shift))):
            edits = self._edits(shift[position : position + 1], members)[0]
            here = base.at(place)
            found = here.effects(self._replay.logits_at(position, edits)[:, None], self.effects)
            if "direct" in self.effects:
                with self._frozen.frozen(position):
                    logits = self._replay.logits_at(position, edits)
                found["direct"] = here.effects(logits[:, None], ("loss",))["loss"]
            parts.append({name: values.T for name, values in found.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _edits(self, shift: Tensor, members: Tensor) -> Tensor:
        """Change of the MLP's output at some positions by S sets of neurons: T × S × d."""
        padded = torch.nn.functional.pad(shift, (0, 1))[:, members]  # T × S × K; 0 where a set has fewer than K
        rows = torch.nn.functional.pad(self._rows, (0, 0, 0, 1))[members]  # S × K × d
        return torch.einsum("tsk,skd->tsd", padded, rows)

    def _batch(self, length: int) -> int:
        """Edits that the memory allows in a batch: mostly logits, of which a few copies are alive at once."""
        positions = length if self.at_once else 1
        neurons, width = self._rows.shape
        values = positions * (5 * self._vocabulary + 4 * neurons + 16 * width + 2 * self._heads * length)
        if not self.at_once:
            values += 4 * length * width  # the cache's keys and values of a block, as they grow
        return max(1, min(MOST_ROWS, self.memory // (values * self.dtype.itemsize)))


def widened(model: PreTrainedModel, *pieces: nn.Module) -> tuple[PreTrainedModel, list[nn.Module]]:
    """A copy of a model one precision above its own, and the pieces in the copy.

    On the CPU where the device has no float64 (MPS).
    """
    dtype = WIDER.get(model.dtype, torch.float32)
    known: dict[int, object] = {}
    wide = copy.deepcopy(model, known)
    if dtype == torch.float64 and model.device.type == "mps":
        wide = wide.to("cpu")
    copies = [known[id(piece)] for piece in pieces]
    assert all(isinstance(piece, nn.Module) for piece in copies)
    return wide.to(dtype), copies  # type: ignore[return-value]


def confirm_replay(model: PreTrainedModel, structure: Structure, edit_scope: str) -> None:
    """Compare the dense path with whole forward passes over a few tokens: unedited, and edited by a hook.

    Raises:
        UserError: they differ, or the model cannot be run from its middle; the message names the architecture.
    """
    tokens = _probe_tokens(model, structure)[0]
    width = structure.w_out.shape[1]
    generator = torch.Generator().manual_seed(0)
    last = len(tokens) - 1
    at_once = edit_scope == "window" or structure.layer == structure.depth - 1

    def edit(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        moved = output.clone().view(len(tokens), width)
        where = slice(None) if at_once else slice(last, None)
        moved[where] += edits[-1, where]
        return moved.view(output.shape)

    try:
        replay = Replay(model, structure.out_projection, tokens[None])
        unedited = replay.record(tokens, prefixes=not at_once)
        scale = replay.projected_scale
        edits = scale * torch.randn(_PROBED, len(tokens), width, generator=generator)
        edits = edits.to(model.device, model.dtype)
        with torch.inference_mode(), hooked((structure.out_projection, "after", edit)):
            wanted = model(input_ids=tokens[None], use_cache=False).logits[0]
        if at_once:
            edited, still = replay.logits(edits)[-1], replay.logits(torch.zeros_like(edits))[-1]
        else:
            edited, still = (replay.logits_at(last, values[:, last])[-1] for values in (edits, torch.zeros_like(edits)))
            wanted, unedited = wanted[last], unedited[last]
    except (RuntimeError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise _not_confirmed(model, structure, f"it cannot be run from there on ({_first_line(error)})") from error
    if not (same_logits(edited, wanted) and same_logits(still, unedited)):
        raise _not_confirmed(model, structure, "run from there on, it gives other logits than a whole forward pass")


def _not_confirmed(model: nn.Module, structure: Structure, why: str) -> UserError:
    name, reasons = type(model).__name__, "; ".join(structure.between)
    return UserError(
        f"{name} needs the dense path ({reasons}), but from the MLP of layer {structure.layer} {why}. "
        "Use its last layer, --edit-scope window, or another model."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _probe_tokens(model: PreTrainedModel, structure: Structure) -> Tensor:
    """1 × 8 token ids."""
    numbers = torch.arange(2, PROBE_TOKENS + 2, device=model.device)
    return (numbers * 104_729 % structure.vocabulary_size)[None]


def _heads(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    return int(getattr(config, "num_attention_heads", None) or getattr(config, "n_head", None) or 1)


def _members(neurons: int, groups: Sequence[Sequence[int]] | None, device: torch.device) -> Tensor:
    """S × K neuron indices, filled up with N where a group has fewer than K."""
    if groups is None:
        return torch.arange(neurons, device=device)[:, None]
    most = max(len(group) for group in groups)
    return torch.tensor([[*group, *[neurons] * (most - len(group))] for group in groups], device=device)


@dataclass(frozen=True)
class _Axes:
    """Of the add-one smoothed unigram distribution: itself, and the unit direction of its centred logarithm (V)."""

    unigram: Tensor
    direction: Tensor

    @staticmethod
    def of(counts: Tensor, device: torch.device, dtype: torch.dtype) -> "_Axes":
        smoothed = counts.cpu().double() + 1
        unigram = smoothed / smoothed.sum()
        direction = unigram.log() - unigram.log().mean()
        norm = float(direction.norm())
        direction = direction / norm if norm > 0 else direction
        return _Axes(unigram.to(device, dtype), direction.to(device, dtype))


@dataclass(frozen=True)
class _Base:
    """The unablated model at T positions of a window, and what edits of it change."""

    first: int  # of the window's positions
    logits: Tensor  # T × V
    targets: Tensor  # T
    axes: _Axes | None
    loss: Tensor
    entropy: Tensor

    @staticmethod
    def of(logits: Tensor, targets: Tensor, axes: _Axes | None, predicted: int) -> "_Base":
        first = len(logits) - predicted
        logits, targets = logits[first:], targets[first:]
        return _Base(first, logits, targets, axes, _loss(logits, targets), _entropy(logits))

    def at(self, position: int) -> "_Base":
        """The same at one position."""
        here = slice(position, position + 1)
        return _Base(
            self.first + position, self.logits[here], self.targets[here], self.axes, self.loss[here], self.entropy[here]
        )

    def effects(self, edited: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Effects of S edits, each S × T, from their logits (S × T × V); `direct` needs logits of its own."""
        found = {}
        if "loss" in names:
            found["loss"] = _loss(edited, self.targets) - self.loss
        if "entropy" in names:
            found["entropy"] = _entropy(edited) - self.entropy
        if self.axes is not None and "kl" in names:
            change = edited.logsumexp(-1) - self.logits.logsumexp(-1)
            found["kl"] = change - (edited @ self.axes.unigram - self.logits @ self.axes.unigram)
        if self.axes is not None and "frequency" in names:
            along = edited @ self.axes.direction - self.logits @ self.axes.direction
            found["frequency"] = _loss(edited - along[..., None] * self.axes.direction, self.targets) - self.loss
        return found


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, … × T, from … × T × V logits."""
    index = targets.expand(logits.shape[:-1])[..., None]
    return logits.logsumexp(-1) - logits.gather(-1, index)[..., 0]


def _entropy(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


class _FrozenNorm:
    """The final norm, which can be made to keep the scale that it had in the unablated model (effect `direct`)."""

    def __init__(self, module: nn.Module, kind: str, eps: float) -> None:
        self.module, self.kind, self.eps = module, kind, eps
        self._scale = torch.empty(0)  # T × 1

    def watching(self) -> AbstractContextManager[None]:
        """While it lasts, the scale of what passes through is kept."""
        return hooked((self.module, "before", self._keep))

    def frozen(self, position: int | None) -> AbstractContextManager[None]:
        """While it lasts, the norm's output is rescaled to the kept scale, of all positions or of one."""

        def rescale(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            kept = self._scale if position is None else self._scale[position]
            shift = getattr(self.module, "bias", None)
            shift = torch.zeros((), device=output.device) if shift is None else shift
            return (output - shift) * (self._of(args[0]) / kept) + shift

        return hooked((self.module, "after", rescale))

    def _keep(self, _module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._scale = self._of(args[0])[0]

    def _of(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True) if self.kind == "layer" else x
        return (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()
