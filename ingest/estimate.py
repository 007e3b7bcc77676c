"""What a run will cost, before it starts (`ingest --dry-run`): from the configuration alone, no weights are read."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from common.errors import UserError
from ingest.contexts import NC_MATCHED
from ingest.dense import MEMORY, WIDER
from ingest.dense_units import dense_cost
from ingest.machine import matrix_rate
from ingest.pipeline import bytes_needed, choose_device
from ingest.request import Request
from ingest.structure import PROBE_TOKENS, decoder_blocks, hooked, layer_index, mlp_modules, mlp_shape

BYTES_A_PAIR_STORED = 8.6  # measured: activation and effect are 8, neuron and position the rest
ABLATION_MEMORY = 2 << 30


@dataclass(frozen=True)
class Estimate:
    """Cost of one run. Times are rough: matrix products counted, at the rate this machine just showed.

    Of matched contexts it is the most there can be: how many there are, only the search can tell.
    """

    run_id: str
    positions: int
    neurons: int
    layer: int
    path: str  # `moments`, or `dense` where the model is run again from the edit on
    rerun_positions: int  # on the dense path: positions run again, one for each neuron and position
    fact_rows: int
    disk_bytes: int  # while it runs: captured arrays, parts and the warehouse's own copy
    warehouse_bytes: int  # what stays
    memory_bytes: int
    minutes: float


def estimate(request: Request) -> Estimate:
    """Estimate a run's rows, bytes and time.

    Raises:
        UserError: the architecture is not one that can be analysed, as far as its configuration shows.
    """
    options = request.options
    device = choose_device(options.device)
    with torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(request.config, trust_remote_code=options.trust.remote_code)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"--model {request.folder.name}: its architecture is not known ({error}).") from error
    neurons, width, vocabulary = mlp_shape(model, options.layer)
    layer = layer_index(options.layer, len(decoder_blocks(model)))
    is_dense = needs_dense_path(model, layer)
    parameters = sum(weight.numel() for weight in model.parameters())
    pairs = options.tokens * neurons
    # A forward pass costs 2 operations a parameter and token; a matched context takes a window for one position.
    forward = options.tokens * (options.window if options.contexts == NC_MATCHED else 1)
    seconds = forward * 2 * parameters / matrix_rate(device)
    memory = ABLATION_MEMORY
    if is_dense:
        dtype = WIDER.get(getattr(torch, options.dtype), torch.float32)
        place = "cpu" if device == "mps" and dtype == torch.float64 else device
        operations = dense_cost(model, layer, pairs, tuple(options.effects)).operations
        seconds += operations / matrix_rate(place, dtype)
        memory = MEMORY + parameters * dtype.itemsize
    else:  # each position is unembedded twice, and about two products of vocabulary × neurons are taken
        seconds += options.tokens * 4 * vocabulary * (width + neurons) / matrix_rate(device)
    stored = int(pairs * (BYTES_A_PAIR_STORED + 4 * (len(options.effects) - 1)))
    element = torch.finfo(getattr(torch, options.dtype)).bits // 8
    return Estimate(
        run_id=request.run_id,
        positions=options.tokens,
        neurons=neurons,
        layer=layer,
        path="dense" if is_dense else "moments",
        rerun_positions=pairs if is_dense else 0,
        fact_rows=pairs,
        disk_bytes=stored + bytes_needed(options.tokens, neurons, width, len(options.effects)),
        warehouse_bytes=stored,
        memory_bytes=parameters * element + memory,
        minutes=seconds / 60,
    )


# Settings by which configurations say that logits are capped, or that what an MLP gives is scaled before it is added.
_MAPPED = {"final_logit_softcapping": None, "residual_multiplier": 1.0}


def needs_dense_path(model: PreTrainedModel, layer: int) -> bool:
    """Whether a layer will take the dense path, as far as a model without weights (on the meta device) shows it.

    The ingest itself decides by what the model does (`ingest.structure`).
    """
    blocks = decoder_blocks(model)
    if layer < len(blocks) - 1:
        return True
    config = model.config.get_text_config()
    if any(getattr(config, name, None) not in (None, plain) for name, plain in _MAPPED.items()):
        return True
    projection = mlp_modules(model, layer).out_projection
    ended: list[nn.Module] = []

    def end(module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        ended.append(module)

    tokens = torch.ones(1, PROBE_TOKENS, dtype=torch.long, device="meta")
    # A mask that is given is not looked into, which nothing without values allows. Not all models take one.
    for mask in (torch.zeros(1, 1, PROBE_TOKENS, PROBE_TOKENS, device="meta"), None):
        ended.clear()
        try:
            with torch.inference_mode(), hooked(*((module, "after", end) for module in blocks[layer].modules())):
                model(input_ids=tokens, attention_mask=mask, use_cache=False)
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            continue
        later = ended[ended.index(projection) + 1 :]
        return any(next(module.children(), None) is None and list(module.parameters()) for module in later)
    return False
