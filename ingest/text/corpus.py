"""Corpora: documents in a seeded order, from files in hand, from the built-in text, or streamed from the hub.

Files and the built-in text are shuffled as a whole: their documents are written once to a temporary Arrow file that
`datasets` maps into memory, so that a corpus may be larger than memory and leaves nothing behind. The order is by a
hash of seed and text: it depends on no generator's version, and not on the order in which the files were named.
A streamed corpus comes in the order of `datasets`' seeded shuffle, with a buffer of 10,000 documents.
"""

import errno
import hashlib
import itertools
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import pyarrow as pa

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.readers import corpus_files, read_texts

if TYPE_CHECKING:
    import datasets

C4 = "c4"
BUILTIN = "builtin"

SHUFFLE_BUFFER = 10_000  # documents

_HUB_TIMEOUT = 5.0  # seconds until a hub that does not answer counts as out of reach
# huggingface_hub itself tries a stream that breaks off five times, over 23 s; `datasets` would repeat that 20 times.
_HUB_ATTEMPTS = 1
_SPOOL = pa.schema([("text", pa.large_string()), ("domain", pa.string()), ("digest", pa.string())])
_SPOOL_BATCH = 1 << 23  # characters
_READ_BATCH = 256  # documents
_LABELLED = re.compile(r"([\w.-]+)=(.+)")


@dataclass(frozen=True)
class Document:
    """One text. `domain` is the label of the source it is from, `digest` the sha256 of its text, hex."""

    text: str
    domain: str
    digest: str


@dataclass(frozen=True)
class Source:
    """Where texts come from: `place` is `c4`, `builtin` or a path, `label` the domain of its documents."""

    place: str
    label: str
    is_labelled: bool  # by the user, not by its name

    @property
    def key(self) -> str:
        """What is the same for two spellings of one path."""
        return self.place if self.place in (C4, BUILTIN) else str(Path(self.place).expanduser().resolve())

    @property
    def shown(self) -> str:
        """As a person wrote it, without the folders of a path."""
        name = Path(self.key).name
        return f"{self.label}={name}" if self.is_labelled else name


@dataclass(frozen=True)
class HubDataset:
    """A data set of the hub at one commit, read as a stream; it has a column `text`."""

    label: str
    name: str
    config: str
    split: str
    revision: str  # commit

    def documents(self, seed: int) -> Iterator[Document]:
        """The documents in `datasets`' seeded order.

        Raises:
            UserError: the hub went out of reach.
        """
        datasets = _quiet_datasets()
        from huggingface_hub.errors import HTTPError

        try:
            rows = datasets.load_dataset(
                self.name, self.config, split=self.split, revision=self.revision, streaming=True
            )
            for row in rows.select_columns(["text"]).shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER):
                if row["text"].strip():
                    yield _document(row["text"], self.label)
        except (OSError, EOFError, HTTPError) as error:
            _out_of_reach(self.name, error)


class Corpus:
    """Documents to sample from.

    Attributes:
        name: shown to people; no path.
        identity: hash of what the corpus holds: of the texts' own hashes for texts in hand, of data set, configuration,
            split and commit for a stream. The same texts have the same identity in whatever files they lie.
        streamed: whether it is longer than anyone wants to read.
        labelled_identity: the same with the domain of each text.
        documents_in_hand: how many documents it has without the streamed ones.
    """

    def __init__(self, name: str, texts: Iterator[tuple[str, str]], stream: HubDataset | None = None) -> None:
        """Take in `texts`, pairs of (text, domain), at once, and `stream` when documents are asked for."""
        self.name = name
        self.streamed = stream is not None
        self._stream = stream
        self._spool, self._digests, labelled = _spool(texts)
        self.documents_in_hand = len(self._digests)
        parts = [] if stream is None else [stream.name, stream.config, stream.split, stream.revision]
        self.identity = _hash_of([*sorted(self._digests), *parts])
        label = [] if stream is None else [stream.label]
        self.labelled_identity = _hash_of([*sorted(labelled), *parts, *label])

    def documents(self, seed: int) -> Iterator[Document]:
        """All documents, in an order that the seed decides.

        Where a stream and texts in hand come together, they take turns until the texts are used up.

        Raises:
            UserError: the hub went out of reach.
        """
        if self._stream is None:
            return self._shuffled(seed)
        streamed = self._stream.documents(seed)
        return _taking_turns(self._shuffled(seed), streamed) if self.documents_in_hand else streamed

    def _shuffled(self, seed: int) -> Iterator[Document]:
        keys = [hashlib.sha256(f"{seed} {digest}".encode()).digest() for digest in self._digests]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        for start in range(0, len(order), _READ_BATCH):
            batch = self._spool[order[start : start + _READ_BATCH]]
            yield from itertools.starmap(Document, zip(batch["text"], batch["domain"], batch["digest"], strict=True))


def open_corpus(sources: Sequence[str]) -> Corpus:
    """Find, read and hash the corpora that were named: `c4`, `builtin`, files and folders, each perhaps `LABEL=…`.

    The domain of a document is the label of its source; without one `c4`, `builtin`, or the file's or folder's name.

    Raises:
        UserError: there is no such file, it cannot be read as text, it is empty, or the hub is out of reach.
    """
    if not sources:
        raise UserError("No corpus was named; give --corpus c4, builtin, or a path.")
    found = parse_sources(sources)
    stream = next((hub_dataset(one.label, "allenai/c4", "en", "train") for one in found if one.place == C4), None)
    texts = ((text, source.label) for source in found for text in _texts(source.place))
    return Corpus(" + ".join(source.label for source in found), texts, stream)


def parse_sources(given: Sequence[str]) -> list[Source]:
    """Corpora as `--corpus` names them, `LABEL=SOURCE` or `SOURCE`, which a path with a `=` that exists is too.

    Raises:
        UserError: a corpus is named twice, or a label given to two.
    """
    found = [_source(text) for text in given]
    for first, second in itertools.combinations(found, 2):
        if first.key == second.key:
            raise UserError(f"The corpus {second.place} is named twice; name it once.")
        if first.label == second.label and (first.is_labelled or second.is_labelled):
            raise UserError(
                f"Two corpora have the label {first.label}; give each its own, or put them into one folder."
            )
    return found


def _source(given: str) -> Source:
    labelled = None if Path(given).expanduser().exists() else _LABELLED.fullmatch(given)
    label, place = labelled.groups() if labelled else (None, given)
    found = Source(place, label or "", labelled is not None)
    return found if label else replace(found, label=Path(found.key).name)


def hub_dataset(label: str, name: str, config: str, split: str) -> HubDataset:
    """Resolve a data set of the hub to its newest commit, within seconds whether the hub answers or not.

    Raises:
        UserError: the hub does not answer, or does not have the data set.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        revision = HfApi().dataset_info(name, timeout=_HUB_TIMEOUT).sha
    except (OSError, HTTPError) as error:
        _out_of_reach(name, error)
    if revision is None:
        raise UserError(f"The hub names no commit of the data set {name}; use a local corpus (--corpus PATH).")
    return HubDataset(label, name, config, split, revision)


def _texts(source: str) -> Iterator[str]:
    if source == C4:
        return
    found = False
    for text in _builtin_texts() if source == BUILTIN else _file_texts(source):
        found = True
        yield text
    if not found:
        raise UserError(f"The corpus {source} is empty: it holds no text.")


def _builtin_texts() -> Iterator[str]:
    from rare_tokens.ingest.embedded import reference_documents

    yield from reference_documents()


def _file_texts(source: str) -> Iterator[str]:
    for file in corpus_files(Path(source).expanduser()):
        yield from read_texts(file)


def _document(text: str, domain: str) -> Document:
    return Document(text, domain, hashlib.sha256(text.encode()).hexdigest())


def _taking_turns(first: Iterator[Document], second: Iterator[Document]) -> Iterator[Document]:
    for document in first:
        yield document
        yield from itertools.islice(second, 1)
    yield from second


def _hash_of(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _spool(texts: Iterator[tuple[str, str]]) -> tuple["datasets.Dataset", list[str], list[str]]:
    """Write texts to a temporary file, map it into memory, and unlink it: gone with the process, however that ends.

    Returns also the digest of each text, and the same behind its domain.
    """
    folder = Path(tempfile.mkdtemp(prefix="rare-tokens-corpus-"))
    digests: list[str] = []
    labelled: list[str] = []
    try:
        with pa.OSFile(str(folder / "texts.arrow"), "wb") as file, pa.ipc.new_stream(file, _SPOOL) as writer:
            for batch in _batches(texts):
                digests += [document.digest for document in batch]
                labelled += [f"{document.domain} {document.digest}" for document in batch]
                writer.write_batch(_record_batch(batch))
        return _quiet_datasets().Dataset.from_file(str(folder / "texts.arrow")), digests, labelled
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"The disk of {folder.parent} is full: a copy of the corpus is kept there while it is read. "
                "Make room, or set TMPDIR to a folder on a larger disk."
            ) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _batches(texts: Iterator[tuple[str, str]]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for text, domain in texts:
        batch.append(_document(text, domain))
        size += len(text)
        if size >= _SPOOL_BATCH:
            yield batch
            batch, size = [], 0
    yield batch


def _record_batch(documents: list[Document]) -> pa.RecordBatch:
    rows = [{"text": item.text, "domain": item.domain, "digest": item.digest} for item in documents]
    return pa.RecordBatch.from_pylist(rows, schema=_SPOOL)


def _out_of_reach(name: str, error: Exception) -> NoReturn:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    raise UserError(
        f"The data set {name} cannot be had from the hub ({reason}). "
        "Check the network, or use a corpus of your own (--corpus PATH) or the built-in one (--corpus builtin)."
    ) from error


def _quiet_datasets() -> ModuleType:
    """`datasets` and the hub's client without progress bars and reports of their retries, and with fewer of them."""
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    huggingface_hub.logging.set_verbosity_error()
    datasets.config.STREAMING_READ_MAX_RETRIES = _HUB_ATTEMPTS
    datasets.config.STREAMING_OPEN_MAX_RETRIES = _HUB_ATTEMPTS
    return datasets
