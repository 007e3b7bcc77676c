"""What can be read off the weights of each neuron: norms, null space, logit lens, tie to token frequency (SPEC 10).

The measures are those of Stolfo et al. (2024), on the unembedding with the final norm's gain folded in.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.parts import schema
from ingest.head import Head
from ingest.structure import Structure

TOKENS_PER_DIRECTION = 10
# Stolfo et al. call the last 12 of GPT-2 small's 768 singular directions its effective null space.
NULL_SPACE_DIVISOR = 64
_NEURONS_AT_ONCE = 128
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class NeuronTables:
    """The parts `dim_neuron`, `neuron_weight` and `neuron_token` of a run."""

    neuron: pa.Table
    weight: pa.Table
    token: pa.Table


def neuron_tables(structure: Structure, mean: NDArray[np.float64], counts: NDArray[np.int64]) -> NeuronTables:
    """Measure every neuron of the layer.

    Args:
        structure: the layer, with w_out N × d and the head.
        mean: n-bar, N.
        counts: of each token id in the run's frequency source, V; the ids of padding rows count 0.
    """
    head, w_out = structure.head, structure.w_out.float()
    centred = w_out - w_out.mean(1, keepdim=True) if head.norm == "layer" else w_out
    unembedding = head.unembedding.float() * head.gain.float()
    unembedding -= unembedding.mean(0)
    log_frequency = log_unigram(torch.from_numpy(counts).to(w_out.device)).float()
    variance, correlation, tokens = [], [], []
    for start in range(0, len(w_out), _NEURONS_AT_ONCE):
        block = centred[start : start + _NEURONS_AT_ONCE]
        effect = unembedding @ block.T  # V × block: logit change per unit of activation, norm's scale left out
        variance.append(_cosine_variance(effect, unembedding, block))
        correlation.append(_correlation(effect, log_frequency))
        tokens.append(_extreme_tokens(effect, start))
    neurons = np.arange(len(w_out), dtype=np.uint16)
    neuron = {
        "neuron": neurons,
        "mean_activation": mean,
        "w_out_norm": w_out.norm(dim=1).cpu().numpy(),
        "null_space_share": null_space_share(head, unembedding, centred).cpu().numpy(),
        "logit_variance": torch.cat(variance).cpu().numpy(),
        "frequency_correlation": pa.array(torch.cat(correlation).cpu().numpy(), pa.float32(), from_pandas=True),
    }
    weight = {
        "neuron": neurons,
        "w_out": _rows(structure.w_out),
        "w_in": _rows(structure.w_in),
        "w_up": pa.nulls(len(neurons), pa.list_(pa.float32())) if structure.w_up is None else _rows(structure.w_up),
    }
    return NeuronTables(
        pa.table(neuron, schema("dim_neuron")),
        pa.table(weight, schema("neuron_weight")),
        pa.concat_tables(tokens).sort_by([("neuron", "ascending"), ("direction", "descending"), ("rank", "ascending")]),
    )


def log_unigram(counts: Tensor) -> Tensor:
    """log of the add-one smoothed unigram distribution, V, float64 (SPEC 2)."""
    smoothed = counts.double() + 1
    return smoothed.log() - smoothed.sum().log()


def null_space_share(head: Head, unembedding: Tensor, w_out: Tensor) -> Tensor:
    """‖V0ᵀ w‖ / ‖w‖ per neuron (N): V0 spans the d / 64 least singular directions of the folded unembedding.

    `unembedding` is folded and centred over the vocabulary, `w_out` centred over d for a LayerNorm. The constant
    direction, which a LayerNorm removes before the unembedding, is no part of V0. A neuron of zero weights has share 0.
    """
    width = unembedding.shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64, device=unembedding.device)
    for start in range(0, len(unembedding), _ROWS_AT_ONCE):
        rows = unembedding[start : start + _ROWS_AT_ONCE].double()
        gram += rows.T @ rows
    directions = max(1, width // NULL_SPACE_DIVISOR)
    if head.norm == "layer":
        gram -= gram.mean(0, keepdim=True)
        gram -= gram.mean(1, keepdim=True)
        gram += gram.trace() / width  # lifts the constant direction, of eigenvalue 0, above the least ones
    vectors = torch.linalg.eigh(gram).eigenvectors[:, :directions]
    inside = (w_out.double() @ vectors).norm(dim=1)
    return (inside / w_out.double().norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)).float()


def _cosine_variance(effect: Tensor, unembedding: Tensor, block: Tensor) -> Tensor:
    """Variance over the vocabulary of the cosine between the token's unembedding row and the neuron's output row."""
    scale = unembedding.norm(dim=1, keepdim=True) * block.norm(dim=1)
    return (effect / scale.clamp_min(torch.finfo(torch.float32).tiny)).var(dim=0, correction=0)


def _correlation(effect: Tensor, log_frequency: Tensor) -> Tensor:
    """Pearson correlation of each column of `effect` with the log frequency; NaN where either is constant."""
    x = effect - effect.mean(0)
    y = (log_frequency - log_frequency.mean()).unsqueeze(1)
    scale = x.norm(dim=0) * y.norm()
    return torch.where(scale > 0, (x * y).sum(0) / scale, torch.nan)


def _extreme_tokens(effect: Tensor, first_neuron: int) -> pa.Table:
    """The tokens that each neuron's activation raises and lowers most."""
    count = min(TOKENS_PER_DIRECTION, len(effect))
    tables = []
    for direction, largest in (("up", True), ("down", False)):
        logits, tokens = effect.topk(count, dim=0, largest=largest)
        neurons = first_neuron + np.arange(effect.shape[1])
        columns = {
            "neuron": np.repeat(neurons, count).astype(np.uint16),
            "direction": [direction] * (count * len(neurons)),
            "rank": np.tile(np.arange(1, count + 1, dtype=np.uint16), len(neurons)),
            "token_id": tokens.T.reshape(-1).cpu().numpy().astype(np.uint32),
            "logit": logits.T.reshape(-1).cpu().numpy(),
        }
        tables.append(pa.table(columns, schema("neuron_token")))
    return pa.concat_tables(tables)


def _rows(weights: Tensor) -> pa.Array:
    """A matrix as an array of lists, one a row."""
    values = weights.float().cpu().contiguous().numpy()
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
