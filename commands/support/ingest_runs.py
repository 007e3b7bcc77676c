"""From requests to published runs: what `ingest` and `demo` call, in order."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rare_tokens import warehouse
from rare_tokens.commands.support.executors import HERE, Spreading
from rare_tokens.commands.support.ingested import Ingested
from rare_tokens.commands.support.recorded import forget_gaps, record_failure, record_gap, record_nothing, recorded_twin
from rare_tokens.commands.support.requests import Requests
from rare_tokens.commands.support.settings import Settings, known_warnings
from rare_tokens.common.errors import OptionError, QualityError, UserError
from rare_tokens.common.parts import attention_folder, groups_folder, parts_root, read_manifest
from rare_tokens.common.program import command
from rare_tokens.common.progress import is_shown, working
from rare_tokens.common.version import VERSION

if TYPE_CHECKING:
    from rare_tokens.ingest.attention.measure import AttentionOptions, AttentionRequest
    from rare_tokens.ingest.groups import Group
    from rare_tokens.ingest.run.executors import Executor
    from rare_tokens.ingest.run.pipeline import Prepared
    from rare_tokens.ingest.run.request import Request
    from rare_tokens.ingest.run.shared_storage import Place


@dataclass(frozen=True)
class Asked:
    """What a command asks for besides the runs themselves.

    Attributes:
        again: compute published runs again.
        publish_anyway: the reason to publish a run that fails its checks; None: refuse it.
        groups: groups to ablate at once, as given to `--group`.
        attention: what to measure of attention; None: nothing.
        store: where the facts go; None: where they are already, else into the warehouse.
        spreading: who computes.
    """

    again: bool = False
    publish_anyway: str | None = None
    groups: tuple[str, ...] = ()
    attention: "AttentionOptions | None" = None
    store: str | None = None
    spreading: Spreading = HERE


def ingest_all(requests: Requests, settings: Settings, asked: Asked | None = None) -> Ingested:
    """Compute and publish what is not there yet; of several runs, one that fails is recorded and passed over.

    Raises:
        RareTokensError: the only run fails, or what would fail every run of the only model.
    """
    from rare_tokens.analyses.curve.power_law import power_law_line
    from rare_tokens.ingest.run.checkpoints import Gap

    warehouse.require_writable(settings.warehouse, line=power_law_line, wait=settings.wait)
    ingested = Ingested()
    with ExitStack() as running:
        ingest = _Ingest(settings, asked or Asked(), running)
        for several in requests.together():
            if isinstance(several, Gap):
                ingested.run_ids.append(several.run_id)
                record_gap(several, settings)
                if several.is_failure:
                    ingested.fail(several.run_id, UserError(several.why))
                continue
            ingested.run_ids += [one.run_id for one in several]
            try:
                ingest.answer(several)
            except (UserError, QualityError) as error:
                is_of_all = isinstance(error, OptionError) and requests.is_of_one_model
                if is_of_all or not requests.goes_on:
                    raise
                for one in several:
                    record_failure(one, error, settings)
                    ingested.fail(one.run_id, error)
        ingested.new = ingest.published
    return ingested


class _Ingest:
    """Answers the requests of one command, one after the other."""

    def __init__(self, settings: Settings, asked: Asked, running: ExitStack) -> None:
        """Executors that are started end with `running`."""
        from rare_tokens.ingest.run.pipeline import Workbench

        self.settings, self.asked, self.running = settings, asked, running
        self.workbench = Workbench()
        self.published: list[str] = []
        self._executor: Executor | None = None  # not started where nothing is to be computed

    def answer(self, several: "Sequence[Request]") -> None:
        """Compute, extend or keep the runs that requests ask for, or record whose twins they are.

        They differ in their reference alone: those that are not there yet are measured together.
        """
        settings, asked = self.settings, self.asked
        there = {one.run_id: not asked.again and _is_there(one, settings) for one in several}
        new = [one for one in several if not there[one.run_id] and recorded_twin(one, settings) is None]
        if new:
            self._measure(new)
        for request in several:
            if there[request.run_id]:
                self._extend(request)
            forget_gaps(request, settings)

    def _measure(self, several: "list[Request]") -> None:
        """Compute and publish runs, with the groups and the attention that are asked for."""
        settings, asked = self.settings, self.asked
        added = [
            (
                _groups(one, asked.groups, settings, recomputed=True),
                _attention(one, asked.attention, settings, recomputed=True),
            )
            for one in several
        ]
        folders = [parts_root(settings.warehouse) / one.run_id for one in several]
        executor = self._started()
        if not asked.again:
            several = _extended(several, settings)
        with ExitStack() as claimed:
            for folder in folders:
                claimed.enter_context(warehouse.claim(folder, wait=settings.wait))
            is_whole = any(attention for _, attention in added)
            if (prepared := self._prepared(several, executor, whole=is_whole)) is None:
                return
            for groups, _ in added:
                _check_groups(groups, prepared)
            self._publish(several[0], prepared, folders, executor)
            for manifest, folder, (groups, attention) in zip(prepared.manifests, folders, added, strict=True):
                one = replace(prepared, manifest=manifest, others=())
                self._add(one, folder, groups, attention, executor)

    def _extend(self, request: "Request") -> None:
        """Add what is asked for to a published run, and move its facts."""
        settings, asked = self.settings, self.asked
        if asked.store is not None:
            _keep(request.run_id, asked.store, settings)
        groups = _groups(request, asked.groups, settings, recomputed=False)
        attention = _attention(request, asked.attention, settings, recomputed=False)
        folder = parts_root(settings.warehouse) / request.run_id
        if not groups and not attention:
            warehouse.remove_parts(settings.warehouse, request.run_id, wait=settings.wait)
            for one in (folder, groups_folder(folder), attention_folder(folder)):
                _clear(asked.spreading.place(one), one)
            return
        executor = self._started()
        with warehouse.claim(folder, wait=settings.wait):
            prepared = self._prepared(_extended([request], settings), executor, whole=bool(attention))
            if prepared is not None:
                _check_groups(groups, prepared)
                self._add(prepared, folder, groups, attention, executor)

    def _add(
        self,
        prepared: "Prepared",
        folder: Path,
        groups: list["Group"],
        attention: list["AttentionRequest"],
        executor: "Executor",
    ) -> None:
        if groups:
            self._add_groups(prepared, groups, groups_folder(folder), executor)
        for wanted in attention:
            self._add_attention(prepared, wanted, attention_folder(folder), executor)

    def _started(self) -> "Executor":
        self._executor = self._executor or self.running.enter_context(self.asked.spreading.started(self.settings))
        return self._executor

    def _prepared(self, several: "Sequence[Request]", executor: "Executor", *, whole: bool) -> "Prepared | None":
        """The runs, ready to begin; None if there is nothing to measure, with the reason recorded."""
        from rare_tokens.ingest.text.matched import NothingToMeasureError

        first, *others = (replace(one, together=len(several)) for one in several)
        try:
            names = [one.run_id for one in several]
            root = parts_root(self.settings.warehouse)
            resumes = not self.asked.again and all(read_manifest(root / name) is not None for name in names)
            with (
                working(f"Prepare {' and '.join(names)}", quiet=self.settings.quiet),
                known_warnings(are_known=resumes),
            ):
                return self.workbench.prepare(first, *others, whole=whole, units=executor.least_units)
        except NothingToMeasureError as reason:
            for one in several:
                record_nothing(one, self.settings, str(reason))
            return None

    def _publish(self, request: "Request", prepared: "Prepared", folders: list[Path], executor: "Executor") -> None:
        from rare_tokens.analyses.curve.power_law import power_law_line
        from rare_tokens.ingest.run.execution import execute

        settings, place = self.settings, self.asked.spreading.place(folders[0])
        for manifest in prepared.manifests:
            warehouse.begin(settings.warehouse, manifest, wait=settings.wait)
        seconds = self._expected(request, prepared)
        execute(prepared, folders[0], executor, afresh=self.asked.again, place=place, expected=seconds)
        title = f"Check and publish {' and '.join(manifest.run_id for manifest in prepared.manifests)}"
        with working(title, quiet=settings.quiet, expected=seconds.get("publish")):
            warehouse.publish_together(
                settings.warehouse,
                folders,
                line=power_law_line,
                wait=settings.wait,
                anyway=self.asked.publish_anyway,
                store=self.asked.store,
                quiet=settings.quiet,
            )
        self.published += [manifest.run_id for manifest in prepared.manifests]
        _clear(place, folders[0])

    def _add_groups(self, prepared: "Prepared", groups: list["Group"], folder: Path, executor: "Executor") -> None:
        from rare_tokens.ingest.groups import group_effects

        settings, run_id = self.settings, prepared.manifest.run_id
        place = self.asked.spreading.place(folder)
        group_effects(prepared, groups, folder, executor, place)
        warehouse.add_groups(settings.warehouse, run_id, folder, wait=settings.wait)
        _clear(place, folder)
        settings.say(f"{run_id} has the groups {', '.join(group.name for group in groups)}.")

    def _add_attention(
        self, prepared: "Prepared", wanted: "AttentionRequest", folder: Path, executor: "Executor"
    ) -> None:
        from rare_tokens.analyses.registry import readers
        from rare_tokens.ingest.attention.measure import measure_attention
        from rare_tokens.ingest.estimate import attention_seconds

        settings, run_id = self.settings, prepared.manifest.run_id
        place = self.asked.spreading.place(folder)
        groups = warehouse.read(settings.warehouse, run_id, "position_group", wait=settings.wait)
        seconds = attention_seconds(prepared, wanted) if is_shown(quiet=settings.quiet) else None
        measure_attention(prepared, groups, folder, wanted, executor, place, seconds)
        warehouse.add_attention(
            settings.warehouse, run_id, folder, readers=readers("dim_attention"), wait=settings.wait
        )
        _clear(place, folder)
        settings.say(
            f"{run_id} has attention now, heads ablated by {wanted.ablation}. `{command('analyze')}` says what it"
            " shows."
        )

    def _expected(self, request: "Request", prepared: "Prepared") -> "Mapping[str, float]":
        """Seconds that each stage is forecast to take; nothing is tried for it where no progress is shown."""
        from rare_tokens.ingest.forecast.forecast import expected

        if not is_shown(quiet=self.settings.quiet):
            return {}
        with working(f"Try a few positions of {request.run_id}", quiet=self.settings.quiet):
            forecast = expected(request, prepared)
        self.settings.say(f"{request.run_id}: about {forecast.minutes:,.1f} minutes on this machine.")
        return forecast.seconds


def _clear(place: "Place | None", folder: Path) -> None:
    """Remove what units left elsewhere. What is in the folder of the run goes with that folder."""
    if place is not None and not place.is_at(folder):
        place.remove()


def _keep(run_id: str, store: str, settings: Settings) -> None:
    """Move the facts of a published run to where they are asked for."""
    with working(f"Move the facts of {run_id}", quiet=settings.quiet):
        is_moved = warehouse.keep(settings.warehouse, run_id, store, wait=settings.wait, quiet=settings.quiet)
    if is_moved:
        settings.say(f"The facts of {run_id} are in the {store} store now.")


def _extended(several: "list[Request]", settings: Settings) -> "list[Request]":
    """The requests with the effects of their published runs added, so that computing them again keeps them."""
    effects: list[str] = []
    with warehouse.open(settings.warehouse, wait=settings.wait) as opened:
        for request in several:
            for row in opened.dim_run(run_id=request.run_id, status="published").iter_rows(named=True):
                effects += row["effects"]
    return [replace(one, options=replace(one.options, effects=(*one.options.effects, *effects))) for one in several]


def _check_groups(groups: list["Group"], prepared: "Prepared") -> None:
    from rare_tokens.ingest.groups import check_groups

    check_groups(groups, prepared.structure.neurons)


def _groups(request: "Request", spelled: tuple[str, ...], settings: Settings, *, recomputed: bool) -> list["Group"]:
    """The groups to ablate at once: those asked for, and those the run has if it is computed again."""
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
    """The attention to measure: what is asked for, and what the run has if it is computed again."""
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


def _is_there(request: "Request", settings: Settings) -> bool:
    """Whether a published run already answers the request. Says so, and says what would change it."""
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
