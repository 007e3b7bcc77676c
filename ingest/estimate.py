"""What a run will cost, before it starts (`ingest --dry-run`): from the configuration alone, no weights are read."""

import time
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM

from common.errors import UserError
from ingest.pipeline import bytes_needed, choose_device
from ingest.request import Request
from ingest.structure import mlp_shape

BYTES_A_PAIR_STORED = 8.6  # measured: activation and effect are 8, neuron and position the rest
ABLATION_MEMORY = 2 << 30
_RATE_SIZE = 1536


@dataclass(frozen=True)
class Estimate:
    """Cost of one run. Times are rough: matrix products counted, at the rate this machine just showed."""

    run_id: str
    positions: int
    neurons: int
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
    neurons, width, vocabulary = mlp_shape(model)
    parameters = sum(weight.numel() for weight in model.parameters())
    pairs = options.tokens * neurons
    # A forward pass costs 2 operations a parameter and position; the ablation unembeds each position twice and takes
    # about two products of vocabulary × neurons.
    operations = options.tokens * (2 * parameters + 4 * vocabulary * width + 4 * vocabulary * neurons)
    stored = int(pairs * (BYTES_A_PAIR_STORED + 4 * (len(options.effects) - 1)))
    element = torch.finfo(getattr(torch, options.dtype)).bits // 8
    return Estimate(
        run_id=request.run_id,
        positions=options.tokens,
        neurons=neurons,
        fact_rows=pairs,
        disk_bytes=stored + bytes_needed(options.tokens, neurons, width, len(options.effects)),
        warehouse_bytes=stored,
        memory_bytes=parameters * element + ABLATION_MEMORY,
        minutes=operations / matrix_rate(device) / 60,
    )


def matrix_rate(device: str) -> float:
    """Floating-point operations a second of a float32 matrix product on the device, measured in well under a second."""
    left = torch.randn(_RATE_SIZE, _RATE_SIZE, device=device)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        float((left @ left)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * _RATE_SIZE**3 / best
