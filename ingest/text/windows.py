"""The sample of a run: documents packed into windows of tokens (docs/definitions.md, "Tokens")."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rare_tokens.common.errors import UserError
from rare_tokens.common.parts import schema
from rare_tokens.ingest.text.reading import Tokenised, begin_token_id, separator_token_id

NO_DOCUMENT = -1
FEW_DOCUMENTS = 5


@dataclass(frozen=True)
class Sample:
    """The tokens that a run predicts.

    Attributes:
        tokens: windows × (window + 1) token ids, int64; position t of a window has input t and target t + 1.
        document_ids: windows × predicted, int64: the document of the *target*, -1 where the target is a separator.
        documents: the documents drawn, in the schema of `dim_document`, numbered in drawing order.
        separator_token_id: the token between documents.
        warnings: what a reader of the results should know about the sample.
        contexts: for matched contexts, the context of each position, in the schema of `position_context`.
        notes: numbers about the search for them.
    """

    tokens: NDArray[np.int64]
    document_ids: NDArray[np.int64]
    documents: pl.DataFrame
    separator_token_id: int
    warnings: list[str] = field(default_factory=list)
    contexts: pl.DataFrame | None = None
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def predicted(self) -> int:
        """Positions predicted per window, its last ones: all of them, or one in a matched context."""
        return self.document_ids.shape[1]

    @property
    def targets(self) -> NDArray[np.int64]:
        """The token to predict at each position, T."""
        return self.tokens[:, -self.predicted :].reshape(-1)

    @property
    def inputs(self) -> NDArray[np.int64]:
        """The token at each position, T."""
        return self.tokens[:, -self.predicted - 1 : -1].reshape(-1)


class Packer:
    """Packs documents into the windows of a sample, until there are as many targets as requested.

    Documents follow each other with one separator between them, and the windows follow each other in that stream:
    window k holds its tokens k · (window + 1) to (k + 1) · (window + 1) - 1. Windows do not overlap, so that no token
    is a target twice; the first token of a window is an input only.

    With `begin_token` each window is the begin token and then `window` tokens of the stream, all of them targets.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, positions: int, window: int, begin_token: bool = False
    ) -> None:
        """Prepare for `positions` targets in windows of `window`.

        Raises:
            UserError: `positions` is not a positive multiple of `window`, or the tokenizer lacks a token.
        """
        if window < 1 or positions < 1 or positions % window:
            raise UserError(f"--tokens {positions} is not a positive multiple of the window, {window}.")
        self._begin = begin_token_id(tokenizer) if begin_token else None
        self._separator = separator_token_id(tokenizer)
        self._positions, self._window = positions, window
        self._taken = window + (not begin_token)  # tokens of the stream that a window takes
        self._needed = positions // window * self._taken
        self._drawn: list[Tokenised] = []
        self._size = 0  # tokens of the stream so far, separators with them

    @property
    def full(self) -> bool:
        """Whether the stream is long enough."""
        return self._size >= self._needed

    def add(self, tokenised: Tokenised) -> None:
        """Append a document to the stream; one without any token is left out."""
        if len(tokenised.ids):
            self._size += len(tokenised.ids) + bool(self._drawn)
            self._drawn.append(tokenised)

    def sample(self, corpus_name: str) -> Sample:
        """Cut the stream into windows.

        Raises:
            UserError: the stream is too short.
        """
        if not self.full:
            self._refuse(corpus_name)
        stream, owner = self._stream()
        windows = self._positions // self._window
        tokens, owners = stream.reshape(windows, self._taken), owner.reshape(windows, self._taken)
        if self._begin is None:
            owners = owners[:, 1:]
        else:
            tokens = np.hstack([np.full((windows, 1), self._begin), tokens])
        document_ids = np.where(tokens[:, 1:] == self._separator, NO_DOCUMENT, owners)
        documents = self._documents(document_ids)
        return Sample(tokens, document_ids, documents, self._separator, self._warnings(documents))

    def _stream(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first tokens of the stream, as many as are needed, and the document of each."""
        pieces: list[NDArray[np.int64]] = []
        for tokenised in self._drawn:
            pieces += [np.array([self._separator]), tokenised.ids]
        lengths = [len(tokenised.ids) for tokenised in self._drawn]
        owner = np.repeat(np.arange(len(lengths)), [length + 1 for length in lengths])  # with the separator before it
        # The stream begins with a document, not with a separator.
        return np.concatenate(pieces)[1 : self._needed + 1], owner[1 : self._needed + 1]

    def _documents(self, document_ids: NDArray[np.int64]) -> pl.DataFrame:
        sampled, first = np.unique(document_ids, return_index=True)
        first_position = dict(zip(sampled.tolist(), first.tolist(), strict=True))
        rows = {
            "document_id": range(len(self._drawn)),
            "document_hash": [item.document.digest for item in self._drawn],
            "domain": [item.document.domain for item in self._drawn],
            "tokens": [len(item.ids) for item in self._drawn],
            "first_position": [first_position.get(document) for document in range(len(self._drawn))],
        }
        empty = pl.DataFrame(schema("dim_document").empty_table())
        return pl.DataFrame(rows, schema=empty.schema)

    def _warnings(self, documents: pl.DataFrame) -> list[str]:
        count = documents["first_position"].count()
        if count >= FEW_DOCUMENTS:
            return []
        return [
            f"All {self._positions:,} sampled positions come from {count} document{'s' * (count > 1)}; "
            "a corpus of more and shorter documents is a broader sample."
        ]

    def _refuse(self, corpus_name: str) -> None:
        largest = self._size // self._taken * self._window
        advice = f"Use --tokens {largest} or fewer, or" if largest else "Use a smaller --window or"
        raise UserError(
            f"The corpus {corpus_name} has {self._size:,} tokens, enough for {largest:,} positions in windows of "
            f"{self._window}; --tokens {self._positions} needs {self._needed:,}. {advice} a longer corpus."
        )
