"""Estimates a run's cost before it starts (`ingest --dry-run`), from the configuration alone: no weights are read."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from rare_tokens.ingest.attention.cells import MOST_SUMS
from rare_tokens.ingest.attention.edits import CONTROL_DRAWS
from rare_tokens.ingest.attention.heads import LAYERS
from rare_tokens.ingest.attention.measure import SUBSAMPLE, AttentionRequest
from rare_tokens.ingest.dense.ablation import WIDER
from rare_tokens.ingest.dense.parts import dense_cost
from rare_tokens.ingest.machine import matrix_rate
from rare_tokens.ingest.model.mlp import decoder_blocks, layer_index, mlp_shape
from rare_tokens.ingest.model.weightless import empty_model, needs_dense_path
from rare_tokens.ingest.run.pipeline import choose_device
from rare_tokens.ingest.run.request import Request
from rare_tokens.ingest.run.resources import bytes_needed, bytes_stored, plan
from rare_tokens.ingest.text.matched import NC_MATCHED

BYTES_PER_SUM = 6.5  # stored, measured: 4 for the float, the rest for edit, cell and neuron
CELLS_PER_WINDOW = 5  # roughly; the kinds of positions by token group in a window
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Estimate:
    """Cost of one run. Times are rough: matrix products, counted, at the rate just measured on this machine.

    For matched contexts it is the most there can be: only the search can tell how many there are.
    """

    run_id: str
    positions: int
    neurons: int
    layer: int
    path: str  # `moments`, `dense` (the model is run again from the edit on) or `unknown` (estimated as dense)
    rerun_positions: int  # on the dense path: positions run again, one per neuron and position
    fact_rows: int
    disk_bytes: int  # while it runs: captured arrays, parts and the warehouse's own copy
    warehouse_bytes: int  # what stays
    memory_bytes: int  # at the peak, on the device that computes; above `memory_available` the run is refused
    memory_available: int
    offloaded_bytes: int  # weights kept off the device
    minutes: float
    attention_rows: int = 0  # of `--attention`; minutes and bytes include them
    attention_minutes: float = 0.0


def estimate(request: Request, attention: AttentionRequest | None = None) -> Estimate:
    """Estimate a run's rows, bytes and time; `attention` included if given.

    Raises:
        UserError: the configuration shows that the architecture cannot be analysed.
    """
    options = request.options
    device = choose_device(options.device)
    model = empty_model(request.folder.name, request.config, remote_code=options.trust.remote_code)
    neurons, width, vocabulary = mlp_shape(model, options.layer)
    layer = layer_index(options.layer, len(decoder_blocks(model)))
    needs_dense = needs_dense_path(model, layer)
    is_dense = needs_dense is not False  # if unknown, estimate the larger cost
    parameters = sum(weight.numel() for weight in model.parameters())
    pairs = options.tokens * neurons
    # A forward pass costs 2 operations per parameter and token; a matched context takes a window per position.
    forward = options.tokens * (options.window if options.contexts == NC_MATCHED else 1)
    seconds = forward * 2 * parameters / matrix_rate(device)
    if is_dense:
        dtype = WIDER.get(getattr(torch, options.dtype), torch.float32)
        place = "cpu" if device == "mps" and dtype == torch.float64 else device
        operations = dense_cost(model, layer, pairs, tuple(options.effects)).operations
        seconds += operations / matrix_rate(place, dtype)
    else:  # each position is unembedded twice, and takes about two products of vocabulary × neurons
        seconds += options.tokens * 4 * vocabulary * (width + neurons) / matrix_rate(device)
    attention_rows, attention_seconds = 0, 0.0
    if attention is not None:
        attention_rows, operations = attention_cost(model, layer, options.tokens, options.window, attention.layers)
        attention_seconds = operations / matrix_rate(device)
    stored = bytes_stored(pairs, len(options.effects)) + int(attention_rows * BYTES_PER_SUM)
    held = plan(request, model, layer, device, whole=attention is not None)
    return Estimate(
        run_id=request.run_id,
        positions=options.tokens,
        neurons=neurons,
        layer=layer,
        path={True: "dense", False: "moments", None: UNKNOWN}[needs_dense],
        rerun_positions=pairs if is_dense else 0,
        fact_rows=pairs,
        disk_bytes=stored + bytes_needed(options.tokens, neurons, width, len(options.effects)),
        warehouse_bytes=stored,
        memory_bytes=held.bytes,
        memory_available=held.available,
        offloaded_bytes=held.offloaded,
        minutes=(seconds + attention_seconds) / 60,
        attention_rows=attention_rows,
        attention_minutes=attention_seconds / 60,
    )


def attention_cost(
    model: PreTrainedModel, layer: int, positions: int, window: int, wanted: tuple[int, ...] | None
) -> tuple[int, float]:
    """The most rows that attention can add, and its floating-point operations; without weights, layers are a guess."""
    blocks = decoder_blocks(model)
    heads = int(model.config.get_text_config().num_attention_heads)
    neurons, width, vocabulary = mlp_shape(model, layer)
    block = sum(weight.numel() for weight in blocks[layer].parameters())
    layers = wanted or tuple(range(max(0, layer - LAYERS + 1), layer + 1))
    edits = heads + 1 + 2 * CONTROL_DRAWS
    passed = sum(max(0.0, layer - index + 0.5) * block for index in layers)  # by an edit, up to the neurons
    operations = 2.0 * positions * (edits * passed + len(blocks) * block)
    above = sum((len(blocks) - index) * block + vocabulary * width for index in layers)  # up to the loss
    operations += 2.0 * min(positions, SUBSAMPLE) * (edits + heads + 1) * above
    sums = min(MOST_SUMS, len(layers) * edits * neurons * CELLS_PER_WINDOW * max(1, positions // window))
    return sums + len(layers) * heads * CELLS_PER_WINDOW * positions, operations
