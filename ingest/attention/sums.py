"""Sums over the cells of one unit of windows: attention per head, activations and losses per edit."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rare_tokens.ingest.attention.cells import UnitCells
from rare_tokens.ingest.attention.edits import Edited, HeadEdits, Weights


class UnitSums:
    """Gathers sums over batches of windows, in float64 until `arrays` returns them."""

    def __init__(self, edits: HeadEdits, cells: UnitCells, neurons: int, length: int) -> None:
        """`length` is T, the number of positions that attention may look back over."""
        self.edits, self.cells = edits, cells
        K, heads = len(cells.ids), sum(layer.heads for layer in edits.layers)
        self._activation: dict[int, NDArray[np.float64]] = {0: np.zeros((K, neurons))}
        self._by_head = {name: np.zeros((heads, K)) for name in ("gini_sum", "entropy_sum", "first_sum")}
        self._weight = np.zeros((heads, K, length))
        self._losses: dict[int, list[NDArray[np.float32]]] = {edit.edit: [] for edit in edits.edits}
        self._largest = np.zeros(1 + max(edit.edit for edit in edits.edits))
        self._member = torch.empty(0)

    def add_clean(self, cell_of: NDArray[np.int64], activations: Tensor, weights: Mapping[int, Weights]) -> None:
        """Add a batch of windows unedited: their cells (n × P), activations (n × T × N) and attention weights."""
        member = cell_of[:, :, None] == self.cells.ids  # n × P × K
        self._member = torch.from_numpy(member).to(activations.device, torch.float32)
        self._activation[0] += self._summed(activations)
        first = 0
        for layer in self.edits.layers:
            at = slice(first, first + layer.heads)
            first += layer.heads
            summary = summarised(weights[layer.index], self.edits.predicted)
            for name in ("gini_sum", "entropy_sum", "first_sum"):
                self._by_head[name][at] += (
                    torch.einsum("nhp,npk->hk", summary[name], self._member).double().cpu().numpy()
                )
            back = torch.einsum("nhpr,npk->hkr", summary["weight_sum"], self._member)
            self._weight[at] += back.double().cpu().numpy()

    def add_edited(self, edited: Edited) -> None:
        """Add what some edits change in the same windows."""
        for place, edit in enumerate(edited.edits):
            if edited.change is not None:
                change = edited.change[place]
                total = self._activation.setdefault(edit.edit, np.zeros_like(self._activation[0]))
                total += self._summed(change)
                largest = float(change[:, -self.edits.predicted :].abs().max())
                self._largest[edit.edit] = max(self._largest[edit.edit], largest)
            if edited.delta_loss is not None:
                self._losses[edit.edit].append(edited.delta_loss[place].float().cpu().numpy())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, in the form in which it is written."""
        numbers = sorted(self._activation)
        losses = [np.concatenate(batches).reshape(-1) for batches in self._losses.values() if batches]
        assert len(losses) in (0, len(self._losses)), "the loss is measured for every edit or for none"
        return {
            "activation_edits": np.array(numbers),
            "activation_sum": np.stack([self._activation[number] for number in numbers]).astype(np.float32),
            "weight_sum": self._weight.astype(np.float32),
            "delta_loss": np.stack(losses) if losses else np.zeros((0, 0), dtype=np.float32),
            "largest": self._largest,
            **{name: values.astype(np.float32) for name, values in self._by_head.items()},
        }

    def _summed(self, values: Tensor) -> NDArray[np.float64]:
        kept = values[:, -self.edits.predicted :].float()
        return torch.einsum("npk,npi->ki", self._member, kept).double().cpu().numpy()


def summarised(seen: Weights, predicted: int) -> dict[str, Tensor]:
    """Summaries of the attention of each window's last P positions (docs/definitions.md, "Attention").

    Returns:
        `gini_sum`, `entropy_sum` (nats) and `first_sum` (weight on the window's first token), each n × H × P; and
        `weight_sum`, n × H × P × T: the weight on the token so many positions back.
    """
    weights = seen.weights[:, :, -predicted:].float()
    length = weights.shape[-1]
    shown = seen.visible.expand(seen.weights.shape)[:, :, -predicted:]
    queries = torch.arange(length - predicted, length, device=weights.device)[:, None]
    distances = queries - torch.arange(length, device=weights.device)
    back = weights.gather(-1, distances.clamp(min=0).expand(weights.shape))
    return {
        "gini_sum": gini(weights, shown.sum(-1)),
        "entropy_sum": torch.special.entr(weights).sum(-1),
        "first_sum": weights[..., 0],
        "weight_sum": back.masked_fill_(distances < 0, 0.0),
    }


def gini(weights: Tensor, count: Tensor) -> Tensor:
    """Gini coefficient of `count` of the weights along the last dimension; the others are 0. 0 where count is 1.

    G = Σ_i (2i − n − 1) w_(i) / (n Σ w), w ascending.
    """
    # numpy sorts float32 with vector instructions, several times as fast as torch
    ordered = torch.from_numpy(np.sort(weights.cpu().numpy(), axis=-1)).to(weights.device)
    length = weights.shape[-1]
    ranks = torch.arange(1, length + 1, device=weights.device, dtype=torch.float32)
    n = count.to(weights.dtype)
    total = ordered.sum(-1)
    return (2 * (ordered @ ranks) - (2 * length - n + 1) * total) / (n * total)
