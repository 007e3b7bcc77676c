"""The dense path: runs again what lies between an edit and the loss, batched over neurons or groups.

It serves what the ablation by moments cannot: layers below the last, a norm after the MLP, soft-capped logits. The
definition of an effect is the same; only u z + c m is replaced by the model itself, in one forward pass from the edit
on per neuron and window (`edit_scope` window: the neuron is replaced at all its positions) or per neuron and position
(`position`: at that one alone, earlier positions read from the attention's cache).

It computes one precision above the model's own, because a difference of two losses must be good to 1e-6 nats.
"""

import copy
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from rare_tokens.common.effects import ATTRIBUTION, EFFECTS, LOSS
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.formulas.effects import FORMULAS, of_edits
from rare_tokens.ingest.ablation.formulas.paths import Prediction
from rare_tokens.ingest.ablation.layer.unigram import Unigram
from rare_tokens.ingest.dense.attribution import Attribution
from rare_tokens.ingest.dense.replay import Replay, Unrounded
from rare_tokens.ingest.model.mlp import linear_weight
from rare_tokens.ingest.model.norms import NormForm
from rare_tokens.ingest.model.structure import PROBE_TOKENS, Structure, hooked, same_logits

WIDER = {torch.float32: torch.float64, torch.float64: torch.float64}  # half precisions: float32
MOST_EDITS = 512  # edits in a batch
MEMORY = 2 << 30  # bytes per batch
_PROBED = 2  # edits tried when a model is confirmed
_TRIED = 5  # positions whose attributions are timed


@dataclass(frozen=True)
class WindowEffects:
    """Effects of S edits at the T positions of one window, nats, and the unablated model's loss and entropy there."""

    values: dict[str, NDArray[np.float32]]  # by effect, each T × S
    loss: NDArray[np.float32]  # T
    entropy: NDArray[np.float32]  # T


@dataclass(frozen=True)
class _Base:
    """The unablated model at a window's predicted positions, from position `first` on."""

    first: int
    before: Prediction

    def at(self, place: int) -> "_Base":
        """The same at one of the positions."""
        return _Base(self.first + place, self.before.select(slice(place, place + 1)))

    def measure(self, logits: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Effects of S edits, each S × T, from their logits (S × T × V)."""
        after = Prediction(logits, self.before.targets)
        return {name: FORMULAS[name].dense(self.before, after) for name in names}


class DenseAblation:
    """Ablates neurons, or groups of them, by running the model again from the edit on."""

    def __init__(
        self,
        model: PreTrainedModel,
        structure: Structure,
        reference: Tensor,
        *,
        edit_scope: str = "window",
        effects: tuple[str, ...] = (LOSS,),
        unigram_counts: Tensor | None = None,
        memory: int = MEMORY,
    ) -> None:
        """Make the wider copy of the model, which computes.

        Args:
            model: the model as it was captured; left as it is.
            structure: the layer in it.
            reference: N, the value each activation is replaced by.
            edit_scope: `window`, or `position` (the same thing in the last layer, which other positions do not read).
            effects: names of those to compute (`common.effects`).
            unigram_counts: V, needed by some of them.
            memory: bytes that a batch may take.
        """
        modules = (structure.out_projection, structure.final_norm, model.get_output_embeddings())
        self.model, (edited, norm, unembedding) = widened(model, *modules)
        self.model.requires_grad_(False)
        self.device, self.dtype = self.model.device, self.model.dtype
        self.effects, self.memory = effects, memory
        is_last = structure.layer == structure.depth - 1
        self.at_once = edit_scope == "window" or is_last
        self._reference = reference.to(self.device, self.dtype)
        self._w = linear_weight(edited).T  # N × d
        self._unigram: Unigram | None = None
        if any(EFFECTS[name].needs_counts for name in effects):
            assert unigram_counts is not None
            self._unigram = Unigram.of(unigram_counts).to(self.device, self.dtype)
        self._frozen_effects = [name for name in of_edits(effects) if FORMULAS[name].frozen_scale]
        self._plain_effects = [name for name in of_edits(effects) if not FORMULAS[name].frozen_scale]
        self._norm = _FrozenNorm(norm, structure.head.norm)
        with Unrounded():
            self._replay = Replay(self.model, edited, _probe_tokens(self.model, structure))
        self._attribution: Attribution | None = None
        if ATTRIBUTION in effects:
            self._attribution = Attribution(self._replay, unembedding, self._w, is_last, self.at_once)
        self._vocabulary, self._heads = structure.vocabulary_size, attention_heads(model)

    def window(
        self, tokens: NDArray[np.int64], groups: Sequence[Sequence[int]] | None = None, predicted: int | None = None
    ) -> WindowEffects:
        """Effects at the positions of one window, for every neuron or for every group of neurons ablated at once.

        Args:
            tokens: window + 1 token ids; the last is a target only.
            groups: indices of the neurons of each group; these have no attribution.
            predicted: how many of the window's positions (T), counted from its end, to compute; None: all.

        Raises:
            UserError: an effect is NaN or infinite.
        """
        with Unrounded(), torch.inference_mode():
            base, shift = self._record(tokens, predicted)
            members = _members(len(self._w), groups, self.device)
            over = self._over_window if self.at_once else self._over_positions
            batches = [over(shift, few, base) for few in members.split(self._batch(len(shift)))]
            found = {name: torch.cat([batch[name] for batch in batches], dim=1) for name in of_edits(self.effects)}
            if self._attribution is not None and groups is None:
                found[ATTRIBUTION] = self._attribution.of(shift, base.before.targets)
        for name, values in found.items():
            if not bool(torch.isfinite(values).all()):
                raise UserError(f"An ablation's {name} is NaN or infinite. Try --dtype float32, or check the weights.")
        return WindowEffects(
            {name: values.float().cpu().numpy() for name, values in found.items()},
            base.before.loss.float().cpu().numpy(),
            base.before.entropy.float().cpu().numpy(),
        )

    def seconds_per_row(self, tokens: NDArray[np.int64]) -> float:
        """Seconds per position run again, measured on one batch over a window (window + 1 ids) or at its middle."""
        with Unrounded(), torch.inference_mode():
            base, shift = self._record(tokens, None)
            length = len(shift)
            members = _members(len(self._w), None, self.device)[: self._batch(length)]
            over, rows = self._over_window, len(members) * length
            if not self.at_once:
                middle = length // 2
                over, base, shift, rows = self._over_positions, base.at(middle), shift[: middle + 1], len(members)
            best = float("inf")
            for _ in range(2):
                start = time.perf_counter()
                over(shift, members, base)[LOSS].cpu()
                best = min(best, time.perf_counter() - start)
        return best / rows

    def attribution_seconds(self, tokens: NDArray[np.int64], predicted: int) -> float:
        """Seconds of the attributions at a window's last `predicted` positions, tried on a few; 0 if not asked for."""
        if self._attribution is None:
            return 0.0
        with Unrounded(), torch.inference_mode():
            tried = min(predicted, _TRIED)
            base, shift = self._record(tokens, tried)
            one = base.before.select(slice(-1, None))
            seconds = []
            for before in (one, one, base.before):  # the first pass also pays for what is made once
                start = time.perf_counter()
                self._attribution.of(shift, before.targets).cpu()
                seconds.append(time.perf_counter() - start)
        _, first, more = seconds
        return first + max(0.0, more - first) / max(1, tried - 1) * (predicted - 1)

    def _record(self, tokens: NDArray[np.int64], predicted: int | None) -> tuple[_Base, Tensor]:
        """Run a window unedited; return the model at its last `predicted` positions, and n̄ − n at all, window × N."""
        ids = torch.from_numpy(tokens).to(self.device)
        with self._norm.watching():
            logits = self._replay.record(ids[:-1], prefixes=not self.at_once)
        first = len(logits) - (predicted or len(logits))
        before = Prediction(logits[first:], ids[1 + first :], self._unigram)
        return _Base(first, before), self._reference - self._replay.activations

    def _over_window(self, shift: Tensor, members: Tensor, base: _Base) -> dict[str, Tensor]:
        edits = self._edits(shift, members).transpose(0, 1)
        found = base.measure(self._replay.logits(edits)[:, base.first :], self._plain_effects)
        if self._frozen_effects:
            with self._norm.frozen(None):
                found |= base.measure(self._replay.logits(edits)[:, base.first :], self._frozen_effects)
        return {name: values.T for name, values in found.items()}

    def _over_positions(self, shift: Tensor, members: Tensor, base: _Base) -> dict[str, Tensor]:
        found_at = []
        for place, position in enumerate(range(base.first, len(shift))):
            edits = self._edits(shift[position : position + 1], members)[0]
            here = base.at(place)
            found = here.measure(self._replay.logits_at(position, edits)[:, None], self._plain_effects)
            if self._frozen_effects:
                with self._norm.frozen(position):
                    logits = self._replay.logits_at(position, edits)
                found |= here.measure(logits[:, None], self._frozen_effects)
            found_at.append({name: values.T for name, values in found.items()})
        return {name: torch.cat([found[name] for found in found_at]) for name in found_at[0]}

    def _edits(self, shift: Tensor, members: Tensor) -> Tensor:
        """How S sets of neurons change the MLP's output at some positions: T × S × d."""
        padded = torch.nn.functional.pad(shift, (0, 1))[:, members]  # T × S × K; 0 where a set has fewer than K
        w = torch.nn.functional.pad(self._w, (0, 0, 0, 1))[members]  # S × K × d
        return torch.einsum("tsk,skd->tsd", padded, w)

    def _batch(self, length: int) -> int:
        """Edits per batch that the memory allows; mostly logits take it, of which a few copies are alive at once."""
        positions = length if self.at_once else 1
        neurons, width = self._w.shape
        floats = positions * (5 * self._vocabulary + 4 * neurons + 16 * width + 2 * self._heads * length)
        if not self.at_once:
            floats += 4 * length * width  # one layer's cached keys and values, as they grow
        return max(1, min(MOST_EDITS, self.memory // (floats * self.dtype.itemsize)))


def widened(model: PreTrainedModel, *modules: nn.Module) -> tuple[PreTrainedModel, list[nn.Module]]:
    """A copy of a model one precision above its own, and these modules in the copy.

    On the CPU where the device has no float64 (MPS).
    """
    dtype = WIDER.get(model.dtype, torch.float32)
    known: dict[int, object] = {}
    wide = copy.deepcopy(model, known)
    if dtype == torch.float64 and model.device.type == "mps":
        wide = wide.to("cpu")
    copies = [known[id(module)] for module in modules]
    assert all(isinstance(module, nn.Module) for module in copies)
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
        size = replay.projected_scale
        edits = size * torch.randn(_PROBED, len(tokens), width, generator=generator)
        edits = edits.to(model.device, model.dtype)
        with torch.inference_mode(), hooked((structure.out_projection, "after", edit)):
            wanted = model(input_ids=tokens[None], use_cache=False).logits[0]
        if at_once:
            changed, still = replay.logits(edits)[-1], replay.logits(torch.zeros_like(edits))[-1]
        else:
            changed, still = (replay.logits_at(last, some[:, last])[-1] for some in (edits, torch.zeros_like(edits)))
            wanted, unedited = wanted[last], unedited[last]
    except (RuntimeError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise _not_confirmed(model, structure, f"it cannot be run from there on ({_first_line(error)})") from error
    if not (same_logits(changed, wanted) and same_logits(still, unedited)):
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


def attention_heads(model: PreTrainedModel) -> int:
    """How many heads each layer's attention has; 1 where the configuration does not say."""
    config = model.config.get_text_config()
    return int(getattr(config, "num_attention_heads", None) or getattr(config, "n_head", None) or 1)


def _members(neurons: int, groups: Sequence[Sequence[int]] | None, device: torch.device) -> Tensor:
    """S × K neuron indices; groups of fewer than K are filled up with N."""
    if groups is None:
        return torch.arange(neurons, device=device)[:, None]
    most = max(len(group) for group in groups)
    return torch.tensor([[*group, *[neurons] * (most - len(group))] for group in groups], device=device)


class _FrozenNorm:
    """The final norm, whose scale can be frozen at that of the unablated model."""

    def __init__(self, module: nn.Module, form: NormForm) -> None:
        self.module, self.form = module, form
        self._scale = torch.empty(0)  # T × 1

    def watching(self) -> AbstractContextManager[None]:
        """Within this context, keep the scale of what passes through."""
        return hooked((self.module, "before", self._keep))

    def frozen(self, position: int | None) -> AbstractContextManager[None]:
        """Within this context, rescale the norm's output to the kept scale, of all positions or of one."""

        def rescale(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            kept = self._scale if position is None else self._scale[position]
            bias = getattr(self.module, "bias", None)
            bias = torch.zeros((), device=output.device) if bias is None else bias
            return (output - bias) * (self.form.scale(args[0]) / kept) + bias

        return hooked((self.module, "after", rescale))

    def _keep(self, _module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._scale = self.form.scale(args[0])[0]
