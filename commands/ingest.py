"""The command `ingest`: its options, and what it does with them."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from rare_tokens.commands.support.chosen_runs import listed_runs, say_warnings
from rare_tokens.commands.support.dry_run import show_estimates
from rare_tokens.commands.support.executors import Spreading
from rare_tokens.commands.support.grouped_help import GroupedCommand, GroupedOption
from rare_tokens.commands.support.ingest_runs import Asked, ingest_all
from rare_tokens.commands.support.requests import requested, require_one_layer, require_references
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.effects import EFFECTS, LOSS
from rare_tokens.common.layers import Layers, asked_layers
from rare_tokens.common.program import command
from rare_tokens.common.progress import working
from rare_tokens.warehouse import STORES


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _layers(_context: click.Context, _parameter: click.Parameter, value: str) -> int | Layers:
    return asked_layers(value)


_model = partial(click.option, cls=GroupedOption, group="Model")
_text = partial(click.option, cls=GroupedOption, group="Text")
_measured = partial(click.option, cls=GroupedOption, group="What is measured")
_machine = partial(click.option, cls=GroupedOption, group="Where it is computed")
_run = partial(click.option, cls=GroupedOption, group="What happens to the run")


@click.command(cls=GroupedCommand)
@_model(
    "--model",
    multiple=True,
    required=True,
    metavar="MODEL",
    help="Id on the Hugging Face hub, folder of a model or of its checkpoints, GGUF file, or `embedded`, the demo's. "
    "Repeatable: each model is measured with the same options.",
)
@_model(
    "--revision",
    "revisions",
    multiple=True,
    metavar="R",
    help="Branch, tag or commit on the hub, checkpoint folder, or training step. Repeatable: a run each"
    " [default: main; of a folder of checkpoints the last].",
)
@_model(
    "--revisions",
    "series",
    metavar="RANGE",
    help="Checkpoints from FIRST to LAST, as FIRST..LAST, FIRST..LAST:STRIDE or FIRST..LAST:log (steps that double): "
    "step0..step143000:log, stage1-step0..stage2-step1000, 0..500:100. One that is missing or fails is recorded and "
    "skipped.",
)
@_model(
    "--ignore-weights",
    multiple=True,
    metavar="PATTERN",
    help="Go on without tensors of the weight files that the model does not take, by name, for example 'mtp.*'.",
)
@_model("--allow-pickle", is_flag=True, help="Load weights that are stored as pickles; loading them can run code.")
@_model("--trust-remote-code", is_flag=True, help="Run code that comes with the model, where it needs some.")
@_text(
    "--corpus",
    multiple=True,
    metavar="[LABEL=]SOURCE",
    help="Text to sample: c4 [default], builtin (offline), a file or folder, or a data set of the hub as "
    "hf:NAME[:CONFIG][:SPLIT][@REVISION][#FIELD]. LABEL names its domain. Repeatable.",
)
@_text(
    "--text-field",
    metavar="NAME",
    help="Field of the records that holds the text [default: text]; a.b is the field b within a.",
)
@_text(
    "--frequencies",
    metavar="SOURCE",
    default="corpus",
    show_default=True,
    help="What says how rare a token is: `corpus` counts the tokens of the text itself; `wordfreq` estimates them from "
    "a list of English words; or a .npy file with a count per token id.",
)
@_text(
    "--contexts",
    type=click.Choice(["sample", "nc-matched"]),
    default="sample",
    show_default=True,
    help="Positions to measure: a sample of the text, or matched pairs of a rare and a common token found in it.",
)
@_text(
    "--tokens",
    default=25_088,
    show_default=True,
    help="Number of positions to sample; of positions in matched pairs, the most. More narrow the intervals.",
)
@_text(
    "--window",
    default=256,
    show_default=True,
    help="Positions per window of text: how much a prediction has before it at most.",
)
@_text("--seed", default=0, show_default=True, help="Which sample is drawn: another number draws other positions.")
@_text(
    "--begin-token",
    is_flag=True,
    help="Start each window with the tokenizer's begin token, as models expect that were trained with one.",
)
@_measured(
    "--layer",
    default="-1",
    show_default=True,
    metavar="N|N,N...|all",
    callback=_layers,
    help="Layer of the neurons, counted from 0; negative numbers count from the last. Several, separated by commas, or "
    "all of them are a run each, at the same positions.",
)
@_measured(
    "--edit-scope",
    type=click.Choice(["window", "position"]),
    default="window",
    show_default=True,
    help="Of a layer below the last: replace a neuron at every position of the window, or at one at a time.",
)
@_measured(
    "--ablation",
    default="mean",
    show_default=True,
    metavar="REFERENCES",
    help="What replaces an activation: mean, zero, resample[:R] (its value at another position, R draws) or optimal "
    "(the constant with the least mean loss). Several, separated by commas, are a run each, measured at once.",
)
@_measured(
    "--effects",
    metavar="NAMES",
    default=LOSS,
    show_default=True,
    callback=_names,
    help="What to store of each neuron at each position, separated by commas: "
    + "; ".join(f"{one.name}, {one.in_words}" for one in EFFECTS.values())
    + ". A later ingest can add some.",
)
@_measured(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME|FILE",
    help="Also ablate these neurons together: a group of `analyze` ([PRESET:]NAME), or a JSON, CSV or text file with "
    "their indices. Repeatable.",
)
@_measured(
    "--attention", is_flag=True, help="Also measure where attention heads look, and what ablating each of them does."
)
@_measured(
    "--attention-layers",
    metavar="A..B",
    help="With --attention: layers whose heads are ablated [default: the last two that feed the neurons].",
)
@_measured(
    "--head-ablation",
    type=click.Choice(["zero", "mean", "uniform"]),
    help="With --attention: what replaces a head's output: 0 [default], its mean, or its output if it looked "
    "everywhere alike.",
)
@_measured(
    "--tolerance",
    metavar="NATS",
    default=1e-6,
    show_default=True,
    help="Largest error of an effect in nats, plus 1e-4 of the effect. Smaller takes longer.",
)
@_machine(
    "--device",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="Where the model runs: cpu, cuda, cuda:N or mps; auto takes a GPU if there is one.",
)
@_machine(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16", "float64"]),
    default="float32",
    show_default=True,
    help="Precision in which the model runs. Effects are exact for the activations that it then has.",
)
@_machine(
    "--offload",
    type=click.Choice(["auto", "never", "always"]),
    default="auto",
    show_default=True,
    help="Keep blocks of the model in memory or on disk and fetch them one by one: auto does if it does not fit on the "
    "device.",
)
@_machine(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Compute in this process, or on Ray workers (a cluster is started here or joined).",
)
@_machine(
    "--ray-address", metavar="HOST:PORT", help="With ray: the cluster to join [default: RAY_ADDRESS, or a new one]."
)
@_machine(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="With ray: number of workers [default: one per GPU, or one per node].",
)
@_machine(
    "--parts",
    metavar="PATH_OR_URL",
    help="Where finished work waits until the run is published, any place that fsspec knows [default: beside the "
    "warehouse].",
)
@_run(
    "--store",
    type=click.Choice(STORES),
    help="Keep the facts in the warehouse [default], or in Parquet files beside it. Moves those of a published run.",
)
@_run("--again", is_flag=True, help="Compute a published run again and replace it.")
@_run(
    "--dry-run",
    is_flag=True,
    help="Write nothing: try a few positions, and print the time, memory and space that the run will take.",
)
@_run(
    "--publish-anyway",
    metavar="REASON",
    help="Publish a run even if its checks fail; the reason is stored with it.",
)
@global_options
def ingest(
    settings: Settings,
    again: bool,
    dry_run: bool,
    publish_anyway: str | None,
    store: str | None,
    groups: tuple[str, ...],
    attention: bool,
    attention_layers: str | None,
    head_ablation: str | None,
    series: str | None,
    executor: str,
    ray_address: str | None,
    workers: int | None,
    parts: str | None,
    allow_pickle: bool,
    trust_remote_code: bool,
    **given: Any,
) -> None:
    """Ablate every neuron of a model's last MLP, or of another layer's.

    Checks the effects and publishes them as a run. The same command again resumes an interrupted run; a finished one
    stays as it is, or gains what is newly asked for. Of several runs, one that fails does not stop the others: the exit
    code is then 3 if checks refused one, else 2.
    """
    began = time.perf_counter()
    with working("Find the model and the text", quiet=settings.quiet):
        from rare_tokens.ingest.attention.measure import AttentionOptions
        from rare_tokens.ingest.model.files import Trust
        from rare_tokens.ingest.run.request import Options

        spreading = Spreading(executor, ray_address, workers, parts)
        heads = AttentionOptions(attention, attention_layers, head_ablation)
        given["corpus"] = given["corpus"] or ("c4",)
        models, trust = [_named(one) for one in given.pop("model")], Trust(allow_pickle, trust_remote_code)
        options = [Options(model=model, **given, trust=trust) for model in models]
        require_references(options[0].ablation, groups, attention=attention)
        require_one_layer(options[0].layer, groups)
        requests = requested(options, series, fetch=not dry_run)
    if dry_run:
        show_estimates(requests, heads, settings, began)
        return
    ingested = ingest_all(requests, settings, Asked(again, publish_anyway, groups, heads, store, spreading))
    show(listed_runs(settings, ingested.run_ids), settings.form)
    say_warnings(settings, ingested.new, said=("few_tokens",))  # which is said when the text is drawn
    ingested.require_all()
    settings.say(_next(ingested.run_ids))


def _named(model: str) -> str:
    """The model that is meant: the demo's by its name, unless a folder here is called so."""
    from rare_tokens.ingest.embedded import MODEL_FOLDER

    return str(MODEL_FOLDER) if model == MODEL_FOLDER.name and not Path(model).exists() else model


def _next(run_ids: list[str]) -> str:
    """What to do with the runs that are there."""
    if len(run_ids) == 1:
        return f"Next: `{command('analyze')} {run_ids[0]}`, then `{command('report')} {run_ids[0]}`."
    return f"Next: `{command('analyze')}`, then `{command('report')}`, or `{command('compare')} RUN RUN`."
