"""What silencing, levelling or swapping attention heads does to the analysed neurons and to the loss.

A head is edited at every position of its window: its slice z_h of the output projection's input becomes 0 (`zero`), its
mean over the sampled positions (`mean`), what even attention to all visible positions gives (`uniform`: the scores
times 0 within the softmax, as NC eq. 8 reads), or that of another context (`patch`). The attention's output changes by
(z'_h − z_h) W_h; from there the layers above run again. Whole layers are edited likewise, and as controls seeded shares
of a norm's channels and of a feed-forward's neurons, as large a part of these as one head is of the attention.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from rare_tokens.ingest.attention.heads import AttentionLayer, eager, visible
from rare_tokens.ingest.attention.rerun import Recorded, Rerun
from rare_tokens.ingest.model.mlp import linear_weight
from rare_tokens.ingest.model.structure import Structure

ABLATIONS = ("zero", "mean", "uniform")
HEAD, LAYER, NORM, FEED_FORWARD = "head", "layer", "norm", "feed_forward"
PATCH_HEAD, PATCH_LAYER = "patch_head", "patch_layer"
PATCHES = (PATCH_HEAD, PATCH_LAYER)
CONTROL_DRAWS = 2  # per control and layer
POSITIONS_PER_BATCH = 1_024  # run again at a time: more do not fit a processor's cache and take half as long again
MEMORY = 1 << 30  # bytes of a batch's logits and their copies


@dataclass(frozen=True)
class Edit:
    """One edit of a layer.

    Attributes:
        edit: its number, from 1; 0 means unedited.
        kind: `head`, `layer`, `norm`, `feed_forward`, `patch_head` or `patch_layer`.
        layer: index of the layer.
        head: index of the head, for `head` and `patch_head`.
        draw: for a control, which of its random shares, from 1.
        feeds: whether it can change the analysed activations at all.
    """

    edit: int
    kind: str
    layer: int
    head: int | None
    draw: int | None
    feeds: bool


@dataclass(frozen=True)
class Edited:
    """What E edits change in n windows: activations E × n × T × N, losses E × n × P; None: not computed."""

    edits: Sequence[Edit]
    change: Tensor | None
    delta_loss: Tensor | None


@dataclass(frozen=True)
class Weights:
    """Attention weights of one layer, n × H × T × T, and which of them the mask leaves visible."""

    weights: Tensor
    visible: Tensor


class HeadEdits:
    """Every edit of some layers of a model, on batches of windows."""

    def __init__(
        self,
        model: PreTrainedModel,
        structure: Structure,
        layers: Sequence[AttentionLayer],
        *,
        ablation: str = "zero",
        predicted: int,
        patches: bool = True,
        seed: int = 0,
    ) -> None:
        """Number the edits.

        Args:
            model: with any attention; it is switched to eager attention while its weights are read.
            structure: the analysed neurons' layer in it.
            layers: whose heads are edited.
            ablation: `zero`, `mean` (needs `find_means`) or `uniform`; with `uniform`, controls are set to `zero`.
            predicted: P, how many of a window's last positions have their loss measured.
            patches: whether there are other contexts to patch from.
            seed: for the controls' shares.
        """
        self.layers, self.ablation, self.predicted, self.seed = tuple(layers), ablation, predicted, seed
        self.rerun = Rerun(model, structure, layers)
        self.vocabulary = structure.vocabulary_size
        self.edits = tuple(_numbered(self.layers, patches))
        self._means: dict[nn.Module, Tensor] = {}
        self._clean: Recorded | None = None
        self._replacements: dict[int, Tensor] = {}  # by layer, for the recorded windows
        self._clean_loss = torch.empty(0)
        self._tokens = torch.empty(0)

    def find_means(self, batches: Sequence[NDArray[np.int64]]) -> None:
        """Average heads, feed-forward neurons and norms' channels over the predicted positions of all windows."""
        totals: dict[nn.Module, Tensor] = {}
        count = 0
        for tokens in batches:
            found = self.rerun.record(self._ids(tokens)[:, :-1], with_logits=False)
            for key, values in self._averaged(found).items():
                total = values[:, -self.predicted :].double().sum((0, 1))
                totals[key] = totals.get(key, 0) + total
            count += len(tokens) * self.predicted
        self._means = {key: total / count for key, total in totals.items()}

    @property
    def means(self) -> tuple[NDArray[np.float64], ...]:
        """What `find_means` found, layer by layer, for `use_means` on another machine; empty before it."""
        return tuple(self._means[module].cpu().numpy() for module in self._averaged_modules) if self._means else ()

    def use_means(self, means: Sequence[NDArray[np.float64]]) -> None:
        """Take the means that another machine found."""
        device = self.rerun.model.device
        self._means = {
            module: torch.from_numpy(np.array(mean)).to(device)
            for module, mean in zip(self._averaged_modules if means else (), means, strict=True)
        }

    @property
    def _averaged_modules(self) -> list[nn.Module]:
        return [module for layer in self.layers for module in (layer.module, layer.feed_forward, layer.norm)]

    def record(self, tokens: NDArray[np.int64], *, loss: bool) -> tuple[Tensor, dict[int, Weights]]:
        """Run n windows of T + 1 tokens unedited; return the analysed activations, n × T × N, and layers' weights."""
        ids = self._tokens = self._ids(tokens)
        self._clean = self.rerun.record(ids[:, :-1], with_logits=loss)
        self._replacements.clear()
        seen: dict[int, Weights] = {}
        with eager(self.rerun.model):
            for layer in self.layers:

                def see(scores: Tensor, weights: Tensor, index: int = layer.index) -> None:
                    seen[index] = Weights(weights.detach(), visible(scores))

                self.rerun.heads_outputs(layer.module, see)
        if self._clean.logits is not None:
            self._clean_loss = self.losses(self._clean.logits, ids)
        return self._clean.activations, seen

    def heads_of(self, tokens: NDArray[np.int64]) -> dict[int, Tensor]:
        """The heads' outputs in some windows, by layer, n × T × (H · d_head): what patches come from."""
        found = self.rerun.record(self._ids(tokens)[:, :-1], with_logits=False)
        return {layer.index: found.inputs[layer.module] for layer in self.layers}

    def edited(self, *, loss: bool, patched: Mapping[int, Tensor] | None = None) -> Iterator[Edited]:
        """What each edit changes in the recorded windows, some edits at a time.

        Args:
            loss: measure the loss too; it must have been recorded.
            patched: the heads' outputs in the other contexts; None: leave the patches out.
        """
        for layer in self.layers:
            for kind in dict.fromkeys(item.kind for item in self.edits if item.layer == layer.index):
                chosen = [item for item in self.edits if item.layer == layer.index and item.kind == kind]
                if (chosen[0].feeds or loss) and (patched is not None or kind not in PATCHES):
                    yield from self._edited(layer, chosen, loss=loss, patched=patched)

    def _edited(
        self, layer: AttentionLayer, edits: Sequence[Edit], *, loss: bool, patched: Mapping[int, Tensor] | None
    ) -> Iterator[Edited]:
        """As `edited`, for edits of one kind."""
        assert self._clean is not None
        before, feeds = self._clean.activations, edits[0].feeds
        point, outputs, shift = self._outputs(layer, edits[0].kind, patched)
        at_a_time = self._at_a_time(loss)
        for first in range(0, len(edits), at_a_time):
            some = slice(first, first + at_a_time)
            found = self.rerun.rerun(
                point, outputs[some], with_logits=loss, with_activations=feeds,
                shift=None if shift is None else shift[some], first=first,
            )  # fmt: skip
            change = delta = None
            if feeds:
                change = found.activations.reshape(-1, *before.shape).float() - before.float()
            if found.logits is not None:
                delta = self.losses(found.logits, self._tokens).reshape(-1, *self._clean_loss.shape) - self._clean_loss
            yield Edited(edits[some], change, delta)

    def _outputs(
        self, layer: AttentionLayer, kind: str, patched: Mapping[int, Tensor] | None
    ) -> tuple[nn.Module, Tensor, Tensor | None]:
        """The module that a kind of edit changes, its edited outputs (E × n × T × d), and for heads how much their own
        outputs change (E × n × T × d_head).
        """
        assert self._clean is not None
        clean, z = self._clean, self._clean.inputs[layer.module]
        if kind == NORM:
            return layer.norm, self._of_norm(layer, clean.outputs[layer.norm].reshape(*z.shape[:2], -1)), None
        if kind == FEED_FORWARD:
            projected = clean.outputs[layer.feed_forward].reshape(*z.shape[:2], -1)
            return layer.feed_forward, self._of_feed_forward(layer, projected, clean.inputs[layer.feed_forward]), None
        instead = patched[layer.index] if patched is not None and kind in PATCHES else self.replacement(layer)
        output = clean.outputs[layer.module].reshape(*z.shape[:2], -1)
        if kind in (LAYER, PATCH_LAYER) or layer.heads == 1:
            # Not by a difference, whose rounding a norm after it would blow up where it should be 0
            return layer.module, layer.out_projection(instead.contiguous()).reshape(1, *output.shape), None
        shift = (instead - z).reshape(*z.shape[:2], layer.heads, -1).permute(2, 0, 1, 3)
        change = torch.bmm(shift.flatten(1, 2), layer.output_weight).reshape(layer.heads, *output.shape)
        return layer.module, change.add_(output), shift

    def replacement(self, layer: AttentionLayer) -> Tensor:
        """What an ablation puts in place of the heads' outputs in the recorded windows: n × T × (H · d_head)."""
        assert self._clean is not None
        if layer.index not in self._replacements:
            self._replacements[layer.index] = self._replacement(layer, self._clean.inputs[layer.module])
        return self._replacements[layer.index]

    def _replacement(self, layer: AttentionLayer, z: Tensor) -> Tensor:
        if self.ablation == "mean":
            return self._means[layer.module].to(z).expand_as(z)
        if self.ablation == "uniform":
            with eager(self.rerun.model):
                return self.rerun.heads_outputs(layer.module, levelled)
        return torch.zeros_like(z)

    def _of_norm(self, layer: AttentionLayer, channels: Tensor) -> Tensor:
        mean = self._means.get(layer.norm)
        outputs = []
        for share in self.shares(layer, NORM, channels.shape[-1]):
            changed = channels.clone()
            changed[..., share] = 0 if mean is None else mean.to(channels)[share]
            outputs.append(changed)
        return torch.stack(outputs)

    def _of_feed_forward(self, layer: AttentionLayer, projected: Tensor, activations: Tensor) -> Tensor:
        w_out, mean = linear_weight(layer.feed_forward).T, self._means.get(layer.feed_forward)
        outputs = []
        for share in self.shares(layer, FEED_FORWARD, activations.shape[-1]):
            instead = 0 if mean is None else mean.to(activations)[share]
            outputs.append(projected + (instead - activations[..., share]) @ w_out[share])
        return torch.stack(outputs)

    def shares(self, layer: AttentionLayer, kind: str, size: int) -> list[Tensor]:
        """The seeded random shares, 1/H of `size` each, that a control edits."""
        generator = np.random.default_rng([self.seed, layer.index, kind == NORM])
        count = max(1, round(size / layer.heads))
        drawn = [np.sort(generator.choice(size, count, replace=False)) for _ in range(CONTROL_DRAWS)]
        return [torch.from_numpy(share).to(layer.output_weight.device) for share in drawn]

    def _averaged(self, found: Recorded) -> dict[nn.Module, Tensor]:
        values: dict[nn.Module, Tensor] = {}
        for layer in self.layers:
            z = values[layer.module] = found.inputs[layer.module]
            values[layer.feed_forward] = found.inputs[layer.feed_forward]
            values[layer.norm] = found.outputs[layer.norm].reshape(*z.shape[:2], -1)
        return values

    @staticmethod
    def _point(layer: AttentionLayer, kind: str) -> nn.Module:
        return {NORM: layer.norm, FEED_FORWARD: layer.feed_forward}.get(kind, layer.module)

    def _at_a_time(self, loss: bool) -> int:
        """Edits per batch."""
        assert self._clean is not None
        positions = self._clean.activations.shape[0] * self._clean.activations.shape[1]
        most = max(1, POSITIONS_PER_BATCH // positions)
        return min(most, max(1, MEMORY // (positions * self.vocabulary * 12))) if loss else most

    def losses(self, logits: Tensor, ids: Tensor) -> Tensor:
        """Cross-entropy (nats) at the predicted positions of n × (T + 1) ids: E · n × P, edit by edit."""
        asked = logits[:, -self.predicted :].float()
        targets = ids[:, -self.predicted :].repeat(len(asked) // len(ids), 1)
        # Flattened: several times as fast as with the vocabulary in the middle
        values = nn.functional.cross_entropy(asked.flatten(0, 1), targets.flatten(), reduction="none")
        return values.reshape(targets.shape)

    def _ids(self, tokens: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(tokens)).to(self.rerun.model.device)


def levelled(scores: Tensor, weights: Tensor) -> Tensor:
    """Even weights over what each query may look at: the scores times 0 within the softmax (NC eq. 8)."""
    shown = visible(scores)
    return (shown / shown.sum(-1, keepdim=True)).to(weights.dtype)


def _numbered(layers: Sequence[AttentionLayer], patches: bool) -> Iterator[Edit]:
    number = 1
    for layer in layers:
        kinds: list[tuple[str, int | None, int | None, bool]] = []
        for of_head, of_layer in ((HEAD, LAYER), PATCHES)[: 2 if patches else 1]:
            kinds += [(of_head, head, None, layer.feeds) for head in range(layer.heads)]
            kinds += [(of_layer, None, None, layer.feeds)]
        for kind, feeds in ((NORM, layer.norm_feeds), (FEED_FORWARD, layer.feed_forward_feeds)):
            kinds += [(kind, None, draw, feeds) for draw in range(1, CONTROL_DRAWS + 1)]
        for kind, head, draw, feeds in kinds:
            yield Edit(number, kind, layer.index, head, draw, feeds)
            number += 1
