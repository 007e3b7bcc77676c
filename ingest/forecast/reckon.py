"""How long a run will take where nothing can be tried: operations counted, at rates that real runs reached.

A configuration shows no predictions, and on these the ablation's cost depends: the flatter they are, the more pairs are
summed over the whole vocabulary. The rates are those of a trained model on web text.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from rare_tokens.ingest.ablation.stages.references import MEAN, OPTIMAL, RESAMPLE, ZERO, choices
from rare_tokens.ingest.dense.ablation import WIDER
from rare_tokens.ingest.dense.parts import dense_cost
from rare_tokens.ingest.forecast.extrapolation import EFFECTS, FORWARD, LOAD, NEURONS, SELF_CHECK, TEXT
from rare_tokens.ingest.forecast.storage import captured_seconds, parts_seconds
from rare_tokens.ingest.machine import matrix_rate
from rare_tokens.ingest.model.load import DTYPES
from rare_tokens.ingest.model.mlp import decoder_blocks, mlp_shape
from rare_tokens.ingest.run.request import Request
from rare_tokens.ingest.text.matched import NC_MATCHED
from rare_tokens.ingest.text.reading import STREAM_LIMIT

# Fitted by hand, as shares or multiples of `matrix_rate`: the ablation and the forward pass to SmolLM2-135M on C4,
# the dense path's logits to a small Gemma 2 and novella. Assumed: loading, reading and the self-check.
# `benchmarks/speed/forecast.py` shows beside each measured run what these give.
_FORWARD_SHARE = 0.7  # of the machine's rate that forward passes reach
_POSITION = 2.8  # a position's cost, in products of V × (d + N)
_BLOCK, _POSITIONS = 2.5, 4_096  # products of V × d × N that a block of positions pays, and positions in it
_DENSE_SHARE = 0.6  # of the machine's rate that the layers above reach when they are run again
_LOGIT = 2e-8  # seconds of a thread for each logit of a position run again: softmax, sums, copies
_NEURONS = 4.0  # products of V × d × (d + N): the Gram matrix is in float64
_CHECKED_PASSES, _CHECKED_PAIRS = 8, 3_000  # windows and residuals unembedded, in units of a forward pass
# Of the cost of ablating by the mean: what all references share, and what each takes by itself; an optimal one its
# search too. As on SmolLM2-135M.
_SHARED, _BY_REFERENCE = 0.5, {MEAN: 0.5, ZERO: 0.5, RESAMPLE: 0.7, OPTIMAL: 10.0}
_LOADED, _TOKENS = 4e8, 3e5  # bytes and tokens a second


def reckoned(
    request: Request,
    model: PreTrainedModel,
    layer: int,
    device: str,
    *,
    is_dense: bool,
    references: Sequence[str] = (),
) -> dict[str, float]:
    """Seconds of the stages of a run between finding it and publishing it, by stage.

    Args:
        request: the run.
        model: its model, with or without weights.
        layer: of the neurons, counted from 0.
        device: that computes.
        is_dense: whether the dense path is taken.
        references: those that are measured together; none: the request's.
    """
    options = request.options
    N, d, V = mlp_shape(model, layer)
    T, rate = options.tokens, matrix_rate(device)
    parameters = sum(weight.numel() for weight in model.parameters())
    passed = sum(weight.numel() for block in decoder_blocks(model) for weight in block.parameters())
    position = 2.0 * passed / (_FORWARD_SHARE * rate)
    rows = T * (options.window if options.contexts == NC_MATCHED else 1)
    product = 2.0 * V / rate
    if is_dense:
        dtype = WIDER.get(DTYPES[options.dtype], torch.float32)
        place = "cpu" if device == "mps" and dtype == torch.float64 else device
        length = options.window if options.edit_scope == "window" else 1
        cost = dense_cost(model, layer, T * N, tuple(options.effects), length)
        logits = 0.0 if place.startswith("cuda") else cost.rows * V * _LOGIT / torch.get_num_threads()
        effects = cost.operations / (_DENSE_SHARE * matrix_rate(place, dtype)) + logits
    else:
        effects = product * (_BLOCK * -(-T // _POSITIONS) * d * N + _POSITION * T * (d + N))
    chosen = [one for name in references or [options.ablation] for one in choices(name)]
    several = len(chosen) if is_dense else _SHARED + sum(_BY_REFERENCE[one.kind] * one.draws for one in chosen)
    return {
        LOAD: parameters * DTYPES[options.dtype].itemsize / _LOADED,
        TEXT: _tokens(request) / _TOKENS,
        FORWARD: rows * position + captured_seconds(T, d + N),
        NEURONS: _NEURONS * product * d * (d + N),
        EFFECTS: several * effects + len(chosen) * parts_seconds(T * N, len(options.effects)),
        SELF_CHECK: len(chosen) * (_CHECKED_PASSES * options.window * position + _CHECKED_PAIRS * product * d),
    }


def _tokens(request: Request) -> float:
    """Tokens that are read to draw the sample; those of texts in hand are not known before they are tokenised."""
    return float(STREAM_LIMIT if request.corpus.streamed else request.options.tokens)
