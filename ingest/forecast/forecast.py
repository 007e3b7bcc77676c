"""The forecast of a run: tried on a few of its positions where it can be, else reckoned."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedModel

from rare_tokens.ingest.ablation.stages.capture import POSITIONS_PER_BATCH
from rare_tokens.ingest.ablation.stages.parts import position_block
from rare_tokens.ingest.forecast.clock import timed
from rare_tokens.ingest.forecast.extrapolation import FIND, LOAD, MEASURED, PUBLISH, TEXT, Forecast
from rare_tokens.ingest.forecast.measure import measured
from rare_tokens.ingest.forecast.reckon import reckoned
from rare_tokens.ingest.forecast.storage import publish_seconds
from rare_tokens.ingest.forecast.text import few_windows
from rare_tokens.ingest.machine import release_memory
from rare_tokens.ingest.model.mlp import mlp_shape
from rare_tokens.ingest.run.loading import Loader
from rare_tokens.ingest.run.pipeline import Prepared, manifest_of
from rare_tokens.ingest.run.request import Request
from rare_tokens.ingest.run.stages import Loaded, Recipe

WORTH_MEASURING = 60.0  # seconds that a run is reckoned to take, below which it is not tried before it begins


def reckon(
    request: Request,
    model: PreTrainedModel,
    layer: int,
    device: str,
    *,
    is_dense: bool,
    found: float,
    why: str,
    references: Sequence[str] = (),
) -> Forecast:
    """The forecast without a try.

    Args:
        request, model, layer, device, is_dense: as `reckoned`.
        found: seconds that finding the model and the text took.
        why: why nothing is tried.
        references: those that are measured together; none: the request's.
    """
    neurons, _, _ = mlp_shape(model, layer)
    stages = reckoned(request, model, layer, device, is_dense=is_dense, references=references)
    publishing = {PUBLISH: publish_seconds(request.options.tokens * neurons, max(1, len(references)))}
    return Forecast({FIND: found} | stages | publishing, why=why)


def measure(
    request: Request, loader: Loader, *, found: float, whole: bool, references: Sequence[str] = ()
) -> tuple[Forecast, bool]:
    """The forecast from loading the model and trying each stage on a few windows; and whether it is the dense path.

    Writes nothing.

    Args:
        request: the run.
        loader: loads the model, which it may have already, of a run of another layer.
        found: seconds that finding the model and the text took.
        whole: the whole model must be on the device, as for attention.
        references: those that are measured together; none: the request's.

    Raises:
        UserError: what the ingest would refuse: the weights, the architecture, the text.
    """
    options = request.options
    loading, model = timed(lambda: loader.load(request, whole=whole))
    windows = max(1, min(options.tokens, POSITIONS_PER_BATCH) // options.window)
    text = few_windows(request, model.structure.vocabulary_size, windows)
    sample, counts = text.material.sample, text.material.counts.counts
    recipe = Recipe.of(request, sample, counts)
    loaded = Loaded(model.model, model.structure, model.device, sample, counts, recipe)
    manifest = manifest_of(request, model, text.material, units=1)
    if not model.structure.between:
        manifest = replace(manifest, position_block=position_block(options.tokens, model.structure.neurons))
    manifest = replace(manifest, positions=options.tokens)
    stages = {LOAD: loading, TEXT: text.seconds} | measured(loaded, manifest, references)
    publishing = {PUBLISH: publish_seconds(options.tokens * model.structure.neurons, max(1, len(references)))}
    forecast = Forecast({FIND: found} | stages | publishing, MEASURED)
    is_dense = bool(model.structure.between)
    del loaded, model
    release_memory()
    return forecast, is_dense


def expected(request: Request, prepared: Prepared) -> Forecast:
    """The forecast of a run that is about to begin: what is left of it is tried only if it is worth the time.

    Raises:
        UserError: values are not finite.
    """
    structure, manifest = prepared.structure, prepared.manifest
    pairs = manifest.positions * manifest.neurons
    is_dense, references = bool(structure.between), [one.ablation for one in prepared.manifests]
    stages = reckoned(
        request, prepared.model, structure.layer, prepared.device, is_dense=is_dense, references=references
    )
    publishing = {PUBLISH: publish_seconds(pairs, len(prepared.manifests))}
    stages = {name: seconds for name, seconds in stages.items() if name not in (LOAD, TEXT)}  # which are done
    if sum(stages.values()) < WORTH_MEASURING:
        return Forecast(stages | publishing)
    return Forecast(measured(prepared.loaded, manifest, references) | publishing, MEASURED)
