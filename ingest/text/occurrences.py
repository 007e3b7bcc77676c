"""Occurrences of chosen tokens in a corpus, each with the window of text before it and how it is used there."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.corpus import Document
from rare_tokens.ingest.text.parts_of_speech import Tagger, Usage, usage
from rare_tokens.ingest.text.windows import Tokenised, separator_token_id, tokenised_documents

PER_DOCUMENT = 5  # occurrences of a token taken of one document, so that a long one does not give them all


@dataclass(frozen=True)
class Drawn:
    """A document that an occurrence lies in; `number` counts the documents read, from 0."""

    number: int
    document: Document
    tokens: int


@dataclass(frozen=True)
class Occurrence:
    """A token where it stands.

    Attributes:
        token_id: the token, the target.
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
    """Where occurrences are looked for, and how.

    Attributes:
        tokenizer: a fast one, which knows which characters a token covers.
        window: tokens before a target; with `begin_token` the first of them is the begin token.
        limit: tokens read at most; None: all.
    """

    tokenizer: PreTrainedTokenizerBase
    tagger: Tagger
    window: int
    begin_token: bool
    limit: int | None

    def __post_init__(self) -> None:
        """Refuse a tokenizer that the search cannot work with.

        Raises:
            UserError: it does not know the characters of a token, or has no begin token where one is asked for.
        """
        if not self.tokenizer.is_fast:
            raise UserError(
                "--contexts nc-matched: the tokenizer does not tell which characters a token covers; "
                "save it in the form tokenizer.json."
            )
        if self.begin_token and self.tokenizer.bos_token_id is None:
            raise UserError("--begin-token: the tokenizer has no begin token; leave the option out.")

    def occurrences(
        self, documents: Iterable[Document], wanted: Mapping[int, int], domains: Collection[str] | None = None
    ) -> Iterator[Occurrence]:
        """Occurrences of tokens in the order of the text: of each token at most so many in a domain as `wanted` says.

        Documents follow each other with a separator between them, as in a sample (`windows`), so that there is
        a window of text before a token wherever in its document it stands; the first tokens of all have none.
        Of one sentence a token is taken once. With `domains` others are left out, and reading stops where every token
        has its number in each of them.
        """
        taken: Counter[tuple[int, str]] = Counter()
        lacking = None if domains is None else len(domains) * len(wanted)
        is_wanted = np.zeros(max(wanted, default=0) + 1, dtype=bool)
        is_wanted[list(wanted)] = True
        for before, drawn, ids in self._read(documents):
            domain = drawn.document.domain
            if domains is not None and domain not in domains:
                continue
            known = ids < len(is_wanted)
            where = np.flatnonzero(known & is_wanted[np.where(known, ids, 0)])
            where = where[[taken[token, domain] < wanted[token] for token in ids[where].tolist()]]
            if not len(where):
                continue
            for found in self._of_document(before, drawn, ids, where, wanted, taken):
                yield found
                if lacking is not None and taken[found.token_id, domain] == wanted[found.token_id]:
                    lacking -= 1
            if lacking == 0:
                return

    def _read(self, documents: Iterable[Document]) -> Iterator[tuple[NDArray[np.int64], Drawn, NDArray[np.int64]]]:
        """Each document's tokens with the `window` tokens of the stream before them."""
        separator = np.array([separator_token_id(self.tokenizer)], dtype=np.int64)
        before = np.zeros(0, dtype=np.int64)
        read = 0
        for number, tokenised in enumerate(tokenised_documents(documents, self.tokenizer)):
            if not len(tokenised.ids):
                continue
            yield before, Drawn(number, tokenised.document, len(tokenised.ids)), tokenised.ids
            before = np.concatenate([before, tokenised.ids, separator])[-self.window :]
            read += len(tokenised.ids)
            if self.limit is not None and read >= self.limit:
                return

    def _of_document(
        self,
        before: NDArray[np.int64],
        drawn: Drawn,
        ids: NDArray[np.int64],
        where: NDArray[np.int64],
        wanted: Mapping[int, int],
        taken: Counter[tuple[int, str]],
    ) -> Iterator[Occurrence]:
        text, domain = drawn.document.text, drawn.document.domain
        spans = self._spans(Tokenised(drawn.document, ids))
        stream = np.concatenate([before, ids])
        sentences: set[tuple[int, int]] = set()
        here: Counter[int] = Counter()
        for index in where.tolist():
            token, end = int(ids[index]), index + len(before)
            first = end - self.window + self.begin_token
            if first < 0 or taken[token, domain] >= wanted[token] or here[token] >= PER_DOCUMENT:
                continue
            start, stop = spans[index]
            used = usage(text, start, stop, self.tagger)
            if used is None or (token, used.sentence) in sentences:
                continue
            sentences.add((token, used.sentence))
            taken[token, domain] += 1
            here[token] += 1
            begin = [self.tokenizer.bos_token_id] if self.begin_token else []
            window = np.array([*begin, *stream[first : end + 1].tolist()], dtype=np.int64)
            yield Occurrence(token, window, used, drawn)

    def _spans(self, tokenised: Tokenised) -> list[tuple[int, int]]:
        """First and last character of each token in its document's text."""
        encoded = self.tokenizer(
            tokenised.document.text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True,
            return_attention_mask=False, return_token_type_ids=False, verbose=False,
        )  # fmt: skip
        assert len(encoded["offset_mapping"]) == len(tokenised.ids), "a document is tokenised the same way each time"
        return [(int(start), int(end)) for start, end in encoded["offset_mapping"]]
