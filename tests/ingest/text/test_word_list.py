"""Counts estimated from a word list: against sums by hand, real counts, and what is refused without the package."""

import importlib.metadata
import importlib.util
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text import word_list
from rare_tokens.ingest.text.spelling import token_table
from rare_tokens.ingest.text.word_list import (
    AFTER_SPACE,
    WITHOUT_SPACE,
    WORDS,
    word_list_counts,
    word_list_source,
)

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
LISTED = {"the": 0.05, "i'm": 0.01, "i": 0.01, "cat": 1e-8, "7": 0.002, "00": 0.3, "0th": 0.001, "😀": 0.004}


def letters() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are bytes, but for words that are given whole."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e"), ("T", "h"), ("Th", "e"), ("t", "h"), ("th", "e")]
    vocabulary = {token: number for number, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def counted(monkeypatch: pytest.MonkeyPatch, listed: dict[str, float]) -> dict[str, int]:
    monkeypatch.setattr("wordfreq.get_frequency_dict", lambda *_, **__: listed)
    tokenizer = letters()
    texts = token_table(tokenizer, len(tokenizer))["text"].to_list()
    counts = word_list_counts(tokenizer, texts).counts
    return {texts[token]: int(counts[token]) for token in np.flatnonzero(counts)}


def test_each_form_of_a_word_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    found = counted(monkeypatch, {"the": 0.05})
    # Here " The" and " THE" are a blank, which counts 0, and pieces of words
    (lower, capital, capitals), (lower_begins, capital_begins, capitals_begin) = AFTER_SPACE, WITHOUT_SPACE
    assert found == pytest.approx(
        {" the": WORDS * 0.05 * lower, "the": WORDS * 0.05 * lower_begins,
         "The": WORDS * 0.05 * (capital + capital_begins),
         "T": WORDS * 0.05 * (capitals + capitals_begin), "H": WORDS * 0.05 * (capitals + capitals_begin),
         "E": WORDS * 0.05 * (capitals + capitals_begin)},
    )  # fmt: skip


def test_what_the_list_does_not_say_is_left_out_and_i_is_a_capital(monkeypatch: pytest.MonkeyPatch) -> None:
    found = counted(monkeypatch, LISTED)
    assert found["I"] == pytest.approx(WORDS * 0.02 * sum(AFTER_SPACE + WITHOUT_SPACE), rel=1e-6)
    assert "i" not in found
    assert found["7"] == pytest.approx(WORDS * 0.002, rel=1e-3), "a digit has one form"
    assert found["0"] == pytest.approx(WORDS * 0.001, rel=1e-3), "0th, but not 00, which stands for all of two digits"
    assert found["c"] == round(WORDS * 1e-8 * (AFTER_SPACE[0] + WITHOUT_SPACE[0]))
    assert " " not in found
    assert "\n" not in found


def test_a_token_that_occurs_counts_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(counted(monkeypatch, {"z": 1e-15}).values()) == {1}


def test_source_is_identified_by_package_list_rule_and_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    source_id, name = word_list_source("tokenizer")
    assert name == f"estimated from the large English word list of wordfreq {importlib.metadata.version('wordfreq')}"
    assert source_id == word_list_source("tokenizer")[0] != word_list_source("another")[0]
    monkeypatch.setattr(word_list, "RULE", 2)
    assert source_id != word_list_source("tokenizer")[0]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(UserError, match=r'python -m pip install -c constraints.txt "\.\[wordfreq\]"'):
        word_list_source("tokenizer")


def test_a_vocabulary_that_is_too_small_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wordfreq.get_frequency_dict", lambda *_, **__: {"the": 0.05})
    with pytest.raises(UserError, match="they do not belong together"):
        word_list_counts(letters(), ["a"] * 20)


def test_shares_are_those_of_words_in_c4(real_inputs: Path) -> None:
    found: Counter[tuple[bool, int]] = Counter()
    for line in (real_inputs / "corpora" / "c4-sample" / "c4_sample.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        for match in WORD.finditer(text):
            word = match[0]
            if word != "I" and not word.startswith(("I'", "I’")):
                case = 2 if len(word) > 1 and word.isupper() else int(word[0].isupper())
                found[text[match.start() - 1 : match.start()] == " ", case] += 1
    total = found.total()
    assert [found[True, case] / total for case in range(3)] == pytest.approx(AFTER_SPACE, abs=1e-4)
    assert [found[False, case] / total for case in range(3)] == pytest.approx(WITHOUT_SPACE, abs=1e-4)
    assert sum(AFTER_SPACE + WITHOUT_SPACE) == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "agreement"), [("gpt2", "gpt2-openwebtext", 0.77), ("gpt-neox", "pythia-pile", 0.72)]
)
def test_nearly_all_words_of_a_real_vocabulary_have_a_count(
    real_inputs: Path, name: str, source: str, agreement: float
) -> None:
    """And the rarer half of them is mostly the one that published counts give."""
    tokenizer = AutoTokenizer.from_pretrained(real_inputs / "tokenizers" / name)
    published = np.load(real_inputs / "frequencies" / f"{source}.npy")
    tokens = token_table(tokenizer, len(published))
    found = word_list_counts(tokenizer, tokens["text"].to_list())
    words = tokens["is_word"].to_numpy()
    assert (found.counts[words] > 0).mean() > 0.99
    assert WORDS < found.counts.sum() < 1.3 * WORDS
    both = words & (found.counts > 0) & (published > 0)
    estimated, real = found.counts[both], published[both]
    assert ((estimated < np.median(estimated)) == (real < np.median(real))).mean() > agreement
    assert "punctuation" in found.warnings[0]
