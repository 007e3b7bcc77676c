"""Where chosen tokens occur in a corpus, each with the window of text before it and how it is used there."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.documents import Document
from rare_tokens.ingest.text.parts_of_speech import Tagger, Usage, usage
from rare_tokens.ingest.text.reading import Tokenised, begin_token_id, separator_token_id

PER_DOCUMENT = 5  # occurrences of a token per document, so that a long one does not supply them all


@dataclass(frozen=True)
class Drawn:
    """A document with an occurrence in it; `number` counts the documents read, from 0."""

    number: int
    document: Document
    tokens: int


@dataclass(frozen=True)
class Occurrence:
    """One occurrence of a token.

    Attributes:
        token_id: the token, which is the target.
        window: the tokens before it and the token itself, window + 1 ids.
        usage: its part of speech, place and role.
        drawn: the document.
    """

    token_id: int
    window: NDArray[np.int64]
    usage: Usage
    drawn: Drawn

    @property
    def domain(self) -> str:
        """Label of the corpus that the document is from."""
        return self.drawn.document.domain


@dataclass(frozen=True)
class Search:
    """How to look for occurrences.

    Attributes:
        tokenizer: a fast one, which knows which characters a token covers.
        tagger: says how a token is used.
        window: tokens before a target; with `begin_token` the first of them is the begin token.
        limit: the most tokens to read; None: all.
    """

    tokenizer: PreTrainedTokenizerBase
    tagger: Tagger
    window: int
    begin_token: bool
    limit: int | None

    def __post_init__(self) -> None:
        """Refuse a tokenizer that is of no use for the search.

        Raises:
            UserError: it does not know the characters of a token, or has no begin token where one is asked for.
        """
        if not self.tokenizer.is_fast:
            raise UserError(
                "--contexts nc-matched: the tokenizer does not say which characters a token covers; "
                "save it as tokenizer.json."
            )
        if self.begin_token:
            begin_token_id(self.tokenizer)


class Finder:
    """Finds occurrences of tokens in documents, in text order.

    Documents follow each other with a separator between them, as in a sample (`windows`), so a token has a window of
    text before it wherever it stands in its document; only the first tokens of all have none. A sentence gives a token
    once at most.

    Attributes:
        found: the occurrences so far.
    """

    def __init__(self, search: Search, wanted: Mapping[int, int], domains: Collection[str] | None = None) -> None:
        """Look for the tokens in `wanted`, which gives the most occurrences per token and domain.

        With `domains`, other domains are skipped, and the finder is full once each token has that many in each domain.
        """
        self.search, self.found = search, list[Occurrence]()
        self._wanted, self._domains = wanted, domains
        self._is_wanted = np.zeros(max(wanted, default=0) + 1, dtype=bool)
        self._is_wanted[list(wanted)] = True
        self._taken: Counter[tuple[int, str]] = Counter()
        self._lacking = None if domains is None else len(domains) * len(wanted)
        self._separator = np.array([separator_token_id(search.tokenizer)], dtype=np.int64)
        self._before = np.zeros(0, dtype=np.int64)  # the tokens before the next document, one window at most
        self._documents = self._read = 0

    @property
    def full(self) -> bool:
        """Whether nothing is missing, or the limit is reached."""
        return self._lacking == 0 or (self.search.limit is not None and self._read >= self.search.limit)

    def add(self, tokenised: Tokenised) -> None:
        """Look through a document."""
        number = self._documents
        self._documents += 1
        if not len(tokenised.ids):
            return
        if self._domains is None or tokenised.document.domain in self._domains:
            self._look(tokenised, Drawn(number, tokenised.document, len(tokenised.ids)))
        self._before = np.concatenate([self._before, tokenised.ids, self._separator])[-self.search.window :]
        self._read += len(tokenised.ids)

    def _look(self, tokenised: Tokenised, drawn: Drawn) -> None:
        ids, domain = tokenised.ids, drawn.document.domain
        known = ids < len(self._is_wanted)
        where = np.flatnonzero(known & self._is_wanted[np.where(known, ids, 0)])
        where = where[[self._taken[token, domain] < self._wanted[token] for token in ids[where].tolist()]]
        if not len(where):
            return
        for one in self._of_document(tokenised, drawn, where):
            self.found.append(one)
            if self._lacking is not None and self._taken[one.token_id, domain] == self._wanted[one.token_id]:
                self._lacking -= 1

    def _of_document(self, tokenised: Tokenised, drawn: Drawn, where: NDArray[np.int64]) -> Iterator[Occurrence]:
        """The usable occurrences among the tokens at `where`."""
        ids, text, domain = tokenised.ids, drawn.document.text, drawn.document.domain
        begin = [self.search.tokenizer.bos_token_id] if self.search.begin_token else []
        spans = self._spans(tokenised)
        stream = np.concatenate([self._before, ids])
        sentences: set[tuple[int, int]] = set()
        here: Counter[int] = Counter()
        for index in where.tolist():
            token, end = int(ids[index]), index + len(self._before)
            first = end - self.search.window + len(begin)
            if first < 0 or self._taken[token, domain] >= self._wanted[token] or here[token] >= PER_DOCUMENT:
                continue
            start, stop = spans[index]
            used = usage(text, start, stop, self.search.tagger)
            if used is None or (token, used.sentence) in sentences:
                continue
            sentences.add((token, used.sentence))
            self._taken[token, domain] += 1
            here[token] += 1
            window = np.array([*begin, *stream[first : end + 1].tolist()], dtype=np.int64)
            yield Occurrence(token, window, used, drawn)

    def _spans(self, tokenised: Tokenised) -> list[tuple[int, int]]:
        """First and last character of each token in its document's text."""
        encoded = self.search.tokenizer(
            tokenised.document.text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True,
            return_attention_mask=False, return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        assert len(encoded["offset_mapping"]) == len(tokenised.ids), "a document is tokenised the same way each time"
        return [(int(start), int(end)) for start, end in encoded["offset_mapping"]]
