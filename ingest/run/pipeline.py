"""Makes a run ready: its model fits, its sample is drawn, its references are possible, its manifest is made.

`Workbench.prepare` does everything that can refuse a request; only then does `execution.execute` write.
"""

import importlib.metadata
import logging
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from transformers import PreTrainedModel

from rare_tokens.common.errors import OptionError, UserError
from rare_tokens.common.parts import Manifest
from rare_tokens.common.version import VERSION
from rare_tokens.ingest.ablation.stages.parts import position_block
from rare_tokens.ingest.dense.parts import dense_position_block
from rare_tokens.ingest.model.structure import Structure
from rare_tokens.ingest.model.tokenizer import require_file_ids
from rare_tokens.ingest.run.loading import LoadedModel, Loader
from rare_tokens.ingest.run.loading import choose_device as choose_device
from rare_tokens.ingest.run.reference_values import require_possible
from rare_tokens.ingest.run.request import Request
from rare_tokens.ingest.run.stages import Loaded, Recipe
from rare_tokens.ingest.text.matched import NC_MATCHED, NothingToMeasureError
from rare_tokens.ingest.text.material import Material, draw_material
from rare_tokens.ingest.text.parts_of_speech import tagger_name
from rare_tokens.ingest.text.reading import begin_token_note

log = logging.getLogger("rare_tokens")

PACKAGES = (
    "datasets",
    "duckdb",
    "numpy",
    "pyarrow",
    "pyspellchecker",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to begin: its model fits and its sample is drawn."""

    manifest: Manifest
    material: Material
    loaded: Loaded
    notes: tuple[str, ...] = ()  # what a reader of the results should know of the model
    others: tuple[Manifest, ...] = ()  # runs that are measured together with it: by other references

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All runs that are measured together."""
        return (self.manifest, *self.others)

    @property
    def model(self) -> PreTrainedModel:
        """The model."""
        return self.loaded.model

    @property
    def structure(self) -> Structure:
        """Its structure."""
        return self.loaded.structure

    @property
    def device(self) -> str:
        """The device that it is on."""
        return self.loaded.device


class Workbench:
    """Prepares the runs of one command, and makes only once what several of them share."""

    def __init__(self) -> None:
        self._loader = Loader()
        self._materials: dict[tuple[Any, ...], Material] = {}

    def prepare(self, request: Request, *others: Request, whole: bool = False, units: int = 1) -> Prepared:
        """Load the model, confirm its structure, draw the sample.

        Args:
            request: what is asked for.
            others: the same with other references, to be measured together with it.
            whole: whether the whole model must be on the device.
            units: about how many units the ablation is divided into, at least.

        Raises:
            UserError: there is too little memory, the corpus is too short, the count file does not fit, the layer does
                not exist, the architecture is not supported, or a reference is not possible.
        """
        found = self._loader.load(request, whole=whole)
        material = self._material(request, found.structure.vocabulary_size)
        sample, counts = material.sample, material.counts.counts
        recipe = Recipe.of(request, sample, counts, whole=whole)
        loaded = Loaded(found.model, found.structure, found.device, sample, counts, recipe)
        manifest, *more = (manifest_of(one, found, material, units) for one in (request, *others))
        require_possible((manifest, *more), found.structure, sample)
        return Prepared(manifest, material, loaded, _notes(request), tuple(more))

    def _material(self, request: Request, vocabulary_size: int) -> Material:
        key = (request.tokenizer_id, request.frequency_source_id, vocabulary_size)
        if key not in self._materials:
            self._materials[key] = _draw(request, vocabulary_size)
        return self._materials[key]


def _notes(request: Request) -> tuple[str, ...]:
    note = None if request.options.begin_token else begin_token_note(request.tokenizer)
    if note is not None:
        log.warning("Warning: %s", note)
    return (*request.look.notes, *([] if note is None else [note]))


def _draw(request: Request, vocabulary_size: int) -> Material:
    options = request.options
    try:
        found = draw_material(
            request.corpus,
            request.tokenizer,
            vocabulary_size=vocabulary_size,
            contexts=options.contexts,
            frequencies=options.frequencies,
            positions=options.tokens,
            window=options.window,
            seed=options.seed,
            begin_token=options.begin_token,
        )
    except NothingToMeasureError:
        raise
    except UserError as error:  # about the text, and so the same at every checkpoint
        raise OptionError(str(error)) from error
    if (largest := int(found.sample.tokens.max())) >= vocabulary_size:
        raise UserError(
            f"The tokenizer of {request.folder.name} gave token {largest}, but its unembedding has {vocabulary_size} "
            "rows: tokenizer and weights do not belong together."
        )
    require_file_ids(request.folder, request.tokenizer, found.first_texts)
    for warning in (*found.sample.warnings, *found.counts.warnings):
        log.warning("Warning: %s", warning)
    return found


def _facts(request: Request, loaded: LoadedModel, material: Material) -> dict[str, Any]:
    """What was found or chosen for a run, as opposed to what was asked for."""
    between = loaded.structure.between
    facts: dict[str, Any] = {
        "path": "dense" if between else "moments",
        "between": list(between),
        "layers": loaded.structure.depth,
        "device": loaded.device,
        "offloaded_bytes": loaded.offloaded,
        "weights_hash": request.weights_hash,
    }
    if request.look.ignored_weights:
        facts["ignored_weights"] = list(request.look.ignored_weights)
    if request.folder.above is not None:
        facts["tokenizer"] = "of the folder above"
    if request.options.contexts == NC_MATCHED:
        facts |= {"tagger": tagger_name(), **material.sample.notes}
    if request.corpus.streamed:
        facts["streams"] = [stream.asked for stream in request.corpus.streams]
    return facts


def manifest_of(request: Request, loaded: LoadedModel, material: Material, units: int) -> Manifest:
    """What a run is, before it begins; `units` is about how many the ablation is divided into, at least."""
    options, structure = request.options, loaded.structure
    block = position_block(len(material.sample.targets), structure.neurons, units)
    if structure.between:
        block = dense_position_block(material.sample, structure.neurons, units)
    return Manifest(
        run_id=request.run_id,
        model=request.folder.name,
        revision=request.folder.revision,
        layer=structure.layer,
        positions=len(material.sample.targets),
        neurons=structure.neurons,
        window_length=material.sample.predicted,
        tokenizer_id=request.tokenizer_id,
        frequency_source_id=request.frequency_source_id,
        frequency_source=request.frequency_source,
        corpus=request.corpus.name,
        corpus_hash=request.corpus.identity,
        model_hash=request.model_hash,
        ablation=options.ablation,
        seed=options.seed,
        dtype=options.dtype,
        tolerance=options.tolerance,
        effects=list(options.effects),
        separator_token_id=material.sample.separator_token_id,
        position_block=block,
        code_version=VERSION,
        contexts=options.contexts,
        quantisation=request.look.quantisation,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        identity=request.identity,
        options=options.given(request.folder.revision),
        facts=_facts(request, loaded, material),
        packages=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers of a run depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}
