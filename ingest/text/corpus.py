"""Corpora: documents in a seeded order, from files in hand, from the built-in text, or streamed from the hub.

Files and the built-in text are shuffled as a whole: their documents are written once to a temporary Arrow file that
`datasets` maps into memory, so a corpus may be larger than memory and leaves nothing behind. The order is by a hash of
seed and text: it depends on no generator's version, and not on the order in which the files were named. A streamed
corpus comes in the order of `datasets`' seeded shuffle, with a buffer of 10,000 documents.
"""

import errno
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.corpus_files import corpus_files
from rare_tokens.ingest.text.documents import Document, document
from rare_tokens.ingest.text.hub_dataset import HubDataset, quiet_datasets, resolve
from rare_tokens.ingest.text.readers import read_texts
from rare_tokens.ingest.text.records import TEXT, TextField
from rare_tokens.ingest.text.sources import BUILTIN, parse_sources

if TYPE_CHECKING:
    import datasets

_SPOOL = pa.schema([("text", pa.large_string()), ("domain", pa.string()), ("digest", pa.string())])
_SPOOL_BATCH = 1 << 23  # characters
_READ_BATCH = 256  # documents


class Corpus:
    """Documents to sample from.

    Attributes:
        name: shown to people; no path.
        identity: hash of what the corpus holds: of the texts' own hashes for texts in hand; of data set, configuration,
            split, commit and, where it is not `text`, field for a stream. The same texts have the same identity in
            whatever files they lie.
        labelled_identity: the same with the domain of each text.
        streams: the streamed data sets, in an order that does not depend on how they were named.
        documents_in_hand: number of documents that are not streamed.
    """

    def __init__(self, name: str, texts: Iterator[tuple[str, str]], streams: Sequence[HubDataset] = ()) -> None:
        """Take in `texts`, pairs of (text, domain), at once, and `streams` when documents are asked for."""
        self.name = name
        self.streams = sorted(streams, key=lambda stream: (stream.identity, stream.label))
        self._spool, self._digests, labelled = _spool(texts)
        self.documents_in_hand = len(self._digests)
        self.identity = _hash_of([*sorted(self._digests), *(part for one in self.streams for part in one.identity)])
        parts = (part for one in self.streams for part in (*one.identity, one.label))
        self.labelled_identity = _hash_of([*sorted(labelled), *parts])

    @property
    def streamed(self) -> bool:
        """Whether it is longer than anyone wants to read."""
        return bool(self.streams)

    def documents(self, seed: int) -> Iterator[Document]:
        """All documents, in an order that the seed decides.

        Where streams and texts in hand come together, they take turns, each until it is used up.

        Raises:
            UserError: the hub went out of reach.
        """
        in_hand = [self._shuffled(seed)] if self.documents_in_hand else []
        return _taking_turns([*in_hand, *(stream.documents(seed) for stream in self.streams)])

    def _shuffled(self, seed: int) -> Iterator[Document]:
        keys = [hashlib.sha256(f"{seed} {digest}".encode()).digest() for digest in self._digests]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        for start in range(0, len(order), _READ_BATCH):
            batch = self._spool[order[start : start + _READ_BATCH]]
            yield from itertools.starmap(Document, zip(batch["text"], batch["domain"], batch["digest"], strict=True))


def open_corpus(sources: Sequence[str], text_field: str | None = None) -> Corpus:
    """Find, read and hash the corpora that were named (`sources.parse_sources`), each perhaps as `LABEL=…`.

    The domain of a document is the label of its source; without one, the source's name. `text_field` is the field of
    records that holds the text, `text` if None; a data set of the hub may name its own.

    Raises:
        UserError: there is no such file, it cannot be read as text, it is empty, or the hub is out of reach.
    """
    if not sources:
        raise UserError("No corpus was named; give --corpus c4, builtin, hf:NAME, or a path.")
    found = parse_sources(sources)
    streams = [resolve(hub, source.label, text_field) for source in found if (hub := source.hub)]
    for first, second in itertools.combinations(streams, 2):
        if first.identity == second.identity:
            raise UserError(f"The corpus {second.asked} is named twice; name it once.")
    field = TextField(text_field or TEXT)
    texts = ((text, source.label) for source in found if not source.hub for text in _texts(source.place, field))
    return Corpus(" + ".join(source.label for source in found), texts, streams)


def _texts(source: str, field: TextField) -> Iterator[str]:
    found = False
    for text in _builtin_texts() if source == BUILTIN else _file_texts(source, field):
        found = True
        yield text
    if not found:
        raise UserError(f"The corpus {source} is empty: it holds no text.")


def _builtin_texts() -> Iterator[str]:
    from rare_tokens.ingest.embedded import reference_documents

    yield from reference_documents()


def _file_texts(source: str, field: TextField) -> Iterator[str]:
    for file in corpus_files(Path(source).expanduser()):
        yield from read_texts(file, field)


def _taking_turns(sources: list[Iterator[Document]]) -> Iterator[Document]:
    while len(sources) > 1:
        for source in list(sources):
            found = next(source, None)
            if found is None:
                sources.remove(source)
            else:
                yield found
    if sources:
        yield from sources[0]


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
                digests += [one.digest for one in batch]
                labelled += [f"{one.domain} {one.digest}" for one in batch]
                writer.write_batch(_record_batch(batch))
        return quiet_datasets().Dataset.from_file(str(folder / "texts.arrow")), digests, labelled
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
        batch.append(document(text, domain))
        size += len(text)
        if size >= _SPOOL_BATCH:
            yield batch
            batch, size = [], 0
    yield batch


def _record_batch(documents: list[Document]) -> pa.RecordBatch:
    rows = [{"text": item.text, "domain": item.domain, "digest": item.digest} for item in documents]
    return pa.RecordBatch.from_pylist(rows, schema=_SPOOL)
