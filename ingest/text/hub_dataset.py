"""A data set of the hub, read as a stream: which configuration, split, commit and field, and its documents.

All that can be refused is refused when the data set is resolved, before a model is loaded: it takes a few requests and
the first row.
"""

import lzma
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

import pyarrow as pa
import zstandard
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.documents import Document, document
from rare_tokens.ingest.text.readers import pieces
from rare_tokens.ingest.text.records import TEXT, TextField
from rare_tokens.ingest.text.sources import C4_ON_THE_HUB, HUB, HubName

SHUFFLE_BUFFER = 10_000  # documents
DEFAULT_SPLIT = "train"

_HUB_TIMEOUT = 5.0  # seconds until a hub that does not answer counts as out of reach
# huggingface_hub itself tries a stream that breaks off five times, over 23 s; `datasets` would repeat that 20 times.
_HUB_ATTEMPTS = 1
_LOCAL_COPY = (
    "a copy of your own: a .jsonl, or the folder that `load_dataset(…).save_to_disk(FOLDER)` writes (--corpus PATH)"
)
_LONGEST_REASON = 150  # characters
_SHOWN = 12  # configurations named in a message
_OUT_OF_REACH = (OSError, EOFError, HTTPError)
# What `datasets` raises besides on a data set that it cannot stream.
_UNREADABLE = (
    pa.ArrowException, ValueError, TypeError, KeyError, RuntimeError, NotImplementedError, ImportError, zlib.error,
    lzma.LZMAError, zstandard.ZstdError,
)  # fmt: skip
_FAILED = (*_OUT_OF_REACH, *_UNREADABLE)


@dataclass(frozen=True)
class HubDataset:
    """A data set of the hub at one commit; each of its rows holds a text in one field."""

    label: str
    name: str
    config: str
    split: str
    revision: str  # commit
    field: str = TEXT

    @property
    def identity(self) -> list[str]:
        """What decides its texts. The field is named where it is not `text`."""
        return [self.name, self.config, self.split, self.revision] + [self.field] * (self.field != TEXT)

    @property
    def asked(self) -> str:
        """What asks for exactly these texts: the same source at its commit."""
        field = None if self.field == TEXT else self.field
        return str(HubName(self.name, (self.config, self.split), self.revision, field))

    def documents(self, seed: int) -> Iterator[Document]:
        """The documents in `datasets`' seeded order, without blank ones; long ones are cut as those of files are.

        Raises:
            UserError: the hub went out of reach, or a row holds no text.
        """
        try:
            for row in self._rows().shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER):
                text = self._text_field.text(row, f"A row of the data set {self.name}")
                yield from (document(piece, self.label) for piece in pieces(text or "") if not piece.isspace())
        except _FAILED as error:
            _refuse(self.name, error)

    def require_field(self) -> None:
        """Refuse a field that the data set does not have.

        Raises:
            UserError: it has none of that name, or it holds no strings; the message names those that do.
        """
        try:
            rows = self._all_rows()
            if rows.features is not None:
                self._text_field.column(rows.features.arrow_schema, f"The data set {self.name}")
                return
            first: Mapping[str, Any] | None = next(iter(rows), None)
        except _FAILED as error:
            _refuse(self.name, error)
        if first is None:
            raise UserError(f"The data set {self.name} is empty: its split {self.split} holds no row.")
        self._text_field.text(first, f"The first row of the data set {self.name}")

    @property
    def _text_field(self) -> TextField:
        return TextField(self.field, f"--corpus {HUB}{self.name}:{self.config}:{self.split}#{{}}")

    def _rows(self) -> Any:
        """Rows of the column alone that the text is in."""
        rows = self._all_rows()
        columns = rows.column_names
        outer = self.field if columns is None or self.field in columns else self.field.partition(".")[0]
        return rows.select_columns([outer])

    def _all_rows(self) -> Any:
        return quiet_datasets().load_dataset(
            _on_the_hub(self.name), self.config, split=self.split, revision=self.revision, streaming=True
        )


def resolve(asked: HubName, label: str, field: str | None = None) -> HubDataset:
    """Find a data set of the hub: its commit, configuration, split and field, within seconds if nothing answers.

    Of two parts the first is the configuration and the second the split. One part alone is the configuration, unless
    it is the name of no configuration but of a split. Without a configuration it is the only one or the default one,
    without a split `train`, without a field `field`, or else `text`.

    Raises:
        UserError: the hub does not answer, has no such data set, revision, configuration, split or field, or leaves
            open which configuration is meant.
    """
    name, revision = _commit(asked)
    field = asked.field or field or TEXT
    if asked == C4_ON_THE_HUB:
        config, split = asked.parts
        return HubDataset(label, asked.name, config, split, revision, field)
    try:
        config, split = _config_and_split(asked, name, revision)
    except _FAILED as error:
        _refuse(name, error)
    found = HubDataset(label, name, config, split, revision, field)
    found.require_field()
    return found


def _commit(asked: HubName) -> tuple[str, str]:
    """The name that the hub has for a data set today, and the commit that a revision is."""
    try:
        info = HfApi().dataset_info(asked.name, revision=asked.revision, timeout=_HUB_TIMEOUT)
    except RevisionNotFoundError as error:
        raise UserError(
            f"The data set {asked.name} has no revision {asked.revision}; name a branch, a tag or a commit of it."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"The hub has no data set {asked.name}, or shows it only to others. Check the name (OWNER/NAME); if it is "
            "private, log in (hf auth login)."
        ) from error
    except _OUT_OF_REACH as error:
        _refuse(asked.name, error)
    if info.sha is None:
        raise UserError(f"The hub names no commit of the data set {asked.name}; use {_LOCAL_COPY}.")
    return info.id or asked.name, info.sha


def _config_and_split(asked: HubName, name: str, revision: str) -> tuple[str, str]:
    """Which configuration and split are meant (see `resolve`), both of them there."""
    datasets, place = quiet_datasets(), _on_the_hub(name)
    configs = datasets.get_dataset_config_names(place, revision=revision)
    usual = datasets.get_dataset_default_config_name(place, revision=revision)
    first, second = [*asked.parts, "", ""][:2]
    if len(asked.parts) == 1 and first not in configs:
        if usual is None or first not in datasets.get_dataset_split_names(place, usual, revision=revision):
            raise UserError(f"The data set {name} has no configuration or split {first}. {_choice(name, configs)}")
        return usual, first
    config, split = first or usual, second or DEFAULT_SPLIT
    if config is None:
        raise UserError(f"The data set {name} has several configurations and no default one. {_choice(name, configs)}")
    if config not in configs:
        raise UserError(f"The data set {name} has no configuration {config}. {_choice(name, configs)}")
    splits = datasets.get_dataset_split_names(place, config, revision=revision)
    if split not in splits:
        raise UserError(
            f"The data set {name} has no split {split} in its configuration {config}. It has "
            f"{', '.join(splits[:_SHOWN])}: --corpus {HUB}{name}:{config}:{splits[0] if splits else 'SPLIT'}."
        )
    return config, split


def _choice(name: str, configs: list[str]) -> str:
    shown = ", ".join(configs[:_SHOWN]) + (f" and {len(configs) - _SHOWN} more" if len(configs) > _SHOWN else "")
    return f"Name one of {shown}: --corpus {HUB}{name}:{configs[0] if configs else 'CONFIG'}."


def _on_the_hub(name: str) -> str:
    """The name in a form that `datasets` never takes for a folder in the working directory."""
    return f"hf://datasets/{name}"


def _refuse(name: str, error: Exception) -> NoReturn:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")[:_LONGEST_REASON]
    if "scripts are no longer supported" in reason:
        raise UserError(
            f"The data set {name} comes as a script, which `datasets` no longer runs. Try its converted copy, "
            f"--corpus {HUB}{name}@refs/convert/parquet, or use {_LOCAL_COPY}."
        ) from error
    if isinstance(error, _OUT_OF_REACH):
        raise UserError(
            f"The data set {name} cannot be had from the hub ({reason}). Check the network, or use {_LOCAL_COPY}; "
            "--corpus builtin needs none."
        ) from error
    raise UserError(f"The data set {name} cannot be read as a stream ({reason}). Use {_LOCAL_COPY}.") from error


def quiet_datasets() -> ModuleType:
    """`datasets` and the hub's client without progress bars and reports of their retries, and with fewer of them."""
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it logs what it raises besides
    huggingface_hub.logging.set_verbosity_error()
    datasets.config.STREAMING_READ_MAX_RETRIES = _HUB_ATTEMPTS
    datasets.config.STREAMING_OPEN_MAX_RETRIES = _HUB_ATTEMPTS
    return datasets
