"""What `ingest --dry-run` says: a run's rows, bytes and memory from its configuration, and how long it will take."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedModel

from rare_tokens.ingest.attention.cells import MOST_SUMS
from rare_tokens.ingest.attention.edits import CONTROL_DRAWS
from rare_tokens.ingest.attention.heads import LAYERS
from rare_tokens.ingest.attention.measure import SUBSAMPLE, AttentionRequest
from rare_tokens.ingest.forecast.forecast import measure, reckon
from rare_tokens.ingest.machine import matrix_rate
from rare_tokens.ingest.model.mlp import decoder_blocks, mlp_shape
from rare_tokens.ingest.model.weightless import empty_model, needs_dense_path
from rare_tokens.ingest.run.loading import Loader
from rare_tokens.ingest.run.pipeline import Prepared, choose_device
from rare_tokens.ingest.run.request import ALWAYS, Request
from rare_tokens.ingest.run.resources import Plan, bytes_needed, bytes_stored, plan

BYTES_PER_SUM = 6.5  # stored, measured: 4 for the float, the rest for edit, cell and neuron
CELLS_PER_WINDOW = 5  # roughly; the kinds of positions by token group in a window
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Estimate:
    """Cost of one run.

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
    minutes: float  # of the whole command, on this machine alone; of runs measured together an equal share
    attention_rows: int = 0  # of `--attention`; minutes and bytes include them
    attention_minutes: float = 0.0  # counted operations at the machine's rate: rough
    minutes_source: str = "reckoned"  # `measured` on a few positions, or `reckoned` from rates of other runs
    minutes_why: str = ""  # why nothing was measured
    stage_seconds: dict[str, float] = field(default_factory=dict)  # of `minutes`, by stage


def estimates(
    requests: Sequence[Request],
    attention: AttentionRequest | None = None,
    *,
    found: float = 0.0,
    loader: Loader | None = None,
    done: Collection[str] = (),
) -> list[Estimate]:
    """Estimate the rows, bytes and time of runs that are measured together, by several references. Writes nothing.

    What they share is divided among them.

    Args:
        requests: the runs, which differ in their reference alone. Where the weights are at hand and fit, a few of their
            positions are tried, which takes seconds.
        attention: what is asked of attention.
        found: seconds that finding the model and the text took.
        loader: loads the model, which it may have already, of a run of another layer; None: a new one.
        done: stages (`STAGES`) that a run before these has done for them: loading the model, drawing the text.

    Raises:
        UserError: the configuration shows that the architecture cannot be analysed, or what is tried shows that the
            ingest would be refused.
    """
    count = len(requests)
    request = replace(requests[0], together=count)
    options, layer, references = request.options, request.layer, [one.options.ablation for one in requests]
    device = choose_device(options.device)
    model = empty_model(request.folder.name, request.config, remote_code=options.trust.remote_code)
    neurons, width, _ = mlp_shape(model, layer)
    needs_dense = needs_dense_path(model, layer)
    held = plan(request, model, layer, device, whole=attention is not None)
    if why := _why_not(request, held):
        is_dense = needs_dense is not False  # if unknown, estimate the larger cost
        forecast = reckon(request, model, layer, device, is_dense=is_dense, found=found, why=why, references=references)
    else:
        forecast, is_dense = measure(
            request, loader or Loader(), found=found, whole=attention is not None, references=references
        )
        needs_dense = is_dense
    forecast = replace(forecast, seconds={name: taken for name, taken in forecast.seconds.items() if name not in done})
    pairs = options.tokens * neurons
    attention_rows, seconds = 0, 0.0
    if attention is not None:
        attention_rows, operations = attention_cost(model, layer, options.tokens, options.window, attention.layers)
        seconds = operations / matrix_rate(device)
    stored = bytes_stored(pairs, len(options.effects)) + int(attention_rows * BYTES_PER_SUM)
    effects = count * (1 + len(options.effects)) - 1
    needed = bytes_needed(options.tokens, neurons, width, effects)
    one = Estimate(
        run_id=_run_id(request),
        positions=options.tokens,
        neurons=neurons,
        layer=layer,
        path={True: "dense", False: "moments", None: UNKNOWN}[needs_dense],
        rerun_positions=pairs if is_dense else 0,
        fact_rows=pairs,
        disk_bytes=stored + needed // count,
        warehouse_bytes=stored,
        memory_bytes=held.bytes,
        memory_available=held.available,
        offloaded_bytes=held.offloaded,
        minutes=(forecast.minutes + seconds / 60) / count,
        attention_rows=attention_rows,
        attention_minutes=seconds / 60,
        minutes_source=forecast.source,
        minutes_why=forecast.why,
        stage_seconds={name: round(value / count, 3) for name, value in forecast.seconds.items()},
    )
    return [replace(one, run_id=_run_id(each)) for each in requests]


def _run_id(request: Request) -> str:
    """The id of the run; without its hash where neither the weights nor the hub's word of them are at hand."""
    folder = request.folder
    if all(digest for _, digest in folder.absent):
        return request.run_id
    return f"{folder.short_name}-{folder.revision}-{UNKNOWN}"


def _why_not(request: Request, held: Plan) -> str:
    """Why the run cannot be tried; empty if it can."""
    if request.folder.absent:
        return "its weights are not here"
    if held.bytes > held.available:
        return "it does not fit into the memory"
    if request.options.offload == ALWAYS and held.is_whole:
        return "its weights may not wait off the device"
    return ""


def attention_seconds(prepared: Prepared, attention: AttentionRequest) -> float:
    """Seconds that attention is reckoned to take in a run that is about to begin."""
    manifest, window = prepared.manifest, prepared.material.sample.tokens.shape[1] - 1
    _, operations = attention_cost(
        prepared.model, prepared.structure.layer, manifest.positions, window, attention.layers
    )
    return operations / matrix_rate(prepared.device)


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
