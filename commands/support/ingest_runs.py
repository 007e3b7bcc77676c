"""From what was asked for to published runs: the calls that `ingest` and `demo` make in turn."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rare_tokens import warehouse
from rare_tokens.commands.support.executors import HERE, Spreading
from rare_tokens.commands.support.settings import Settings
from rare_tokens.common.errors import UserError
from rare_tokens.common.parts import attention_folder, groups_folder, parts_root
from rare_tokens.common.progress import working
from rare_tokens.common.version import VERSION

if TYPE_CHECKING:
    from rare_tokens.ingest.attention.measure import AttentionOptions, AttentionRequest
    from rare_tokens.ingest.groups import Group
    from rare_tokens.ingest.run.checkpoints import MissingCheckpoint
    from rare_tokens.ingest.run.executors import Executor
    from rare_tokens.ingest.run.pipeline import Prepared
    from rare_tokens.ingest.run.request import Options, Request
    from rare_tokens.ingest.run.shared_storage import Place


def requested(options: "Options", series: str | None) -> "Iterator[Request | MissingCheckpoint]":
    """The runs asked for: at each --revision, or over a range of checkpoints, the next found while one is computed."""
    from rare_tokens.ingest.run.checkpoints import checkpoints, one_ahead
    from rare_tokens.ingest.run.request import identify

    if series is None:
        return iter(identify(options))
    if options.revisions:
        raise UserError("--revision and --revisions: give one of the two.")
    return one_ahead(checkpoints(options, series))


def ingest_all(
    requests: "Iterator[Request | MissingCheckpoint]",
    settings: Settings,
    again: bool,
    publish_anyway: str | None,
    spelled: tuple[str, ...] = (),
    heads: "AttentionOptions | None" = None,
    store: str | None = None,
    spreading: Spreading = HERE,
) -> list[str]:
    """Compute and publish what is not there yet; returns the ids of the runs asked for."""
    from rare_tokens.analyses.curve.power_law import power_law_line
    from rare_tokens.ingest.groups import check_groups, group_effects
    from rare_tokens.ingest.run.checkpoints import MissingCheckpoint
    from rare_tokens.ingest.run.pipeline import Workbench, execute
    from rare_tokens.ingest.text.matched import NothingToMeasureError

    warehouse.require_writable(settings.warehouse, line=power_law_line, wait=settings.wait)
    workbench = Workbench()
    ids = []
    with ExitStack() as running:
        executor: Executor | None = None  # not started where nothing is to be computed
        for request in requests:
            ids.append(request.run_id)
            if isinstance(request, MissingCheckpoint):
                settings.say(f"{request.run_id} is missing. {request.why}")
                warehouse.record_missing(settings.warehouse, **asdict(request), wait=settings.wait)
                continue
            there = not again and _is_there(request, settings)
            if there and store is not None:
                _keep(request.run_id, store, settings)
            groups = _groups(request, spelled, settings, recomputed=not there)
            attention = _attention(request, heads, settings, recomputed=not there)
            folder = parts_root(settings.warehouse) / request.run_id
            place = spreading.place(folder)
            if there and not groups and not attention:
                warehouse.remove_parts(settings.warehouse, request.run_id, wait=settings.wait)
                _clear(place, folder)
                continue
            executor = executor or running.enter_context(spreading.started(settings))
            request = request if again else _extended(request, settings)
            with warehouse.claim(folder, wait=settings.wait):
                try:
                    with working(f"Prepare {request.run_id}", quiet=settings.quiet):
                        prepared = workbench.prepare(request, whole=bool(attention), units=executor.least_units)
                except NothingToMeasureError as reason:
                    _record_missing(request, settings, str(reason))
                    continue
                check_groups(groups, prepared.structure.neurons)
                if not there:
                    warehouse.begin(settings.warehouse, prepared.manifest, wait=settings.wait)
                    execute(prepared, folder, executor, afresh=again, place=place)
                    with working(f"Check and publish {request.run_id}", quiet=settings.quiet):
                        warehouse.publish(
                            settings.warehouse,
                            folder,
                            line=power_law_line,
                            wait=settings.wait,
                            anyway=publish_anyway,
                            store=store,
                            quiet=settings.quiet,
                        )
                    _clear(place, folder)
                if groups:
                    group_effects(prepared, groups, groups_folder(folder), executor, quiet=settings.quiet)
                    warehouse.add_groups(settings.warehouse, request.run_id, groups_folder(folder), wait=settings.wait)
                    settings.say(f"{request.run_id} has the groups {', '.join(group.name for group in groups)}.")
                for wanted in attention:
                    _add_attention(prepared, wanted, attention_folder(folder), executor, settings)
    return ids


def _clear(place: "Place | None", folder: Path) -> None:
    """Remove what units left elsewhere; what is in the run's own folder goes with that."""
    if place is not None and not place.is_at(folder):
        place.remove()


def _keep(run_id: str, store: str, settings: Settings) -> None:
    """Have the facts of a published run where they are asked for."""
    with working(f"Move the facts of {run_id}", quiet=settings.quiet):
        is_moved = warehouse.keep(settings.warehouse, run_id, store, wait=settings.wait, quiet=settings.quiet)
    if is_moved:
        settings.say(f"The facts of {run_id} are in the {store} store now.")


def _extended(request: "Request", settings: Settings) -> "Request":
    """The request with the effects that its published run has: computed again, it keeps them."""
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        found = opened.dim_run(run_id=request.run_id, status="published")
    if found.is_empty():
        return request
    effects = (*request.options.effects, *found.row(0, named=True)["effects"])
    return replace(request, options=replace(request.options, effects=effects))


def _groups(request: "Request", spelled: tuple[str, ...], settings: Settings, *, recomputed: bool) -> list["Group"]:
    """The groups to ablate at once: those asked for, and where the run is computed again those that it has."""
    from rare_tokens.ingest.groups import Group, groups_due, is_group_file, read_groups

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
    from rare_tokens.ingest.attention.measure import AttentionRequest, attention_due

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
    from rare_tokens.analyses.registry import readers
    from rare_tokens.ingest.attention.measure import measure_attention

    run_id = prepared.manifest.run_id
    groups = warehouse.read(settings.warehouse, run_id, "position_group", wait=settings.wait)
    measure_attention(prepared, groups, folder, wanted, executor)
    warehouse.add_attention(settings.warehouse, run_id, folder, readers=readers("dim_attention"), wait=settings.wait)
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
