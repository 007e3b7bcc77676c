"""The command `ingest`: its options, and what it does with them."""

import time
from typing import Any

import click

from rare_tokens.commands.support.chosen_runs import listed_runs, say_warnings
from rare_tokens.commands.support.dry_run import show_estimates
from rare_tokens.commands.support.executors import Spreading
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


@click.command()
@click.option(
    "--model",
    multiple=True,
    required=True,
    metavar="ID_OR_FOLDER_OR_FILE.gguf",
    help="Hub id, folder of a model or its checkpoints, or GGUF file. Repeatable: each model with the same options.",
)
@click.option(
    "--revision", "revisions", multiple=True, metavar="R", help="Branch, tag, checkpoint or its step; repeatable."
)
@click.option(
    "--revisions",
    "series",
    metavar="FIRST..LAST[:STRIDE|log]",
    help="Range of checkpoints: step0..step143000:log, stage1-step0..stage2-step1000, 0..500:100. One that is missing "
    "or fails is recorded and skipped.",
)
@click.option(
    "--corpus",
    multiple=True,
    metavar="[LABEL=]SOURCE",
    help="Text to sample: c4 [default], builtin, a path, or a data set of the hub as "
    "hf:NAME[:CONFIG][:SPLIT][@REVISION][#FIELD]; LABEL names its domain. Repeatable.",
)
@click.option(
    "--text-field",
    metavar="NAME",
    help="Field of the records that holds the text [default: text]; a.b is the field b within a.",
)
@click.option(
    "--frequencies",
    default="corpus",
    show_default=True,
    help="Token counts: `corpus` counts the text itself; `wordfreq` estimates them from a list of English words; or a "
    ".npy file with a count per token id.",
)
@click.option(
    "--contexts",
    type=click.Choice(["sample", "nc-matched"]),
    default="sample",
    show_default=True,
    help="Positions to measure: a sample of the text, or matched pairs of rare and common tokens found in it.",
)
@click.option("--tokens", default=25_088, show_default=True, help="Positions to sample; for matched pairs, the most.")
@click.option("--window", default=256, show_default=True, help="Positions per window of text.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--begin-token", is_flag=True, help="Start each window with the begin token.")
@click.option(
    "--layer",
    default="-1",
    show_default=True,
    metavar="N|N,N...|all",
    callback=_layers,
    help="Layer of the neurons, counted from 0; negative numbers count from the last. Several, separated by commas, or "
    "all of them are a run each, at the same positions.",
)
@click.option(
    "--edit-scope",
    type=click.Choice(["window", "position"]),
    default="window",
    show_default=True,
    help="For a layer below the last: replace a neuron at every position of the window, or at one at a time.",
)
@click.option(
    "--ablation",
    default="mean",
    show_default=True,
    metavar="REFERENCES",
    help="What replaces an activation: mean, zero, resample[:R] (its value at another position, R draws) or optimal "
    "(the constant with the least mean loss). Several, separated by commas, are a run each, measured at once.",
)
@click.option(
    "--effects",
    default=LOSS,
    show_default=True,
    callback=_names,
    help=f"Effects to measure, separated by commas: {', '.join(EFFECTS)}.",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME|FILE",
    help="Also ablate these neurons together: a group of `analyze` ([PRESET:]NAME), or a JSON, CSV or text file.",
)
@click.option("--attention", is_flag=True, help="Also measure where attention heads look, and what ablating them does.")
@click.option(
    "--attention-layers",
    metavar="A..B",
    help="Layers whose heads are ablated [default: the last two that feed the neurons].",
)
@click.option(
    "--head-ablation",
    type=click.Choice(["zero", "mean", "uniform"]),
    help="What replaces a head's output: 0 [default], its mean, or its output under uniform attention.",
)
@click.option(
    "--tolerance", default=1e-6, show_default=True, help="Largest error per effect in nats, plus 1e-4 of the effect."
)
@click.option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16", "float64"]),
    default="float32",
    show_default=True,
    help="Precision of the model.",
)
@click.option(
    "--offload",
    type=click.Choice(["auto", "never", "always"]),
    default="auto",
    show_default=True,
    help="Keep blocks of a model that do not fit on the device in memory or on disk.",
)
@click.option(
    "--ignore-weights",
    multiple=True,
    metavar="PATTERN",
    help="Go on without tensors of the weight files that the model does not take, by name, for example 'mtp.*'.",
)
@click.option("--allow-pickle", is_flag=True, help="Load pickled weights; they can run code.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")
@click.option(
    "--store",
    type=click.Choice(STORES),
    help="Store the facts in the warehouse [default], or in Parquet files beside it. Moves those of a published run.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Compute in this process, or on Ray workers (a cluster is started here or joined).",
)
@click.option("--ray-address", metavar="HOST:PORT", help="Ray cluster to join [default: RAY_ADDRESS, or none].")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Number of Ray workers [default: one per GPU, or one per node]."
)
@click.option(
    "--parts",
    metavar="PATH_OR_URL",
    help="Folder or URL for unfinished work, any that fsspec knows [default: beside the warehouse].",
)
@click.option("--again", is_flag=True, help="Compute a published run again and replace it.")
@click.option("--dry-run", is_flag=True, help="Try a few positions; print rows, bytes, memory, minutes; write nothing.")
@click.option("--publish-anyway", metavar="REASON", help="Publish a run even if its checks fail; the reason is stored.")
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
        models, trust = given.pop("model"), Trust(allow_pickle, trust_remote_code)
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


def _next(run_ids: list[str]) -> str:
    """What to do with the runs that are there."""
    if len(run_ids) == 1:
        return f"Next: `{command('analyze')} {run_ids[0]}`, then `{command('report')} {run_ids[0]}`."
    return f"Next: `{command('analyze')}`, then `{command('report')}`, or `{command('compare')} RUN RUN`."
