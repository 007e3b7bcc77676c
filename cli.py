"""The front door: `python cli.py COMMAND`, or `rare-tokens COMMAND` once installed.

The only module that sees all layers. A command parses, makes a short sequence of calls, prints.
Torch and its kin are imported by the commands that need them, so that `runs` and `sql` answer at once.
"""

import os
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import polars as pl

import warehouse
from common.errors import QualityError, UserError
from common.parts import EFFECT_COLUMNS, attention_folder, groups_folder, parts_root
from common.progress import progress
from common.settings import Settings, global_options, group_options, program, run
from common.terminal import FORMATS, show
from common.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analyses.registry import Source
    from analyses.report import ReportInputs
    from ingest.attention import AttentionOptions, AttentionRequest
    from ingest.executors import Executor
    from ingest.grouped import Group
    from ingest.pipeline import Prepared
    from ingest.request import Options, Request
    from ingest.revisions import MissingCheckpoint

# Threads that wait by spinning make a shared machine ten times slower; torch reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPORT_FOLDER = "rare_tokens_report"
QUALITY_FOLDER = "rare_tokens_quality"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="rare-tokens")
@group_options
def cli() -> None:
    """Which single neurons of a language model carry its rare words, and how?

    One ingest writes the effect of ablating every neuron of the last MLP at every sampled token; everything after
    that is a query.
    """


# --- ingest ---------------------------------------------------------------------------------------------------------


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


@cli.command()
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
    default="loss",
    show_default=True,
    callback=_names,
    help=f"Of {', '.join(EFFECT_COLUMNS)}; with commas.",
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
@click.option("--allow-pickle", is_flag=True, help="Load pickled weights, which can run code.")
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")
@click.option("--again", is_flag=True, help="Compute a published run again and replace it.")
@click.option("--dry-run", is_flag=True, help="Rows, bytes, memory and minutes; nothing is written.")
@click.option("--publish-anyway", metavar="REASON", help="Publish a run that fails its checks; the reason is stored.")
@global_options
def ingest(
    settings: Settings,
    again: bool,
    dry_run: bool,
    publish_anyway: str | None,
    groups: tuple[str, ...],
    attention: bool,
    attention_layers: str | None,
    head_ablation: str | None,
    series: str | None,
    allow_pickle: bool,
    trust_remote_code: bool,
    **given: Any,
) -> None:
    """Ablate every neuron of a model's last MLP, or of another layer's.

    The effects are checked and published as a run. Asked again, a run is resumed, found done, or extended.
    """
    from ingest.attention import AttentionOptions
    from ingest.models import Trust
    from ingest.request import Options

    heads = AttentionOptions(attention, attention_layers, head_ablation)
    given["corpus"] = given["corpus"] or ("c4",)
    options = Options(**given, trust=Trust(allow_pickle, trust_remote_code))
    requests = _requests(options, series)
    if dry_run:
        _show_estimates(requests, heads, settings)
        return
    published = _ingest(requests, settings, again, publish_anyway, groups, heads)
    show(_runs(settings, published), settings.form)


def _requests(options: "Options", series: str | None) -> "Iterator[Request | MissingCheckpoint]":
    """The runs asked for: at each --revision, or over a range of checkpoints, the next found while one is computed."""
    from ingest.request import identify
    from ingest.revisions import checkpoints, one_ahead

    if series is None:
        return iter(identify(options))
    if options.revisions:
        raise UserError("--revision and --revisions: give one of the two.")
    return one_ahead(checkpoints(options, series))


def _show_estimates(
    requests: "Iterator[Request | MissingCheckpoint]", heads: "AttentionOptions", settings: Settings
) -> None:
    from ingest.estimate import estimate
    from ingest.revisions import MissingCheckpoint

    there = [request for request in requests if not isinstance(request, MissingCheckpoint)]
    estimates = [estimate(request, heads.request(int(request.config.num_hidden_layers))) for request in there]
    show(pl.DataFrame([asdict(one) for one in estimates]), settings.form)


def _ingest(
    requests: "Iterator[Request | MissingCheckpoint]",
    settings: Settings,
    again: bool,
    publish_anyway: str | None,
    spelled: tuple[str, ...] = (),
    heads: "AttentionOptions | None" = None,
) -> list[str]:
    """Compute and publish what is not there yet; returns the ids of the runs asked for."""
    from ingest.contexts import NothingToMeasureError
    from ingest.executors import LocalExecutor
    from ingest.grouped import check_groups, group_effects
    from ingest.pipeline import Workbench, execute
    from ingest.revisions import MissingCheckpoint

    warehouse.require_writable(settings.warehouse, wait=settings.wait)
    workbench, executor = Workbench(), LocalExecutor(quiet=settings.quiet)
    ids = []
    for request in requests:
        ids.append(request.run_id)
        if isinstance(request, MissingCheckpoint):
            settings.say(f"{request.run_id} is missing. {request.why}")
            warehouse.record_missing(settings.warehouse, **asdict(request), wait=settings.wait)
            continue
        there = not again and _is_there(request, settings)
        groups = _groups(request, spelled, settings, recomputed=not there)
        attention = _attention(request, heads, settings, recomputed=not there)
        if there and not groups and not attention:
            warehouse.remove_parts(settings.warehouse, request.run_id, wait=settings.wait)
            continue
        folder = parts_root(settings.warehouse) / request.run_id
        request = request if again else _extended(request, settings)
        with warehouse.claim(folder, wait=settings.wait):
            try:
                prepared = workbench.prepare(request)
            except NothingToMeasureError as reason:
                _record_missing(request, settings, str(reason))
                continue
            check_groups(groups, prepared.structure.neurons)
            if not there:
                warehouse.begin(settings.warehouse, prepared.manifest, wait=settings.wait)
                execute(prepared, folder, executor, afresh=again)
                warehouse.publish(
                    settings.warehouse, folder, wait=settings.wait, anyway=publish_anyway, quiet=settings.quiet
                )
            if groups:
                group_effects(prepared, groups, groups_folder(folder), executor, quiet=settings.quiet)
                warehouse.add_groups(settings.warehouse, request.run_id, groups_folder(folder), wait=settings.wait)
                settings.say(f"{request.run_id} has the groups {', '.join(group.name for group in groups)}.")
            for wanted in attention:
                _add_attention(prepared, wanted, attention_folder(folder), executor, settings)
    return ids


def _extended(request: "Request", settings: Settings) -> "Request":
    """The request with the effects that its published run has: computed again, it keeps them."""
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        found = opened.dim_run(run_id=request.run_id, status="published")
    if found.is_empty():
        return request
    effects = {*request.options.effects, *found.row(0, named=True)["effects"]}
    names = tuple(name for name in EFFECT_COLUMNS if name in effects)
    return replace(request, options=replace(request.options, effects=names))


def _groups(request: "Request", spelled: tuple[str, ...], settings: Settings, *, recomputed: bool) -> list["Group"]:
    """The groups to ablate at once: those asked for, and where the run is computed again those that it has."""
    from ingest.grouped import Group, groups_due, is_group_file, read_groups

    asked: list[Group] = []
    for text in spelled:
        if is_group_file(text):
            asked += read_groups(text)
        else:
            found = warehouse.analysed_group(settings.warehouse, request.run_id, text, wait=settings.wait)
            asked.append(Group(found.name, found.neurons, found.source))
    known = warehouse.stored_groups(settings.warehouse, request.run_id, wait=settings.wait)
    stored = [Group(found.name, found.neurons, found.source) for found in known]
    return groups_due(asked, stored, recomputed=recomputed)


def _attention(
    request: "Request", heads: "AttentionOptions | None", settings: Settings, *, recomputed: bool
) -> list["AttentionRequest"]:
    """The attention to measure: what is asked for, and where the run is computed again what it has."""
    from ingest.attention import AttentionRequest, attention_due

    known = warehouse.stored_attention(settings.warehouse, request.run_id, wait=settings.wait)
    stored = [AttentionRequest(found.layers, found.head_ablation) for found in known]
    asked = None if heads is None else heads.request(int(request.config.num_hidden_layers))
    if asked is not None:
        warehouse.require_same_model(settings.warehouse, request.run_id, request.identity, wait=settings.wait)
    due = attention_due(asked, stored, recomputed=recomputed)
    if asked is not None and not due:
        settings.say(f"{request.run_id} has that attention already.")
    return due


def _add_attention(
    prepared: "Prepared", wanted: "AttentionRequest", folder: Path, executor: "Executor", settings: Settings
) -> None:
    from ingest.attention import measure_attention

    run_id = prepared.manifest.run_id
    groups = warehouse.read(settings.warehouse, run_id, "position_group", wait=settings.wait)
    measure_attention(prepared, groups, folder, wanted, executor)
    warehouse.add_attention(settings.warehouse, run_id, folder, wait=settings.wait)
    settings.say(f"{run_id} has attention now, heads ablated by {wanted.ablation}. `analyze` says what it shows.")


def _record_missing(request: "Request", settings: Settings, why: str) -> None:
    """Store that there is no position to measure at, and why: the run's token groups are empty with this reason."""
    settings.say(f"{request.run_id}: nothing to measure. {why}")
    warehouse.record_missing(
        settings.warehouse, run_id=request.run_id, model=request.folder.name, revision=request.folder.revision,
        contexts=request.options.contexts, why=why, wait=settings.wait,
    )  # fmt: skip


def _is_there(request: "Request", settings: Settings) -> bool:
    """Whether a published run already answers the request; says so, and says what would change it."""
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        found = opened.dim_run(run_id=request.run_id, status="published")
    if found.is_empty():
        return False
    run_row = found.row(0, named=True)
    missing = set(request.options.effects) - set(run_row["effects"])
    if missing or request.options.tolerance < run_row["tolerance"]:
        return False
    settings.say(f"{request.run_id} is already published.")
    if run_row["code_version"] != VERSION:
        settings.say(f"It was computed by version {run_row['code_version']}; --again computes it with {VERSION}.")
    return True


# --- reading --------------------------------------------------------------------------------------------------------

_RUN_COLUMNS = ("run_id", "status", "model", "revision", "layer", "positions", "neurons", "corpus", "created_at")


def _runs(settings: Settings, wanted: list[str] | None = None) -> pl.DataFrame:
    found = warehouse.runs(settings.warehouse, wait=settings.wait)
    found = found if wanted is None else found.filter(pl.col("run_id").is_in(wanted))
    return found if settings.json else found.select(_RUN_COLUMNS)


@cli.command()
@global_options
def runs(settings: Settings) -> None:
    """List the runs and how far each got.

    With --json everything that is known of them.
    """
    found = _runs(settings)
    if found.is_empty():
        settings.say(f"{settings.warehouse} holds no runs yet. `ingest --model gpt2` makes one, `demo` several.")
    show(found, settings.form)


@cli.command()
@click.argument("name", required=False)
@global_options
def tables(settings: Settings, name: str | None) -> None:
    """List the relations, or describe one.

    With NAME its columns, their types and what they mean.
    """
    found = warehouse.tables(settings.warehouse, name, wait=settings.wait)
    if name is None:
        rows = [{"name": one.name, "rows": one.rows, "kind": one.kind, "one row per": one.grain} for one in found]
        show(pl.DataFrame(rows), settings.form)
        return
    if not settings.json:
        settings.say(f"{found[0].name}: {found[0].summary}")
    show(pl.DataFrame([asdict(column) for column in found[0].columns]), settings.form)


@cli.command()
@click.argument("query", metavar="SQL|FILE.sql|-")
@click.option("--format", "form", type=click.Choice(FORMATS), help="How to print the rows [default: table].")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds after which the query is stopped.")
@global_options
def sql(settings: Settings, query: str, form: str | None, timeout: float) -> None:
    """Run one query, read-only.

    The query is the text itself, a path ending in .sql, or `-` for stdin.
    """
    rows = warehouse.run_sql(settings.warehouse, _query_text(query), timeout, wait=settings.wait)
    show(rows, form or settings.form)


def _query_text(query: str) -> str:
    try:
        if query == "-":
            return sys.stdin.read()
        if query.endswith(".sql"):
            return Path(query).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{query}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{query}: is not UTF-8 text.") from error
    return query


# --- analyses -------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("wanted", nargs=-1, metavar="[RUN]...")
@click.option(
    "--positions",
    multiple=True,
    type=click.Choice(["rare", "common", "all"]),
    default=("rare",),
    show_default=True,
    help="Where coordination is measured; repeatable, and added to what is stored.",
)
@click.option("--again", is_flag=True, help="Compute what is stored again and replace it.")
@global_options
def analyze(settings: Settings, wanted: tuple[str, ...], positions: tuple[str, ...], again: bool) -> None:
    """Compute and store the analyses that runs lack.

    Of all runs, or those named: regimes, intervals, groups, geometry, graphs, spectra and tests. Asked again, it does
    nothing for a run that has them all.
    """
    from analyses.reference import published_values

    chosen = _published_runs(settings, wanted)
    warehouse.store_published_values(settings.warehouse, published_values(), wait=settings.wait)
    done = _analyze_all(chosen, settings, positions, again)
    if done or settings.json:
        show(pl.DataFrame(done), settings.form)
    if not done:
        settings.say(f"Every analysis of {len(chosen)} runs is stored already; --again computes them anew.")


def _analyze_all(
    chosen: pl.DataFrame, settings: Settings, positions: tuple[str, ...] = ("rare",), again: bool = False
) -> list[dict[str, Any]]:
    """Compute and store what the chosen runs and their series lack; returns a row per analysis."""
    done = [row for run_row in chosen.iter_rows(named=True) for row in _analyze(run_row, settings, positions, again)]
    return done + _analyze_series(chosen["run_id"].to_list(), settings, again)


def _analyze(
    run_row: dict[str, Any], settings: Settings, positions: tuple[str, ...], again: bool
) -> list[dict[str, Any]]:
    """Compute and store what one run lacks; returns a row per analysis that was computed."""
    from analyses.registry import due, processes

    run_id = run_row["run_id"]
    known = warehouse.stored(settings.warehouse, run_id, wait=settings.wait)
    parameters = {name: found.parameters for name, found in known.items()}
    missing = due(parameters, positions=positions, again=again)
    kept = [name for name in known if name not in {analysis.name for analysis in missing}]
    if old := sorted({known[name].code_version for name in kept} - {VERSION}):
        settings.say(f"{run_id} was analysed by version {', '.join(old)}; --again computes it with {VERSION}.")
    ask = cache(partial(_ask, settings, run_id))
    done = []
    with (
        processes(missing, run_row["positions"] * run_row["neurons"]) as pool,
        progress(f"Analyse {run_id}", len(missing), "analyses", quiet=settings.quiet) as advance,
    ):
        for analysis in missing:
            start = time.perf_counter()
            frames = analysis.compute(ask, analysis.parameters, pool)
            row = {"run_id": run_id, "analysis": analysis.name, "seconds": round(time.perf_counter() - start, 2)}
            rows = warehouse.store(
                settings.warehouse, run_id, analysis.name, frames, parameters=analysis.parameters,
                code_version=VERSION, seconds=row["seconds"], published_at=run_row["published_at"], wait=settings.wait,
            )  # fmt: skip
            done.append(row | {"rows": rows})
            advance()
    return done


def _analyze_series(chosen: list[str], settings: Settings, again: bool) -> list[dict[str, Any]]:
    """Follow the series that the chosen runs belong to; returns a row per run that something was stored of."""
    from analyses.training import NAME, every_series, parameters, training

    done = []
    known = warehouse.runs(settings.warehouse, wait=settings.wait)
    for members in every_series(known.filter(pl.col("status").is_in(["published", "missing"]))):
        with_effects = members.filter(pl.col("status") == "published")
        ids, given = with_effects["run_id"].to_list(), parameters(members)
        stored = {run_id: warehouse.stored(settings.warehouse, run_id, wait=settings.wait) for run_id in ids}
        if not set(ids) & set(chosen) or any("influence_interval" not in found for found in stored.values()):
            continue
        if not again and all(NAME in found and found[NAME].parameters == given for found in stored.values()):
            continue
        start = time.perf_counter()
        frame = training({run_id: cache(partial(_ask, settings, run_id)) for run_id in ids}, members)
        seconds = round((time.perf_counter() - start) / len(ids), 2)
        for run_row in with_effects.iter_rows(named=True):
            of_run = frame.filter(pl.col("run_id") == run_row["run_id"]).drop("run_id")
            rows = warehouse.store(
                settings.warehouse, run_row["run_id"], NAME, {NAME: of_run}, parameters=given, code_version=VERSION,
                seconds=seconds, published_at=run_row["published_at"], wait=settings.wait,
            )  # fmt: skip
            done.append({"run_id": run_row["run_id"], "analysis": NAME, "seconds": seconds, "rows": rows})
    return done


def _ask(settings: Settings, run_id: str, source: "Source") -> Any:
    """What an analysis reads of a run."""
    from analyses.registry import ACTIVATIONS

    path, wait = settings.warehouse, settings.wait
    key = {"preset": source.preset, "token_group": source.token_group}
    if source.relation == ACTIVATIONS:
        return warehouse.activations(path, run_id, **key, wait=wait)
    return warehouse.read(path, run_id, source.relation, **key, columns=source.columns, wait=wait)


# --- report ---------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("wanted", nargs=-1, metavar="[RUN]...")
@click.option("--out", default=REPORT_FOLDER, show_default=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--no-analyze", is_flag=True, help="Show what is stored; compute nothing that is missing.")
@global_options
def report(settings: Settings, wanted: tuple[str, ...], out: Path, no_analyze: bool) -> None:
    """Write the report page.

    Of all published runs, or of those named: index.html, its numbers as report.json, its tables and figures. What
    `analyze` would compute and is missing is computed first.
    """
    from analyses.report import require_writable

    chosen = _published_runs(settings, wanted)
    require_writable(out)
    if not no_analyze:
        _analyze_all(chosen, settings)
    index = _report(settings, wanted, out)
    show(pl.DataFrame({"report": [str(index)]}), "json") if settings.json else click.echo(index)


def _report(settings: Settings, wanted: tuple[str, ...], out: Path) -> Path:
    from analyses.report import write_report

    inputs = _report_inputs(settings, wanted)
    if without := sorted(set(inputs.runs["run_id"]) - set(inputs.decisions["run_id"])):
        settings.say(f"Without intervals and decisions for {', '.join(without)}: `analyze` computes them.")
    return write_report(inputs, out)


def _report_inputs(settings: Settings, wanted: tuple[str, ...]) -> "ReportInputs":
    """Everything that a page on the wanted runs shows."""
    from analyses.coactivation import COACTIVATION, coactivation, compared_runs
    from analyses.reference import published_values
    from analyses.report import CARD_PRESET, ReportInputs, card_neurons

    path, wait = settings.warehouse, settings.wait
    chosen = _published_runs(settings, wanted)
    frames = warehouse.report_frames(path, chosen["run_id"].to_list(), wait=wait)
    frames |= warehouse.card_frames(path, card_neurons(chosen, frames["influence"]), wait=wait)
    together = [
        coactivation(pl.concat([_group_activity(settings, run_id, CARD_PRESET) for run_id in runs]))
        for runs in warehouse.same_positions(path, compared_runs(chosen), wait=wait)
    ]
    return ReportInputs(
        runs=chosen,
        **frames,
        coactivation=pl.concat([pl.DataFrame(schema=COACTIVATION), *together]),
        published=published_values(),
        command=" ".join([program(), "report", *wanted]),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _group_activity(settings: Settings, run_id: str, preset: str) -> pl.DataFrame:
    """How active the groups of a run's neurons are at each of its rare positions."""
    from analyses.cells import RARE
    from analyses.coactivation import group_activity

    path, wait = settings.warehouse, settings.wait
    read = partial(warehouse.read, path, run_id, wait=wait)
    rare = read("position_group", preset=preset, token_group=RARE, columns=("position_id",))
    windows = read("dim_position", columns=("position_id", "window_id"))
    values, _ = warehouse.activations(path, run_id, preset=preset, token_group=RARE, wait=wait)
    positions = rare.join(windows, on="position_id", maintain_order="left")
    return group_activity(run_id, preset, values, positions, read("neuron_group", preset=preset, token_group=RARE))


def _published_runs(settings: Settings, wanted: tuple[str, ...]) -> pl.DataFrame:
    """The published runs, or those named, of which every one must be published (`dim_run`)."""
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        chosen = opened.dim_run(run=list(wanted)) if wanted else opened.dim_run(status="published")
    if chosen.is_empty():
        raise UserError(f"{settings.warehouse} holds no published run to report on. `ingest --model gpt2` makes one.")
    for run_row in chosen.filter(pl.col("status") != "published").iter_rows(named=True):
        why = f" ({run_row['status_reason']})" if run_row["status_reason"] else ""
        raise UserError(f"Run {run_row['run_id']} is {run_row['status']}{why}: there is nothing to report on it.")
    return chosen


# --- quality --------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("wanted", nargs=-1, metavar="[RUN]...")
@click.option("--explain", is_flag=True, help="Every expectation with what was observed and what is expected.")
@click.option("--out", default=QUALITY_FOLDER, show_default=True, type=click.Path(path_type=Path, file_okay=False))
@global_options
def check(settings: Settings, wanted: tuple[str, ...], explain: bool, out: Path) -> None:
    """Check the data of runs.

    Of all runs, the refused ones too, or those named, with Great Expectations: results go to quality_result, its pages
    to a folder. Ends with 3 where a run fails.
    """
    checked, page = warehouse.check(settings.warehouse, wanted, out, wait=settings.wait)
    rows = [row for run in checked for row in (run.explained() if explain else [run.summary()])]
    show(pl.DataFrame(rows), settings.form)
    settings.say(f"Pages: {page}")
    if failing := [f"{run.run_id}: {'; '.join(map(str, run.failed))}" for run in checked if run.failed]:
        raise QualityError(f"{len(failing)} of {len(checked)} runs fail their checks. {' | '.join(failing)}.")


# --- housekeeping ---------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@global_options
def export(settings: Settings, folder: Path) -> None:
    """Write every relation as Parquet to a FOLDER."""
    rows = warehouse.export(settings.warehouse, folder, wait=settings.wait)
    show(pl.DataFrame({"relation": list(rows), "rows": list(rows.values())}), settings.form)


@cli.command()
@click.argument("run_id", metavar="RUN")
@global_options
def delete(settings: Settings, run_id: str) -> None:
    """Remove a run and what only it uses."""
    settings.say(f"{warehouse.delete(settings.warehouse, run_id, wait=settings.wait)} is removed.")


@cli.command()
@global_options
def migrate(settings: Settings) -> None:
    """Bring the warehouse to this schema."""
    _require_file(settings)
    applied = warehouse.migrate(settings.warehouse, wait=settings.wait)
    settings.say(f"Applied {', '.join(applied)}." if applied else "The warehouse is up to date.")


@cli.command()
@global_options
def vacuum(settings: Settings) -> None:
    """Give deleted runs' space back."""
    _require_file(settings)
    space = warehouse.vacuum(settings.warehouse, wait=settings.wait)
    settings.say(f"{space.before / 1e6:.1f} MB before, {space.after / 1e6:.1f} MB after.")


def _require_file(settings: Settings) -> None:
    if not settings.warehouse.exists():
        raise UserError(f"There is no warehouse {settings.warehouse}. Name another with --warehouse.")


# --- demo -----------------------------------------------------------------------------------------------------------

DEMO_TOKENS = 4_096


@cli.command()
@click.option("--out", default=REPORT_FOLDER, show_default=True, type=click.Path(path_type=Path, file_okay=False))
@global_options
def demo(settings: Settings, out: Path) -> None:
    """Show the whole story, offline.

    Ingests the checkpoints of the embedded model on the built-in text, queries them, writes the report.
    """
    from ingest.embedded import FREQUENCIES, MODEL_FOLDER, REVISIONS
    from ingest.request import Options

    options = Options(
        str(MODEL_FOLDER),
        revisions=REVISIONS,
        corpus=("builtin",),
        frequencies=str(FREQUENCIES),
        tokens=DEMO_TOKENS,
    )
    published = _ingest(_requests(options, None), settings, again=False, publish_anyway=None)
    index = _report(settings, tuple(published), out)
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        show(opened.sql(DEMO_QUERY, run=published[-1]), settings.form, title=f"Rare tokens in {published[-1]}")
    click.echo(f"Report: {index}", err=settings.json)


DEMO_QUERY = """
select rank, neuron, role, influence, mean_delta_loss, deviation, regime
from neuron_influence
join neuron_deviation using (run_id, preset, token_group, neuron, rank)
where run_id = $run and preset = 'es' and token_group = 'rare' and rank <= 10
order by rank
"""


def main() -> None:
    """Run the command line; the console script `rare-tokens`."""
    run(cli)


if __name__ == "__main__":
    main()
