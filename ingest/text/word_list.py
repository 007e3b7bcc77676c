"""Token counts estimated from a list of word frequencies: `--frequencies wordfreq`, for any English tokenizer.

A corpus of ordinary size leaves most types of a vocabulary without a count. The package wordfreq knows how often
321,180 English words occur (large list, version 3.1), down to 1 in 100 million. Every word is written in the forms in
which running text has it, each form goes through the tokenizer, and its tokens share the word's frequency.
"""

import hashlib
import importlib.metadata
import importlib.util
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rare_tokens.common.errors import UserError
from rare_tokens.common.program import install
from rare_tokens.ingest.text.counts import Frequencies, frequencies

WORDFREQ = "wordfreq"  # as `--frequencies` names it
LANGUAGE, LIST = "en", "large"
RULE = 1  # version of what is done with the list
WORDS = 10**10  # words of running text that the counts are for: the rarest form of the rarest word still counts 1

# Shares of a word's occurrences by form, (lower case, Capitalised, CAPITALS), after a space and not after one. They are
# those of all words in 249 documents of C4, "I" apart, for the list does not tell cases apart.
AFTER_SPACE = (0.8254, 0.1212, 0.0113)
WITHOUT_SPACE = (0.0147, 0.0255, 0.0019)

_TEXT = 20_000  # characters tokenised as one text, about
_BATCH = 64  # texts tokenised at once


def word_list_source(tokenizer_id: str) -> tuple[str, str]:
    """(id, description) of the frequency source, known before anything is counted.

    Raises:
        UserError: the package is not installed.
    """
    if importlib.util.find_spec("wordfreq") is None:
        raise UserError(
            f"--frequencies wordfreq needs the package wordfreq. In this program's folder: {install('wordfreq')}"
        )
    version = importlib.metadata.version("wordfreq")
    key = f"wordfreq {version} {LANGUAGE} {LIST} rule {RULE} {tokenizer_id}"
    source_id = "words-" + hashlib.sha256(key.encode()).hexdigest()[:12]
    return source_id, f"estimated from the {LIST} English word list of wordfreq {version}"


def word_list_counts(tokenizer: PreTrainedTokenizerBase, token_texts: list[str]) -> Frequencies:
    """Expected counts of tokens in `WORDS` words of English; takes 12 s of one core for 50,000 tokens.

    Left out are words with more than one digit, for the list lets `00` stand for every number of two digits. Tokens
    that are blank count 0: they are what stands between the words here.

    Args:
        tokenizer: the model's.
        token_texts: of every token id of the model's vocabulary, V.

    Raises:
        UserError: the package is not installed, or tokenizer and vocabulary do not belong together.
    """
    _, name = word_list_source("")
    import wordfreq

    words = wordfreq.get_frequency_dict(LANGUAGE, wordlist=LIST)
    expected = _shares(tokenizer, list(_weighted_texts(words)), len(token_texts))
    expected[[not text.strip() for text in token_texts]] = 0
    limits = (
        f"Token frequencies are {name}, not counted: punctuation and numbers of several digits count 0 and are in no "
        "token group, names have the share of capitals that any word has, and words rarer than 1 in 100 million are "
        "unknown. Counts of the model's training text are better (--frequencies FILE.npy)."
    )
    return frequencies(_whole(expected * WORDS), name, [limits])


def _shares(tokenizer: PreTrainedTokenizerBase, weighted: list[tuple[float, str]], size: int) -> NDArray[np.float64]:
    """Occurrences of each token per word of running text, shape (`size`,)."""
    found = np.zeros(size)
    for start in range(0, len(weighted), _BATCH):
        batch = weighted[start : start + _BATCH]
        encoded = tokenizer(
            [text for _, text in batch], add_special_tokens=False, split_special_tokens=True,
            return_attention_mask=False, return_token_type_ids=False, verbose=False,
        )["input_ids"]  # fmt: skip
        for (share, _), ids in zip(batch, encoded, strict=True):
            if (largest := max(ids, default=0)) >= size:
                raise UserError(
                    f"The tokenizer gives token {largest}, but the model's vocabulary has {size} tokens: "
                    "they do not belong together."
                )
            found += share * np.bincount(ids, minlength=size)
    return found


def _weighted_texts(words: dict[str, float]) -> Iterator[tuple[float, str]]:
    """Texts of words that have the same share of running text, with that share.

    The list has only some hundreds of different frequencies, so all words of one are tokenised together: each after a
    space, or after a line end, where a word begins a text, a line or a quotation.
    """
    alike: dict[float, list[str]] = defaultdict(list)
    for word, frequency in words.items():
        if sum(letter.isdigit() for letter in word) <= 1:
            alike[frequency].append(word)
    for frequency, some in alike.items():
        by_share: dict[tuple[float, str], list[str]] = defaultdict(list)
        for word in some:
            for before, shares in ((" ", AFTER_SPACE), ("\n", WITHOUT_SPACE)):
                for form, share in _forms(word, shares).items():
                    by_share[share, before].append(form)
        for (share, before), forms in by_share.items():
            for text in _joined(forms, before):
                yield frequency * share, text


def _forms(word: str, shares: tuple[float, float, float]) -> dict[str, float]:
    """The forms of a word, each with its share; equal forms have the sum. *I* is always a capital."""
    capitalised = word[:1].upper() + word[1:]
    always = word == "i" or word.startswith(("i'", "i’"))
    forms: dict[str, float] = defaultdict(float)
    for form, share in zip((capitalised if always else word, capitalised, word.upper()), shares, strict=True):
        forms[form] += share
    return forms


def _joined(forms: list[str], before: str) -> Iterator[str]:
    """Texts of about `_TEXT` characters in which each form stands behind `before`."""
    size = max(1, _TEXT * len(forms) // max(1, sum(map(len, forms))))
    for start in range(0, len(forms), size):
        # The line end keeps the first word's space one that stands within a text.
        yield "\n" + before.strip("\n") + before.join(forms[start : start + size])


def _whole(expected: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts rounded to integers, at least 1 for a token that occurs."""
    return np.where(expected > 0, np.maximum(1, np.rint(expected)), 0).astype(np.int64)
