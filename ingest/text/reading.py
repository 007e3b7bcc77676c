"""One pass over a corpus: each document is tokenised once and handed to all readers.

The readers are the sample (`windows.Packer`), the counts (`counts.Counter`) and the search for matched contexts
(`occurrences.Finder`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.corpus import Corpus
from rare_tokens.ingest.text.documents import Document

FIRST_DOCUMENTS = 8  # of a corpus, on which a tokenizer is compared with its file
STREAM_LIMIT = 5_000_000  # tokens read from a stream, to count or to search them

_BATCH_DOCUMENTS = 256
_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Tokenised:
    """A document with its token ids (int64, one per token, no separator)."""

    document: Document
    ids: NDArray[np.int64]


class Reader(Protocol):
    """Takes documents one by one, in their order, until it is full."""

    @property
    def full(self) -> bool:
        """Whether it needs no further document."""

    def add(self, tokenised: Tokenised) -> None:
        """Take the next document; not called once it is full."""


class Opening:
    """Keeps the first documents' texts."""

    def __init__(self) -> None:
        """Begin with none."""
        self.texts: list[str] = []

    @property
    def full(self) -> bool:
        """Whether it has `FIRST_DOCUMENTS`."""
        return len(self.texts) >= FIRST_DOCUMENTS

    def add(self, tokenised: Tokenised) -> None:
        """Take the next document."""
        self.texts.append(tokenised.document.text)


def read_documents(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, readers: Sequence[Reader]
) -> None:
    """Hand documents to each reader until it is full, or no document is left; a stream is read once.

    Raises:
        UserError: a reader refuses a document, or the hub can no longer be reached.
    """
    if not readers:
        return
    for tokenised in tokenised_documents(documents, tokenizer):
        for reader in readers:
            if not reader.full:
                reader.add(tokenised)
        if all(reader.full for reader in readers):
            return


def read_limit(corpus: Corpus) -> int | None:
    """How many tokens to read: all if the corpus is in hand (None), `STREAM_LIMIT` if any of it is streamed."""
    return STREAM_LIMIT if corpus.streamed else None


def separator_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands between documents: the end-of-text token, else the begin token.

    Raises:
        UserError: the tokenizer has neither.
    """
    for token_id in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        if token_id is not None:
            return int(token_id)
    raise UserError(
        "The tokenizer has neither an end-of-text token nor a begin token to put between documents; "
        "name one as `eos_token` in its tokenizer_config.json."
    )


def begin_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that `--begin-token` puts at the start of each window.

    Raises:
        UserError: the tokenizer has none.
    """
    if tokenizer.bos_token_id is None:
        raise UserError("--begin-token: the tokenizer has no begin token; leave the option out.")
    return int(tokenizer.bos_token_id)


def begin_token_note(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What to tell of a tokenizer that begins each text with a token by itself, as windows do not; else None."""
    begin = tokenizer.bos_token_id
    if begin is None or tokenizer("a")["input_ids"][:1] != [begin]:
        return None
    return (
        f"The tokenizer begins each text with {tokenizer.bos_token}, as the model may have learned to expect. Windows "
        "are cut from running text and begin without it; --begin-token puts it at the start of each."
    )


def tokenised_documents(documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase) -> Iterator[Tokenised]:
    """Tokenise each document by itself, without special tokens, in batches (the order stays).

    The name of a special token within a text is text like any other, so that no separator comes from a document.
    """
    for batch in batches(documents):
        encoded = token_ids(tokenizer, [document.text for document in batch])
        for document, ids in zip(batch, encoded, strict=True):
            yield Tokenised(document, np.asarray(ids, dtype=np.int64))


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text by itself, without special tokens; the name of a special token in a text is text."""
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no warning that a document is longer than the model's context: windows are cut from it
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents as they are tokenised: some at a time, in their order."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if len(batch) == _BATCH_DOCUMENTS or size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
