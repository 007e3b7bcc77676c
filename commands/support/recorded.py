"""Runs that end without facts, written to the warehouse with their reason: gaps, failures and twins."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rare_tokens import warehouse
from rare_tokens.commands.support.settings import Settings
from rare_tokens.common.errors import QualityError, RareTokensError

if TYPE_CHECKING:
    from rare_tokens.ingest.run.checkpoints import Gap
    from rare_tokens.ingest.run.request import Request


def record_gap(gap: "Gap", settings: Settings) -> None:
    """Store that a checkpoint is not there or cannot be used, and say so."""
    settings.say(f"{gap.run_id} {'failed' if gap.is_failure else 'is missing'}. {gap.why}")
    warehouse.record_gap(settings.warehouse, **asdict(gap), wait=settings.wait)


def record_nothing(request: "Request", settings: Settings, why: str) -> None:
    """Store that there is no position to measure at, and why: the run's token groups are empty with this reason."""
    settings.say(f"{request.run_id}: nothing to measure. {why}")
    warehouse.record_gap(
        settings.warehouse, run_id=request.run_id, model=request.folder.name, revision=request.folder.revision,
        contexts=request.options.contexts, why=why, wait=settings.wait,
    )  # fmt: skip


def record_failure(request: "Request", error: RareTokensError, settings: Settings) -> None:
    """Store why a run could not be computed, and say so; one that its checks refused is recorded as rejected."""
    from rare_tokens.ingest.run.checkpoints import FAILED
    from rare_tokens.ingest.run.request import SAMPLE

    settings.say(f"{request.run_id} failed. {error}")
    if isinstance(error, QualityError):
        return
    options = request.options
    known = _identified(request) | {"layer": request.layer, "corpus": request.corpus.name}
    known |= {"corpus_hash": request.corpus.identity, "tokenizer_id": request.tokenizer_id}
    known |= {"frequency_source_id": request.frequency_source_id, "frequency_source": request.frequency_source}
    known |= {"seed": options.seed, "ablation": options.ablation, "dtype": options.dtype}
    if options.contexts == SAMPLE:
        known |= {"positions": options.tokens, "window_length": options.window}
    warehouse.record_gap(
        settings.warehouse, run_id=request.run_id, model=request.folder.name, revision=request.folder.revision,
        status=FAILED, contexts=options.contexts, why=str(error), known=known, wait=settings.wait,
    )  # fmt: skip


def recorded_twin(request: "Request", settings: Settings) -> str | None:
    """The run that a request would only repeat, its twin recorded as such; None where it would be a new one."""
    folder, path, wait = request.folder, settings.warehouse, settings.wait
    twin_of = warehouse.find_twin(
        path, run_id=request.run_id, model=folder.name, revision=folder.revision, identity=request.identity,
        weights_hash=request.weights_hash, wait=wait,
    )  # fmt: skip
    if twin_of is not None:
        settings.say(f"{request.run_id} is a twin of {twin_of}: the weights are the same. Nothing is computed.")
        known = _identified(request)
        warehouse.record_twin(path, request.run_id, twin_of, revision=folder.revision, known=known, wait=wait)
    return twin_of


def forget_gaps(request: "Request", settings: Settings) -> None:
    """Remove what earlier commands recorded of a checkpoint that was missing or failed, now that it has a run."""
    from rare_tokens.ingest.run.checkpoints import gap_ids

    warehouse.forget_gaps(
        settings.warehouse, run_id=request.run_id, gap_ids=gap_ids(request),
        model=request.folder.name, revision=request.folder.revision, identity=request.identity, wait=settings.wait,
    )  # fmt: skip


def _identified(request: "Request") -> dict[str, Any]:
    """Columns of `dim_run` that are a run's own before it is computed."""
    options = request.options.given(request.folder.revision)
    return {"model_hash": request.model_hash, "identity": request.identity, "options": options}
