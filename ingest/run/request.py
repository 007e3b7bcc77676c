"""What a user asks `ingest` for, checked, and the identity of the run that answers it."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rare_tokens.common.effects import LOSS, chosen_effects
from rare_tokens.common.errors import OptionError, UserError
from rare_tokens.common.layers import Layers, layer_index
from rare_tokens.ingest.ablation.numerics.rounding import require_tolerance
from rare_tokens.ingest.ablation.stages.references import choices
from rare_tokens.ingest.model import locate
from rare_tokens.ingest.model.files import ModelFolder, Trust, model_hash, short_name
from rare_tokens.ingest.model.likeness import weights_hash
from rare_tokens.ingest.model.load import context_length
from rare_tokens.ingest.model.look import Look, look
from rare_tokens.ingest.model.tokenizer import load_tokenizer, tokenizer_id
from rare_tokens.ingest.text.corpus import Corpus, open_corpus
from rare_tokens.ingest.text.matched import NC_MATCHED
from rare_tokens.ingest.text.material import FROM_CORPUS
from rare_tokens.ingest.text.parts_of_speech import tagger_name
from rare_tokens.ingest.text.reading import FIRST_DOCUMENTS, STREAM_LIMIT
from rare_tokens.ingest.text.sources import parse_sources
from rare_tokens.ingest.text.word_list import WORDFREQ, word_list_source

EDIT_SCOPES = ("window", "position")
SAMPLE = "sample"
CONTEXTS = (SAMPLE, NC_MATCHED)
OFFLOAD = AUTO, NEVER, ALWAYS = "auto", "never", "always"


@dataclass(frozen=True)
class Options:
    """The options of `ingest` that decide or shape a run, with paths and names as the user gave them.

    `tokens` is T, the number of predicted positions (for matched contexts, the most there may be). `window` is the
    number of positions in a window, or of tokens before the one position of a matched context. `layer` counts from 0,
    or from the last if it is negative; several are a run each. `edit_scope` says where a neuron below the last layer is
    replaced: at every position of the `window`, or at one `position` at a time. `ablation` names one reference or
    several, by comma: what replaces an activation (`references`).
    """

    model: str
    revisions: tuple[str, ...] = ()
    corpus: tuple[str, ...] = ("c4",)
    text_field: str | None = None
    frequencies: str = FROM_CORPUS
    tokens: int = 25_088
    window: int = 256
    seed: int = 0
    begin_token: bool = False
    contexts: str = SAMPLE
    layer: int | Layers = -1
    edit_scope: str = "window"
    ablation: str = "mean"
    effects: tuple[str, ...] = (LOSS,)
    tolerance: float = 1e-6
    device: str = "auto"
    dtype: str = "float32"
    offload: str = AUTO
    ignore_weights: tuple[str, ...] = ()
    trust: Trust = field(default_factory=Trust)

    def __post_init__(self) -> None:
        """Refuse values that no run can have."""
        if self.text_field is not None and not self.text_field.strip():
            raise UserError("--text-field: the name is empty; give the field that holds the text, or leave it out.")
        if self.window < 1:
            raise UserError(f"--window {self.window}: a window needs at least one position.")
        if self.contexts not in CONTEXTS:
            raise UserError(f"--contexts {self.contexts}: unknown. There are {' and '.join(CONTEXTS)}.")
        if self.contexts == NC_MATCHED and self.tokens < 2:
            raise UserError(f"--tokens {self.tokens}: a matched context takes two positions.")
        if self.contexts == SAMPLE and (self.tokens < 1 or self.tokens % self.window):
            nearest = max(1, round(self.tokens / self.window)) * self.window
            raise UserError(
                f"--tokens {self.tokens} is not a positive multiple of the window, {self.window}. "
                f"Use {nearest}, for example."
            )
        require_tolerance(self.tolerance)
        if self.edit_scope not in EDIT_SCOPES:
            raise UserError(f"--edit-scope {self.edit_scope}: unknown. There are {' and '.join(EDIT_SCOPES)}.")
        if self.offload not in OFFLOAD:
            raise UserError(f"--offload {self.offload}: unknown. There are {', '.join(OFFLOAD)}.")
        object.__setattr__(self, "effects", chosen_effects(self.effects))
        object.__setattr__(self, "ablation", ",".join(choice.name for choice in choices(self.ablation)))

    def by_layer(self, depth: int | None) -> list["Options"]:
        """The same for each of the layers by itself: a run measures one.

        Args:
            depth: how many the model has; None: that is not known, and all of them stay as one.

        Raises:
            OptionError: it has no such layer, or one is given twice.
        """
        if not isinstance(self.layer, Layers) or (depth is None and self.layer.are_all):
            return [self]
        numbers = self.layer.numbers if depth is None else self.layer.of(depth)
        return [replace(self, layer=number) for number in numbers]

    def by_reference(self) -> list["Options"]:
        """The same for each of the references by itself: a run measures one."""
        return [replace(self, ablation=choice.name) for choice in choices(self.ablation)]

    def given(self, revision: str) -> dict[str, Any]:
        """The options of a run at one revision, under the names that the command uses.

        A path is shortened to its last part: what is stored is passed on, and must not name folders of this machine.
        """
        trust = {"allow_pickle": self.trust.pickle, "trust_remote_code": self.trust.remote_code}
        plain = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("revisions", "trust")
        }
        named = {
            "model": locate.portable_name(self.model),
            "revision": revision,
            "corpus": [source.shown for source in parse_sources(self.corpus)],
            "frequencies": self.frequencies if self.frequencies == FROM_CORPUS else Path(self.frequencies).name,
            "effects": list(self.effects),
        }
        return plain | named | trust


@dataclass(frozen=True)
class Request:
    """One run that was asked for: a model at one revision, identified, before any heavy work."""

    options: Options
    folder: ModelFolder
    tokenizer: PreTrainedTokenizerBase
    tokenizer_id: str
    corpus: Corpus
    look: Look
    model_hash: str
    frequency_source_id: str
    frequency_source: str
    identity: dict[str, Any]
    together: int = 1  # runs that are measured at once, this one among them: the same by other references

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.look.config

    @property
    def layer(self) -> int:
        """Of the neurons, counted from 0."""
        return int(self.identity["layer"])

    @property
    def depth(self) -> int:
        """How many layers the model has."""
        return _depth(self.look)

    @property
    def measured(self) -> str:
        """What is measured, whatever replaces an activation: the same for all references of one measurement."""
        return json.dumps(self.identity | {"ablation": None}, sort_keys=True)

    @property
    def run_id(self) -> str:
        """`<short model name>-<revision>-<8 hex>`."""
        return run_id(self.folder.name, self.folder.revision, self.identity)

    @property
    def weights_hash(self) -> str:
        """The same for two checkpoints that are the same model, under whatever names."""
        return weights_hash(self.folder, self.options.trust)


def run_id(model: str, revision: str, identity: Any) -> str:
    """`<short model name>-<revision>-<8 hex>`, the last a hash over what identifies it."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    plain = "".join(c if c.isalnum() or c in "._" else "-" for c in revision)
    return f"{short_name(model)}-{plain}-{digest[:8]}"


def identify(options: Options, *, fetch: bool = True) -> list[Request]:
    """Find the model at each revision and the corpus, and say which runs they make: one for each
    layer and reference, those of a layer together.

    The models are looked at before the corpus is fetched. Reads and hashes files, but loads no weights and draws no
    sample. Without `fetch`, weights that are only on the hub stay there, and what the hub says of them identifies them.

    Raises:
        UserError: something named cannot be found or used.
    """
    revisions: Sequence[str | None] = options.revisions or (None,)
    looked = [_look(options, revision, fetch=fetch) for revision in revisions]
    corpus = open_corpus(options.corpus, options.text_field)
    return [one for folder, found in looked for one in _requests(options, folder, found, corpus)]


def _depth(found: Look) -> int:
    return int(found.config.num_hidden_layers)


def _look(options: Options, revision: str | None, *, fetch: bool) -> tuple[ModelFolder, Look]:
    folder = locate.locate(options.model, revision, options.trust, fetch=fetch)
    found = look(folder, options.trust, options.layer, options.ignore_weights)
    longest = context_length(found.config)
    if longest is not None and options.window > longest:
        raise OptionError(f"--window {options.window} is above the context of {folder.name}, {longest} tokens.")
    for one in options.by_layer(_depth(found)):
        _require_constant(one, _depth(found))
    return folder, found


def _require_constant(options: Options, depth: int) -> None:
    """Refuse below the last layer, as early as the layer is known, references that the dense path does not have.

    Raises:
        OptionError: naming the reference and the layer.
    """
    layer = _placed(options, depth)["layer"]
    if layer < depth - 1 and (other := [one.name for one in choices(options.ablation) if not one.is_constant]):
        raise OptionError(
            f"--ablation {other[0]} with --layer {options.layer}: layers below the last, {depth - 1}, take the dense "
            "path, which has the references mean and zero."
        )


def _placed(options: Options, depth: int) -> dict[str, Any]:
    """What of a run's identity depends on its layer."""
    assert not isinstance(options.layer, Layers), "a run measures one layer"
    layer = layer_index(options.layer, depth)
    # Nothing in the last layer reaches the loss at another position, so both scopes are the same there
    return {"layer": layer, "edit_scope": "position" if layer == depth - 1 else options.edit_scope}


def _requests(options: Options, folder: ModelFolder, found: Look, corpus: Corpus) -> list[Request]:
    depth = _depth(found)
    first, *others = (one for layer in options.by_layer(depth) for one in layer.by_reference())
    request = _request(first, folder, found, corpus)
    differing = [(one, request.identity | _placed(one, depth) | {"ablation": one.ablation}) for one in others]
    return [request, *(replace(request, options=one, identity=identity) for one, identity in differing)]


def _request(options: Options, folder: ModelFolder, found: Look, corpus: Corpus) -> Request:
    # A stream's first documents are compared when they are read: to ask for them here would fetch thousands
    documents = () if corpus.streamed else itertools.islice(corpus.documents(options.seed), FIRST_DOCUMENTS)
    tokenizer = load_tokenizer(folder, options.trust, [document.text for document in documents])
    vocabulary = tokenizer_id(tokenizer, int(found.config.vocab_size))
    weights = model_hash(folder, options.trust)
    source_id, source = _frequency_source(options, corpus, vocabulary)
    identity = {
        "model_hash": weights,
        "revision": folder.revision,
        "tokenizer": vocabulary,
        "corpus": corpus.identity if options.contexts == SAMPLE else corpus.labelled_identity,
        "frequencies": source_id,
        "contexts": options.contexts if options.contexts == SAMPLE else f"{options.contexts} by {tagger_name()}",
        "tokens": options.tokens,
        "window": options.window,
        "begin_token": options.begin_token,
        "seed": options.seed,
        "ablation": options.ablation,
        "dtype": options.dtype,
    } | _placed(options, _depth(found))
    return Request(options, folder, tokenizer, vocabulary, corpus, found, weights, source_id, source, identity)


def _frequency_source(options: Options, corpus: Corpus, tokenizer_id: str) -> tuple[str, str]:
    """(id, description) of the source of token counts. The id is by content, so it is known before counting."""
    if options.frequencies == WORDFREQ:
        return word_list_source(tokenizer_id)
    if options.frequencies != FROM_CORPUS:
        path = Path(options.frequencies).expanduser()
        if not path.is_file():
            raise OptionError(
                f"--frequencies {options.frequencies}: no such file. Give a .npy of counts, `wordfreq`, or `corpus`."
            )
        with path.open("rb") as stream:
            return "counts-" + hashlib.file_digest(stream, "sha256").hexdigest()[:12], path.name
    parts = [corpus.identity, tokenizer_id]
    if corpus.streamed:
        parts += [str(options.seed), str(STREAM_LIMIT)]
    digest = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    return "counted-" + digest[:12], f"counted over {corpus.name}"
