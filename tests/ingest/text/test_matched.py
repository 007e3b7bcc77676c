"""Matched contexts: which tokens are paired, where, with which text before them, and why there are none."""

import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from transformers import PreTrainedTokenizerFast

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text import matched as matching
from rare_tokens.ingest.text import parts_of_speech
from rare_tokens.ingest.text.corpus import Corpus
from rare_tokens.ingest.text.counts import Frequencies
from rare_tokens.ingest.text.matched import CONTEXTS, NothingToMeasureError, draw_contexts
from rare_tokens.ingest.text.reading import tokenised_documents
from rare_tokens.ingest.text.spelling import token_table
from rare_tokens.ingest.text.windows import Sample
from tests.support.matched_texts import COMMON, RARE, documents, matched_counts, matched_tokenizer
from tests.support.tiny import VOCABULARY

WINDOW = 24
TEXTS = {"news": documents([*RARE, *COMMON], 0, count=40), "novel": documents([*RARE, *COMMON], 1, count=90)}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return matched_tokenizer()


def corpus_of(texts: dict[str, list[str]]) -> Corpus:
    return Corpus(" + ".join(texts), iter([(text, domain) for domain, some in texts.items() for text in some]))


def drawn(tokenizer, texts=TEXTS, *, counts=None, **changed) -> Sample:
    counts = matched_counts(tokenizer) if counts is None else counts
    how = {"positions": 10_000, "window": WINDOW, "seed": 0} | changed
    source = Frequencies(counts, "counts.npy", "counts-0")
    return draw_contexts(corpus_of(texts), tokenizer, source, token_table(tokenizer, VOCABULARY), **how)


@pytest.fixture(scope="module")
def sample(tokenizer) -> Sample:
    return drawn(tokenizer)


@pytest.fixture(scope="module")
def matched(sample) -> pl.DataFrame:
    """Each position's pair, target and document."""
    documents_of = pl.DataFrame({"document_id": sample.document_ids[:, 0].astype(np.uint32), "target": sample.targets})
    positions = pl.concat([sample.contexts, documents_of], how="horizontal")
    return positions.join(sample.documents, on="document_id", maintain_order="left")


# --- pairs ----------------------------------------------------------------------------------------------------------


def test_each_rare_token_has_one_common_token_of_its_own_and_of_its_length(tokenizer, matched):
    words = {word: tokenizer.convert_tokens_to_ids(word) for word in (*RARE, *COMMON)}
    of_pair = matched.group_by("pair_id", "token_group").agg(pl.col("target").unique().sort())
    assert of_pair["target"].list.len().unique().to_list() == [1]
    pairs = of_pair.with_columns(pl.col("target").list.first()).pivot("token_group", index="pair_id", values="target")
    assert pairs["rare"].is_unique().all()
    assert pairs["common"].is_unique().all()
    assert set(pairs["rare"]) <= {words[word] for word in RARE}
    assert set(pairs["common"]) <= {words[word] for word in COMMON}
    assert len(pairs) >= 10
    for rare, common in pairs.select("rare", "common").iter_rows():
        first, second = tokenizer.convert_ids_to_tokens([rare, common])
        assert abs(len(first) - len(second)) <= 1, (first, second)


def test_the_two_occurrences_of_a_context_are_alike(matched):
    alike = ["part_of_speech", "sentence_place", "is_whole_word", "domain"]
    both = matched.partition_by("token_group", as_dict=True)
    rare, common = (both[name,].sort("pair_id", "context_id") for name in ("rare", "common"))
    columns = ["pair_id", "context_id", *alike]
    assert rare.select(columns).equals(common.select(columns))
    assert rare.height == matched.height / 2
    sizes = rare.group_by("pair_id").len()["len"]
    assert sizes.max() == CONTEXTS, "there are occurrences enough"
    assert set(rare["domain"]) == {"news", "novel"}
    assert set(rare["sentence_place"]) == set(parts_of_speech.PLACES)
    one_domain = rare.group_by("pair_id", "domain").len()["len"]
    assert one_domain.max() < CONTEXTS, "domains share a pair's contexts"


def test_every_position_is_an_occurrence_with_the_text_before_it(tokenizer, sample, matched):
    """By a plain reading: the stream of documents, the sentence between two full stops, thirds of its words."""
    stop, separator = tokenizer.convert_tokens_to_ids(["."])[0], tokenizer.eos_token_id
    stream: list[int] = []
    owner: list[str] = []
    for document in tokenised_documents(corpus_of(TEXTS).documents(0), tokenizer):
        ids = [*document.ids.tolist(), separator]
        stream += ids
        owner += [document.document.digest] * len(ids)
    found: Counter[int] = Counter()
    rows = zip(sample.tokens.tolist(), matched.iter_rows(named=True), strict=True)
    for window, row in rows:
        assert window[-1] == row["target"]
        ends = [
            end
            for end in range(WINDOW, len(stream))
            if owner[end] == row["document_hash"] and stream[end - WINDOW : end + 1] == window
        ]
        assert ends, "the window is text that stands before the target in its document"
        places = set()
        for end in ends:
            first = max(index for index in range(-1, end) if index < 0 or stream[index] in (stop, separator)) + 1
            last = stream.index(stop, end)
            places.add(parts_of_speech.PLACES[3 * (end - first) // (last - first)])
            found[end] += len(ends) == 1
        assert row["sentence_place"] in places
    assert max(found.values()) == 1, "no occurrence is taken twice"


def test_n_positions_of_one_target_and_where_they_begin(sample, matched):
    assert sample.predicted == 1
    assert sample.tokens.shape == (len(matched), WINDOW + 1)
    assert matched["position_id"].to_list() == list(range(len(matched)))
    assert sample.documents["document_id"].to_list() == list(range(len(sample.documents)))
    first = matched.group_by("document_id").agg(pl.col("position_id").min()).sort("document_id")["position_id"]
    assert sample.documents["first_position"].to_list() == first.to_list()
    assert sample.notes["pairs"] == matched["pair_id"].n_unique()
    assert sample.notes["matched_contexts"] == len(matched) / 2


def test_the_same_seed_finds_the_same_and_another_finds_others(tokenizer, sample):
    turned = {name: list(reversed(TEXTS[name])) for name in reversed(TEXTS)}
    again = drawn(tokenizer, turned)
    assert np.array_equal(again.tokens, sample.tokens), "the order in which texts come plays no part"
    assert again.contexts.equals(sample.contexts)
    assert not np.array_equal(drawn(tokenizer, seed=1).tokens, sample.tokens)


def test_a_begin_token_takes_the_first_place_of_each_window(tokenizer, sample):
    begun = drawn(tokenizer, begin_token=True)
    assert (begun.tokens[:, 0] == tokenizer.bos_token_id).all()
    assert begun.tokens.shape[1] == WINDOW + 1
    assert np.array_equal(begun.tokens[:, 2:], sample.tokens[:, 2:]), (
        "and the text before the target is as long less one"
    )


@pytest.mark.parametrize(("positions", "contexts_a_pair"), [(101, 4), (24, 1), (20, 1)])
def test_of_fewer_positions_each_pair_gets_some(tokenizer, sample, positions, contexts_a_pair):
    fewer = drawn(tokenizer, positions=positions)
    assert len(fewer.targets) <= positions
    assert fewer.contexts["context_id"].max() + 1 == contexts_a_pair
    assert fewer.notes["pairs"] == min(sample.notes["pairs"], positions // 2)
    key = ["pair_id", "context_id", "token_group"]
    same = sample.contexts.join(fewer.contexts.select(key), on=key, maintain_order="left")["position_id"].to_numpy()
    assert np.array_equal(fewer.tokens, sample.tokens[same]), "the same contexts, but fewer of them"


# --- why there are none ---------------------------------------------------------------------------------------------


def test_a_small_frequency_source_is_the_reason(tokenizer):
    with pytest.raises(NothingToMeasureError, match=r"has 9,999,\d+ tokens.*10,000,000.*--frequencies"):
        drawn(tokenizer, counts=matched_counts(tokenizer, scale=0.49998))


def test_a_source_without_rare_tokens_is_the_reason(tokenizer):
    counts = matched_counts(tokenizer)
    counts[tokenizer.convert_tokens_to_ids(RARE)] = 0
    with pytest.raises(NothingToMeasureError, match=r"no token of letters that is rarer than 1\.776e-07"):
        drawn(tokenizer, counts=counts)


@pytest.mark.parametrize(
    ("nouns", "says"),  # one of the five is no noun to the tagger
    [
        (COMMON, r"0 of the 10 needed. 0 of 13 rare"),
        (RARE, r"0 of the 10 needed. 13 of 13 rare"),
        ([*RARE[:5], *COMMON], r"4 of the 10 needed. 5 of 13 rare"),
    ],
)
def test_too_few_pairs_are_the_reason(tokenizer, nouns, says):
    with pytest.raises(NothingToMeasureError, match=says):
        drawn(tokenizer, {"news": documents(nouns, 0)})


def test_thresholds_are_of_frequency(tokenizer):
    """A token is rare below 1.776e-7 and common above 1.776e-5: the counts on both sides of each line."""
    counts = matched_counts(tokenizer)
    zebra, walrus, table, window = tokenizer.convert_tokens_to_ids(["zebra", "walrus", "table", "window"])
    total = counts.sum()
    counts[[zebra, walrus, table, window]] = [3, 4, 355, 356]  # of 20 million: 1.5e-7, 2e-7, 1.775e-5, 1.78e-5
    counts[tokenizer.convert_tokens_to_ids("the")] += total - counts.sum()
    types = matching.token_types(Frequencies(counts, "c", "c"), token_table(tokenizer, VOCABULARY))
    assert (zebra in types.rare, walrus in types.rare) == (True, False)
    assert (table in types.common, window in types.common) == (False, True)


def test_a_tokenizer_without_characters_is_refused(tokenizer):
    slow = SimpleNamespace(is_fast=False, bos_token_id=0, eos_token_id=0)
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        draw_contexts(
            corpus_of(TEXTS), slow, Frequencies(matched_counts(tokenizer), "c", "c"),
            token_table(tokenizer, VOCABULARY), positions=100, window=8, seed=0,
        )  # fmt: skip


# --- how a token is used --------------------------------------------------------------------------------------------

PROSE = (
    "Chapter 1\n\nMr. Smith, who lived in London, didn't suggest that we go. The wind blew hard! "
    '"Come," he said to the captain at once.\nNo.\n\nIt is 3.5 miles to J. P. Morgan\'s old house'
)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("London", ("PROPN", "middle", True, "Mr.")),
        (" Smith", ("PROPN", "beginning", True, "Mr.")),
        ("did", ("VERB", "middle", True, "Mr.")),
        ("ugges", ("VERB", "end", False, "Mr.")),
        ("wind", ("NOUN", "beginning", True, "The wind")),
        ("captain", ("NOUN", "middle", True, '"Come')),
        ("Morgan", ("PROPN", "end", True, "It is")),
        ("house", ("NOUN", "end", True, "It is")),
        ("Chapter", None),  # two words are no sentence
        (", who", None),  # more than one word
        (",", None),
    ],
)
def test_usage(token, expected):
    start = PROSE.index(token)
    found = parts_of_speech.usage(PROSE, start, start + len(token), parts_of_speech.load_tagger())
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found.part_of_speech, found.place, found.is_whole) == expected[:3]
    assert PROSE[found.sentence :].startswith(expected[3])


def test_what_is_too_long_for_a_sentence_is_none():
    text = "word " * 101
    assert parts_of_speech.usage(text, 50, 54, parts_of_speech.load_tagger()) is None
    assert parts_of_speech.usage(text[:500], 50, 54, parts_of_speech.load_tagger()) is not None


@pytest.mark.parametrize("text", ["☃ ☃ ñandú … cœur bat vite", "日本 の 川 は 長い です よ", "e\u0301 \u200b a b c d"])
def test_any_text_can_be_tagged(text):
    for start in range(len(text)):
        parts_of_speech.usage(text, start, start + 1, parts_of_speech.load_tagger())


class Word:
    """A token as spaCy gives it."""

    def __init__(self, idx: int, pos_: str, dep_: str) -> None:
        self.idx, self.pos_, self.dep_ = idx, pos_, dep_


def test_a_spacy_model_is_used_where_one_is_installed(monkeypatch):
    def pipeline(sentence: str) -> list[Word]:
        assert sentence == "The wind blew hard."
        return [
            Word(0, "DET", "det"),
            Word(4, "NOUN", "nsubj"),
            Word(9, "VERB", "ROOT"),
            Word(14, "ADV", ""),
            Word(18, "PUNCT", ""),
        ]

    spacy = SimpleNamespace(
        util=SimpleNamespace(get_installed_models=lambda: ["de_core_news_sm", "en_other", "en_core_web_md"]),
        load=lambda name, exclude: pipeline if name == "en_core_web_md" else None,
    )
    versions = {"spacy": "3.9", "en_core_web_md": "3.8.0"}
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    monkeypatch.setattr(parts_of_speech.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(parts_of_speech.importlib.metadata, "version", versions.__getitem__)
    caches = (parts_of_speech.tagger_name, parts_of_speech.load_tagger, parts_of_speech._spacy_model)
    try:
        for cached in caches:
            cached.cache_clear()
        assert parts_of_speech.tagger_name() == "spaCy 3.9 en_core_web_md 3.8.0"
        used = parts_of_speech.usage("The wind blew hard.", 4, 8, parts_of_speech.load_tagger())
        assert used == parts_of_speech.Usage("NOUN", "beginning", True, "nsubj", 0)
        adverb = parts_of_speech.usage("The wind blew hard.", 14, 18, parts_of_speech.load_tagger())
        assert adverb is not None
        assert adverb.role is None
    finally:
        monkeypatch.undo()
        for cached in caches:
            cached.cache_clear()
    assert parts_of_speech.tagger_name().startswith("HanTa ")


def test_contexts_of_one_role_are_put_together_where_there_are_any(sample):
    def one(number: int, role: str) -> matching.Occurrence:
        usage = parts_of_speech.Usage("NOUN", "end", True, role, number)
        return matching.Occurrence(number, np.zeros(2, dtype=np.int64), usage, None)  # type: ignore[arg-type]

    rare = [one(0, "nsubj"), one(1, "dobj"), one(2, "pobj")]
    common = [one(10, "pobj"), one(11, "nsubj"), one(12, "conj"), one(13, "nsubj")]
    couples = matching._couples(rare, common)
    assert [(first.token_id, second.token_id) for first, second in couples] == [(0, 11), (2, 10), (1, 12)]


def test_a_warning_tells_how_many_contexts_there_are_of_how_many_wanted(tokenizer, sample):
    (warning,) = sample.warnings
    assert f"{sample.notes['matched_contexts']} contexts were found for {sample.notes['pairs']} pairs" in warning
    assert drawn(tokenizer, positions=40).warnings == sample.warnings, "that fewer were asked for is no lack"
    plenty = {"novel": documents([*RARE, *COMMON], 4, count=400)}
    assert drawn(tokenizer, plenty, positions=100).warnings == []
