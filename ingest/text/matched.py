"""Positions for `--contexts nc-matched`: rare tokens, each matched to a common token of its own (NC A.6).

A pair is a rare and a common token that have about the same length and are used alike. A context of the pair is one
occurrence of each token, in the same domain, part of speech and place in the sentence, and in the same syntactic role
where the role is known and such a match exists. The seed decides the order of documents, candidates and pairs.
"""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from transformers import PreTrainedTokenizerBase

from rare_tokens.common.errors import UserError
from rare_tokens.common.parts import schema
from rare_tokens.common.presets import PRESETS
from rare_tokens.ingest.text.corpus import Corpus
from rare_tokens.ingest.text.counts import Frequencies
from rare_tokens.ingest.text.occurrences import Finder, Occurrence, Search
from rare_tokens.ingest.text.parts_of_speech import load_tagger
from rare_tokens.ingest.text.reading import read_documents, read_limit, separator_token_id
from rare_tokens.ingest.text.windows import Sample

NC_MATCHED = "nc-matched"
_PRESET = PRESETS[NC_MATCHED]
assert _PRESET.rare_below is not None
assert _PRESET.common_above is not None
assert _PRESET.least_source is not None
RARE_BELOW, COMMON_ABOVE = _PRESET.rare_below, _PRESET.common_above  # frequencies: 100 and 10,000 of 563,152,038
LEAST_SOURCE = _PRESET.least_source  # tokens that a source needs before it can show such frequencies
CONTEXTS = 20  # per pair, at most (NC A.6)
LEAST_PAIRS = 10  # with fewer, chance decides the mean over the rare tokens
LENGTH_SLACK = 1  # characters
CANDIDATES, LEAST_CANDIDATES = 600, 8  # common tokens examined: about so many in total, at least so many per rare one
CANDIDATE_CONTEXTS = 2 * CONTEXTS  # per common token and domain

Kind = tuple[str, bool]  # part of speech, whether the token is the whole word
Cell = tuple[str, str]  # domain, place in the sentence
Couple = tuple[Occurrence, Occurrence]  # a context: the rare token's occurrence and the common token's


class NothingToMeasureError(UserError):
    """The corpora hold no positions of the requested kind; the message gives the reason."""


@dataclass(frozen=True)
class TokenTypes:
    """The tokens in a vocabulary that may be matched: those made of letters only.

    Attributes:
        lengths: characters per token, without spaces, shape (V,).
        starts_word: the token begins with a space, shape (V,).
        rare, common: token ids, ascending.
    """

    lengths: NDArray[np.int64]
    starts_word: NDArray[np.bool_]
    rare: list[int]
    common: list[int]

    def alike(self, token: int) -> list[int]:
        """Common tokens that have about the same length, and begin a word if and only if `token` does."""
        return [
            other
            for other in self.common
            if abs(int(self.lengths[other] - self.lengths[token])) <= LENGTH_SLACK
            and self.starts_word[other] == self.starts_word[token]
        ]


@dataclass(frozen=True)
class Usages:
    """Occurrences of one token in one kind of use, by cell, in text order."""

    token: int
    kind: Kind
    cells: dict[Cell, list[Occurrence]]


def draw_contexts(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    counts: Frequencies,
    tokens: pl.DataFrame,
    *,
    positions: int,
    window: int,
    seed: int,
    begin_token: bool = False,
) -> Sample:
    """Search a corpus for matched contexts. Each is a window in which only the last token is predicted.

    Args:
        counts: the frequency source.
        tokens: `dim_token` of the model's vocabulary.
        positions: the most to return; a context takes two.
        window: tokens before a target.
        seed: decides every order.
        begin_token: whether a window starts with the begin token, which counts as one of its tokens.

    Raises:
        NothingToMeasureError: the frequency source is too small, or there are too few pairs.
        UserError: the tokenizer cannot be used for this, or the hub can no longer be reached.
    """
    types = token_types(counts, tokens)
    search = Search(tokenizer, load_tagger(), window, begin_token, read_limit(corpus))

    def usages(wanted: dict[int, int], domains: set[str] | None = None) -> dict[int, list[Usages]]:
        finder = Finder(search, wanted, domains)
        read_documents(corpus.documents(seed), tokenizer, [finder])
        return _usages(finder.found)

    met = usages(dict.fromkeys(types.rare, CONTEXTS))
    rare = [kinds[0] for kinds in met.values()]
    each = max(LEAST_CANDIDATES, CANDIDATES // max(1, len(rare)))
    candidates = {other for one in rare for other in _seeded(types.alike(one.token), seed, one.token)[:each]}
    domains = {domain for one in rare for domain, _ in one.cells}
    found = usages(dict.fromkeys(sorted(candidates), CANDIDATE_CONTEXTS), domains)
    common = [one for kinds in found.values() for one in kinds]
    pairs = {first.token: _contexts(first, second) for first, second in _pairs(rare, common, types)}
    ordered = [pairs[token] for token in _seeded(list(pairs), seed)]
    chosen = _within(ordered, positions)
    if len(chosen) < LEAST_PAIRS:
        raise NothingToMeasureError(
            f"Too few pairs of a rare and a common token in {corpus.name}: {len(chosen)} of the {LEAST_PAIRS} needed. "
            f"{len(met)} of {len(types.rare)} rare tokens were found; search larger corpora or other domains."
        )
    notes = {"rare_tokens": len(types.rare), "rare_tokens_met": len(met)}
    return replace(_sample(chosen, separator_token_id(tokenizer), notes), warnings=_warnings(ordered))


def token_types(counts: Frequencies, tokens: pl.DataFrame) -> TokenTypes:
    """The rare and the common tokens in a frequency source, among those made of letters only.

    Raises:
        NothingToMeasureError: the source is too small to tell, or has no rare token.
    """
    total = int(counts.counts.sum())
    if total < LEAST_SOURCE:
        raise NothingToMeasureError(
            f"The frequency source ({counts.name}) has {total:,} tokens; recognising tokens rarer than {RARE_BELOW:g} "
            f"needs {LEAST_SOURCE:,}. Give the counts of a larger one (--frequencies FILE.npy)."
        )
    text = [text.strip() for text in tokens["text"]]
    letters = np.array([word.isalpha() for word in text]) & ~tokens["is_special"].to_numpy()
    frequency = counts.counts / total
    rare = np.flatnonzero(letters & (counts.counts > 0) & (frequency < RARE_BELOW))
    common = np.flatnonzero(letters & (frequency > COMMON_ABOVE))
    if not len(rare):
        raise NothingToMeasureError(
            f"The frequency source ({counts.name}) has no token of letters that is rarer than {RARE_BELOW:g}."
        )
    lengths = np.array([len(word) for word in text])
    spaced = np.array([word[:1].isspace() for word in tokens["text"]])
    return TokenTypes(lengths, spaced, rare.tolist(), common.tolist())


def _usages(occurrences: Iterable[Occurrence]) -> dict[int, list[Usages]]:
    """The occurrences of each token by kind of use, the most frequent kind first (ties by name)."""
    by_kind: dict[int, dict[Kind, list[Occurrence]]] = defaultdict(lambda: defaultdict(list))
    for one in occurrences:
        by_kind[one.token_id][one.usage.part_of_speech, one.usage.is_whole].append(one)
    usages: dict[int, list[Usages]] = {}
    for token, kinds in sorted(by_kind.items()):
        ranked = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))
        usages[token] = [Usages(token, kind, _by_cell(kinds[kind])) for kind in ranked]
    return usages


def _by_cell(occurrences: list[Occurrence]) -> dict[Cell, list[Occurrence]]:
    cells: dict[Cell, list[Occurrence]] = defaultdict(list)
    for one in occurrences:
        cells[one.domain, one.usage.place].append(one)
    return dict(cells)


def _pairs(rare: list[Usages], common: list[Usages], types: TokenTypes) -> list[tuple[Usages, Usages]]:
    """Pair each rare token with a common token of its own, for the largest possible number of contexts in total."""
    cells = sorted({cell for usages in rare for cell in usages.cells})
    tokens = sorted({usages.token for usages in common})
    found = {(usages.token, usages.kind): usages for usages in common}
    sizes = {key: _sizes(usages, cells) for key, usages in found.items()}
    score = np.zeros((len(rare), len(tokens)), dtype=np.int64)
    column = {token: index for index, token in enumerate(tokens)}
    for row, usages in enumerate(rare):
        own = _sizes(usages, cells)
        for other in types.alike(usages.token):
            if (size := sizes.get((other, usages.kind))) is not None:
                score[row, column[other]] = min(CONTEXTS, int(np.minimum(own, size).sum()))
    rows, columns = linear_sum_assignment(score, maximize=True)
    return [
        (rare[row], found[tokens[index], rare[row].kind])
        for row, index in zip(rows.tolist(), columns.tolist(), strict=True)
        if score[row, index]
    ]


def _sizes(usages: Usages, cells: list[Cell]) -> NDArray[np.int64]:
    return np.array([len(usages.cells.get(cell, ())) for cell in cells], dtype=np.int64)


def _contexts(rare: Usages, common: Usages) -> list[Couple]:
    """A pair's contexts, at most `CONTEXTS`; cells take turns, so that every domain and place gets a share."""
    shared = sorted(rare.cells.keys() & common.cells.keys())
    couples = [_couples(rare.cells[cell], common.cells[cell]) for cell in shared]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*couples))
    return [couple for couple in in_turn if couple is not None][:CONTEXTS]


def _couples(rare: list[Occurrence], common: list[Occurrence]) -> list[Couple]:
    """Couples within one cell, first those that share a syntactic role."""
    left, couples, alone = list(common), [], []
    for one in rare:
        same = next((index for index, other in enumerate(left) if other.usage.role == one.usage.role), None)
        if same is None:
            alone.append(one)
        else:
            couples.append((one, left.pop(same)))
    return couples + list(zip(alone, left, strict=False))


def _within(pairs: list[list[Couple]], positions: int) -> list[list[Couple]]:
    """As many pairs as `positions` allow at two positions per context, then as many contexts per pair."""
    kept = pairs[: positions // 2]
    each = next(
        each
        for each in range(CONTEXTS, 0, -1)
        if each == 1 or 2 * sum(min(each, len(one)) for one in kept) <= positions
    )
    return [couples[:each] for couples in kept]


def _warnings(pairs: list[list[Couple]]) -> list[str]:
    found = sum(map(len, pairs))
    if found == CONTEXTS * len(pairs):
        return []
    return [
        f"{found:,} contexts were found for {len(pairs)} pairs, fewer than {CONTEXTS} per pair; "
        "rare tokens need large corpora."
    ]


def _seeded(tokens: list[int], *seed: int) -> list[int]:
    """The tokens in an order that depends on the seed, and not on which other tokens there are."""
    return sorted(tokens, key=lambda token: hashlib.sha256(f"{seed} {token}".encode()).digest())


def _sample(pairs: list[list[Couple]], separator: int, notes: dict[str, int]) -> Sample:
    """The contexts as windows, pair by pair; within a context the rare token comes first."""
    rows: list[dict[str, Any]] = []
    occurrences: list[Occurrence] = []
    for pair, couples in enumerate(pairs):
        for context, couple in enumerate(couples):
            for group, one in zip(("rare", "common"), couple, strict=True):
                used = one.usage
                rows.append(
                    {"position_id": len(rows), "pair_id": pair, "context_id": context, "token_group": group,
                     "part_of_speech": used.part_of_speech, "sentence_place": used.place,
                     "is_whole_word": used.is_whole, "syntactic_role": used.role}
                )  # fmt: skip
                occurrences.append(one)
    numbers = sorted({one.drawn.number for one in occurrences})
    document_ids = np.searchsorted(numbers, [one.drawn.number for one in occurrences])
    return Sample(
        tokens=np.stack([one.window for one in occurrences]),
        document_ids=document_ids[:, None].astype(np.int64),
        documents=_documents(occurrences, document_ids),
        separator_token_id=separator,
        contexts=pl.DataFrame(rows, schema=pl.DataFrame(schema("position_context").empty_table()).schema),
        notes=notes | {"pairs": len(pairs), "matched_contexts": len(rows) // 2},
    )


def _documents(occurrences: list[Occurrence], document_ids: NDArray[np.int64]) -> pl.DataFrame:
    """`dim_document` for the documents that hold contexts, numbered in reading order."""
    ids, first = np.unique(document_ids, return_index=True)
    drawn = [occurrences[position].drawn for position in first.tolist()]
    rows = {
        "document_id": ids,
        "document_hash": [one.document.digest for one in drawn],
        "domain": [one.document.domain for one in drawn],
        "tokens": [one.tokens for one in drawn],
        "first_position": first,
    }
    return pl.DataFrame(rows, schema=pl.DataFrame(schema("dim_document").empty_table()).schema)
