"""The command `ingest`: its options, and what a dry run says."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import polars as pl

from rare_tokens.commands.support.chosen_runs import listed_runs
from rare_tokens.commands.support.executors import Spreading
from rare_tokens.commands.support.ingest_runs import ingest_all, requested
from rare_tokens.commands.support.settings import Settings, global_options
from rare_tokens.commands.support.terminal import show
from rare_tokens.common.effects import EFFECTS, LOSS
from rare_tokens.common.progress import working
from rare_tokens.warehouse import STORES

if TYPE_CHECKING:
    from rare_tokens.ingest.attention.measure import AttentionOptions
    from rare_tokens.ingest.run.checkpoints import MissingCheckpoint
    from rare_tokens.ingest.run.request import Request


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


@click.command()
@click.option("--model", required=True, metavar="ID_OR_FOLDER", help="Hub id, or a folder with weights.")
@click.option("--revision", "revisions", multiple=True, metavar="R", help="Branch, tag or step; may be repeated.")
@click.option(
    "--revisions",
    "series",
    metavar="FIRST..LAST[:STRIDE|log]",
    help="A range of checkpoints, as step0..step143000:log; a missing one is recorded and passed over.",
)
@click.option(
    "--corpus",
    multiple=True,
    metavar="[LABEL=]SOURCE",
    help="c4 [default], builtin or a path, labelled with its domain or not; repeatable.",
)
@click.option("--frequencies", default="corpus", show_default=True, help="`corpus`, or a .npy of counts by token id.")
@click.option(
    "--contexts",
    type=click.Choice(["sample", "nc-matched"]),
    default="sample",
    show_default=True,
    help="Which positions: a sample of the text, or pairs of rare and common tokens searched for in it.",
)
@click.option("--tokens", default=25_088, show_default=True, help="Sampled positions, T; matched ones at most.")
@click.option("--window", default=256, show_default=True, help="Predicted positions of a window.")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--begin-token", is_flag=True, help="Start each window with the begin token.")
@click.option("--layer", default=-1, show_default=True, help="Layer of the neurons, from 0; negative: from the last.")
@click.option(
    "--edit-scope",
    type=click.Choice(["window", "position"]),
    default="window",
    show_default=True,
    help="Below the last layer, replace a neuron at every position of the window, or at one at a time.",
)
@click.option("--ablation", type=click.Choice(["mean", "zero"]), default="mean", show_default=True)
@click.option(
    "--effects",
    default=LOSS,
    show_default=True,
    callback=_names,
    help=f"Of {', '.join(EFFECTS)}; with commas.",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME|FILE",
    help="Ablate these neurons at once too: [PRESET:]NAME of `analyze`'s groups, or a JSON, CSV or text file.",
)
@click.option("--attention", is_flag=True, help="Also where attention looks, and what ablating its heads does.")
@click.option(
    "--attention-layers",
    metavar="A..B",
    help="Layers whose heads are ablated [default: the last two upstream of the neurons].",
)
@click.option(
    "--head-ablation",
    type=click.Choice(["zero", "mean", "uniform"]),
    help="What replaces a head's output: 0 [default], its mean, or that of even attention.",
)
@click.option("--tolerance", default=1e-6, show_default=True, help="Largest error in nats, beside 1e-4 of an effect.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16", "float64"]), default="float32", show_default=True
)
@click.option(
    "--offload",
    type=click.Choice(["auto", "never", "always"]),
    default="auto",
    show_default=True,
    help="Let blocks of a model that the device does not hold wait in memory or on disk.",
)
@click.option("--allow-pickle", is_flag=True, help="Load pickled weights, which can run code.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")
@click.option(
    "--store",
    type=click.Choice(STORES),
    help="Where the facts go: into the warehouse [default], or into Parquet files beside it; moves those of a run.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who computes: this process, or workers of a Ray that is started here or joined.",
)
@click.option("--ray-address", metavar="HOST:PORT", help="Cluster to join [default: RAY_ADDRESS, else none].")
@click.option("--workers", type=click.IntRange(min=1), help="Ray workers [default: one a GPU, else one a node].")
@click.option(
    "--parts",
    metavar="PATH_OR_URL",
    help="Where units leave their parts, any path that fsspec knows [default: beside the warehouse].",
)
@click.option("--again", is_flag=True, help="Compute a published run again and replace it.")
@click.option("--dry-run", is_flag=True, help="Rows, bytes, memory and minutes; nothing is written.")
@click.option("--publish-anyway", metavar="REASON", help="Publish a run that fails its checks; the reason is stored.")
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

    The effects are checked and published as a run. Asked again, a run is resumed, found done, or extended.
    """
    with working("Find the model and the text", quiet=settings.quiet):
        from rare_tokens.ingest.attention.measure import AttentionOptions
        from rare_tokens.ingest.model.locate import Trust
        from rare_tokens.ingest.run.request import Options

        spreading = Spreading(executor, ray_address, workers, parts)
        heads = AttentionOptions(attention, attention_layers, head_ablation)
        given["corpus"] = given["corpus"] or ("c4",)
        options = Options(**given, trust=Trust(allow_pickle, trust_remote_code))
        requests = requested(options, series)
    if dry_run:
        _show_estimates(requests, heads, settings)
        return
    published = ingest_all(requests, settings, again, publish_anyway, groups, heads, store, spreading)
    show(listed_runs(settings, published), settings.form)


def _show_estimates(
    requests: "Iterator[Request | MissingCheckpoint]", heads: "AttentionOptions", settings: Settings
) -> None:
    from rare_tokens.ingest.estimate import UNKNOWN, estimate
    from rare_tokens.ingest.run.checkpoints import MissingCheckpoint

    there = [request for request in requests if not isinstance(request, MissingCheckpoint)]
    estimates = [estimate(request, heads.request(int(request.config.num_hidden_layers))) for request in there]
    show(pl.DataFrame([asdict(one) for one in estimates]), settings.form)
    for one in estimates:
        if one.path == UNKNOWN:
            settings.say(
                f"{one.run_id}: whether the dense path is needed cannot be told without the weights. The figures are "
                "those of the dense path, the most it can take; the ingest says which it is before it starts."
            )
