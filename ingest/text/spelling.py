"""What each token id is: its text, whether it is an English word, and whether it begins one."""

import re
from functools import cache

import polars as pl
from spellchecker import SpellChecker
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rare_tokens.common.parts import schema

_ANCHORS = ("a", "e", "o", "A", "0")
_BYTE_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}


def token_table(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> pl.DataFrame:
    """One row per token id of the model's vocabulary, in the schema of `dim_token`.

    A token's text is what it adds when it is decoded within a text, so a leading space stays. Bytes that are not a
    whole character decode to U+FFFD. Ids that the tokenizer lacks (a padded vocabulary) have the text '' and count as
    special, so no group takes them.
    """
    texts = _token_texts(tokenizer, vocabulary_size)
    names = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    known = {token_id for token_id in tokenizer.get_vocab().values() if token_id < vocabulary_size}
    added = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = added | set(tokenizer.all_special_ids)
    stripped = [text.strip() for text in texts]
    is_special = [token_id in special or token_id not in known for token_id in range(vocabulary_size)]
    rows = {
        "token_id": range(vocabulary_size),
        "text": texts,
        "is_word": [word and not other for word, other in zip(are_words(stripped), is_special, strict=True)],
        "starts_word": [
            not other and text[:1].isspace() and bare[:1].isalpha()
            for text, bare, other in zip(texts, stripped, is_special, strict=True)
        ],
        "is_special": is_special,
        "bytes": [
            part_of_character(names.get(token_id, "")) if "\ufffd" in text else None
            for token_id, text in enumerate(texts)
        ],
    }
    return pl.DataFrame(rows, schema=pl.DataFrame(schema("dim_token").empty_table()).schema)


def part_of_character(token: str) -> bytes | None:
    """The bytes that a token stands for, read from its name in the vocabulary; None if the name does not say.

    Byte-level vocabularies have a printable character for each byte (GPT-2's table); those with byte fallback name a
    byte in hexadecimal, ``<0xE2>``.
    """
    if fallback := _BYTE_FALLBACK.fullmatch(token):
        return bytes([int(fallback[1], 16)])
    values = [_BYTES.get(character) for character in token]
    known = [value for value in values if value is not None]
    return bytes(known) if known and len(known) == len(values) else None


def are_words(texts: list[str]) -> list[bool]:
    """Whether each text is an English word: alphabetic, two letters or more, and in pyspellchecker's dictionary.

    Upper and lower case count alike, so that `The` and `LONDON` are words.
    """
    dictionary = _dictionary()
    return [len(text) > 1 and text.isalpha() and text.lower() in dictionary for text in texts]


@cache
def _dictionary() -> frozenset[str]:
    """The dictionary's words in lower case; they take 0.2 s to load."""
    return frozenset(SpellChecker())


def _token_texts(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> list[str]:
    """The text of each id, '' for ids beyond the tokenizer.

    A sentencepiece decoder drops the space that a text begins with, so each token is decoded after a letter, which is
    then taken off again.
    """
    ids = range(min(len(tokenizer), vocabulary_size))
    vocabulary = tokenizer.get_vocab()
    padding = [""] * (vocabulary_size - len(ids))
    for anchor in _ANCHORS:
        if anchor in vocabulary and _decode(tokenizer, [[vocabulary[anchor]]]) == [anchor]:
            pairs = _decode(tokenizer, [[vocabulary[anchor], token_id] for token_id in ids])
            return [text.removeprefix(anchor) for text in pairs] + padding
    return _decode(tokenizer, [[token_id] for token_id in ids]) + padding


def _decode(tokenizer: PreTrainedTokenizerBase, sequences: list[list[int]]) -> list[str]:
    return tokenizer.batch_decode(sequences, skip_special_tokens=False, clean_up_tokenization_spaces=False)
