"""What each neuron's weights show: norms, null space, logit lens, tie to token frequency.

The measures are those of Stolfo et al. (2024), on the unembedding with the final norm's gain folded in
(docs/definitions.md, "Entropy and frequency neurons").
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from rare_tokens.common.parts import schema
from rare_tokens.ingest.ablation.block_sizes import piece_size
from rare_tokens.ingest.ablation.layer.unigram import log_unigram
from rare_tokens.ingest.ablation.stages.references import ReferenceValues
from rare_tokens.ingest.model.head import ROWS, Head
from rare_tokens.ingest.model.structure import Structure

TOKENS_PER_DIRECTION = 10
# Stolfo et al. call the last 12 of GPT-2 small's 768 singular directions its effective null space.
NULL_SPACE_DIVISOR = 64


@dataclass(frozen=True)
class NeuronTables:
    """The parts `dim_neuron`, `neuron_weight` and `neuron_token` of a run."""

    neuron: pa.Table
    weight: pa.Table
    token: pa.Table


def neuron_tables(structure: Structure, mean: NDArray[np.float64], counts: NDArray[np.int64]) -> NeuronTables:
    """Measure every neuron of the layer, in one pass over the unembedding, never copying it whole.

    Args:
        structure: the layer, with w_out N × d and the head.
        mean: n-bar, N.
        counts: V, how often each token id occurs in the run's frequency source; 0 for padding rows.
    """
    head, w_out = structure.head, structure.w_out.float()
    written = structure.written_rows.float()
    if w_out.device.type == "mps":  # which has no float64
        w_out, written = w_out.cpu(), written.cpu()
    centred = head.norm.centre(written)
    log_frequency = log_unigram(torch.from_numpy(counts).to(w_out.device))
    lens = _LogitLens(centred, log_frequency)
    gram = torch.zeros(w_out.shape[1], w_out.shape[1], dtype=torch.float64, device=w_out.device)
    for start, rows in _folded_rows(head, piece_size(len(log_frequency), *reversed(w_out.shape)), w_out.device):
        lens.add(start, rows)
        gram += _square(rows)
    neurons = np.arange(len(w_out), dtype=np.uint16)
    correlation = lens.correlation().cpu().numpy()
    neuron = {
        "neuron": neurons,
        "mean_activation": mean,
        "w_out_norm": w_out.norm(dim=1).cpu().numpy(),
        "null_space_share": null_space_share(head, gram, centred).cpu().numpy(),
        "logit_variance": lens.cosine_variance().cpu().numpy(),
        "frequency_correlation": pa.array(correlation, pa.float32(), from_pandas=True),
    }
    weight = {
        "neuron": neurons,
        "w_out": _lists(structure.w_out),
        "w_in": _lists(structure.w_in),
        "w_up": pa.nulls(len(neurons), pa.list_(pa.float32())) if structure.w_up is None else _lists(structure.w_up),
    }
    return NeuronTables(pa.table(neuron), pa.table(weight, schema("neuron_weight")), lens.extreme_tokens())


def with_reference(neuron: pa.Table, values: ReferenceValues) -> pa.Table:
    """The part `dim_neuron` of a run with these reference values."""
    form, count = schema("dim_neuron"), len(neuron)
    columns = {name: neuron[name] for name in neuron.column_names}
    for name, found in (
        ("reference_activation", values.reference.constant),
        ("reference_error", values.error),
        ("reference_is_outside", values.is_outside),
    ):
        columns[name] = pa.nulls(count) if found is None else pa.array(found, from_pandas=True)
    return pa.table({name: columns[name].cast(form.field(name).type) for name in form.names}, form)


def null_space_share(head: Head, gram: Tensor, w: Tensor) -> Tensor:
    """‖V0ᵀ w‖ / ‖w‖ per neuron (N): V0 spans the d / 64 least singular directions of the folded unembedding.

    `gram` is UᵀU, d × d in float64, of U folded and centred over the vocabulary; it is overwritten. `w`, N × d, is
    centred over d for a LayerNorm. The constant direction, which a LayerNorm removes before the unembedding, is not
    part of V0. A neuron whose weights are 0 has share 0.
    """
    width = len(gram)
    dimensions = max(1, width // NULL_SPACE_DIVISOR)
    if head.norm.centred:
        gram -= gram.mean(0, keepdim=True)
        gram -= gram.mean(1, keepdim=True)
        gram += gram.trace() / width  # lifts the constant direction, of eigenvalue 0, above the least ones
    vectors = torch.linalg.eigh(gram).eigenvectors[:, :dimensions]
    inside, length = (
        torch.cat([value(some.double()) for some in w.split(ROWS)])
        for value in (lambda some: (some @ vectors).norm(dim=1), lambda some: some.norm(dim=1))
    )
    return (inside / length.clamp_min(torch.finfo(torch.float64).tiny)).float()


def _folded_rows(head: Head, size: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """(first token, rows of the folded unembedding centred over the vocabulary: K × d float32), K at most `size`."""
    gain = head.norm.gain.to(device).double()
    total = torch.zeros_like(gain)
    for raw in head.unembedding.split(size):
        total += raw.to(device).double().sum(0)
    centre = total * gain / len(head.unembedding)
    for number, raw in enumerate(head.unembedding.split(size)):
        yield number * size, (raw.to(device).double() * gain - centre).float()


def _square(rows: Tensor) -> Tensor:
    rows = rows.double()
    return rows.T @ rows


class _LogitLens:
    """Sums over the vocabulary of m_v = (U w_i)_v, the change of a logit per unit of each neuron's activation.

    The norm's scale is left out. Sums are in float64. Logits are centred over the vocabulary, so their mean is 0 up to
    rounding.
    """

    def __init__(self, w: Tensor, log_frequency: Tensor) -> None:
        """`w` N × d, centred for a LayerNorm; `log_frequency` V."""
        self.w, self.lengths = w, w.norm(dim=1)
        self.log_frequency = log_frequency - log_frequency.mean()
        # Σ and Σ of squares of each
        self.logit, self.cosine = torch.zeros(2, 2, len(w), dtype=torch.float64, device=w.device)
        self.with_frequency = torch.zeros_like(self.logit[0])
        empty = torch.empty(0, len(w), device=w.device)
        self.extremes = {direction: (empty, empty.long()) for direction in ("up", "down")}

    def add(self, start: int, rows: Tensor) -> None:
        """Add the tokens from `start` on; `rows` are theirs of the unembedding, K × d."""
        m = rows @ self.w.T  # K × N
        for direction, largest in (("up", True), ("down", False)):
            count = min(TOKENS_PER_DIRECTION, len(m))
            logits, offsets = m.topk(count, dim=0, largest=largest)
            kept, tokens = self.extremes[direction]
            joined, ids = torch.cat([kept, logits]), torch.cat([tokens, offsets + start])
            best, places = joined.topk(min(TOKENS_PER_DIRECTION, len(joined)), dim=0, largest=largest)
            self.extremes[direction] = best, ids.gather(0, places)
        frequency = self.log_frequency[start : start + len(rows)]
        norms = (rows.norm(dim=1, keepdim=True) * self.lengths).clamp_min(torch.finfo(torch.float32).tiny)
        for sums, values in ((self.cosine, (m / norms).double()), (self.logit, m.double())):
            sums += torch.stack([values.sum(0), values.square().sum(0)])
        self.with_frequency += frequency @ values

    def cosine_variance(self) -> Tensor:
        """Variance over the vocabulary of the cosine of a token's unembedding row and the neuron's output row, N."""
        V = len(self.log_frequency)
        return (self.cosine[1] / V - (self.cosine[0] / V).square()).clamp_min(0).float()

    def correlation(self) -> Tensor:
        """Pearson correlation of the logits with the log frequency, N; NaN where either is constant."""
        spread = self.logit[1] - self.logit[0].square() / len(self.log_frequency)
        scale = spread.clamp_min(0).sqrt() * self.log_frequency.norm()
        return torch.where(scale > 0, self.with_frequency / scale, torch.nan).float()

    def extreme_tokens(self) -> pa.Table:
        """The tokens that each neuron's activation raises and lowers most."""
        tables = []
        for direction, (logits, tokens) in self.extremes.items():
            count, N = logits.shape
            columns = {
                "neuron": np.repeat(np.arange(N), count).astype(np.uint16),
                "direction": [direction] * (count * N),
                "rank": np.tile(np.arange(1, count + 1, dtype=np.uint16), N),
                "token_id": tokens.T.reshape(-1).cpu().numpy().astype(np.uint32),
                "logit": logits.T.reshape(-1).cpu().numpy(),
            }
            tables.append(pa.table(columns, schema("neuron_token")))
        order = [("neuron", "ascending"), ("direction", "descending"), ("rank", "ascending")]
        return pa.concat_tables(tables).sort_by(order)


def _lists(weights: Tensor) -> pa.Array:
    """A matrix as an array of lists, one per row."""
    values = weights.float().cpu().contiguous().numpy()
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
