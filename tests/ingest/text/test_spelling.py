"""The table of tokens: their text within a text, and which are words."""

from pathlib import Path

import polars as pl
import pytest
from transformers import AutoTokenizer

from rare_tokens.common.parts import schema
from rare_tokens.ingest.text.spelling import are_words, part_of_character, token_table
from tests.support.tiny import VOCABULARY, tiny_tokenizer


def rows(table: pl.DataFrame, *texts: str) -> dict[str, tuple[bool, bool, bool]]:
    """(is_word, starts_word, is_special) of the tokens with these texts."""
    kept = table.filter(pl.col("text").is_in(texts))
    return {row["text"]: (row["is_word"], row["starts_word"], row["is_special"]) for row in kept.to_dicts()}


@pytest.fixture(scope="module")
def gpt2(real_inputs: Path) -> pl.DataFrame:
    return token_table(AutoTokenizer.from_pretrained(real_inputs / "tokenizers" / "gpt2"), 50_257)


def test_words_are_alphabetic_known_and_of_two_letters_or_more() -> None:
    known = ["the", "The", "LONDON", "zebra", "abbé"]
    unknown = ["", "a", "I", "zzxqv", "don't", "co-op", "3rd", "word ", " word", "der1", "слово", "…"]
    assert are_words(known + unknown) == [True] * len(known) + [False] * len(unknown)


def test_the_table_has_the_schema_of_the_contract() -> None:
    table = token_table(tiny_tokenizer(), VOCABULARY)
    assert table.schema == pl.DataFrame(schema("dim_token").empty_table()).schema
    assert table["token_id"].to_list() == list(range(VOCABULARY))
    assert table.drop("bytes").null_count().sum_horizontal().item() == 0


def test_gpt2(gpt2: pl.DataFrame) -> None:
    assert rows(gpt2, " becoming", "becoming", " KGB", "The", "!", " ,", "\n", " 1999", "<|endoftext|>") == {
        " becoming": (True, True, False),
        " KGB": (False, True, False),
        "The": (True, False, False),
        "!": (False, False, False),
        " ,": (False, False, False),
        "\n": (False, False, False),
        " 1999": (False, False, False),
        "<|endoftext|>": (False, False, True),
    }
    assert gpt2["text"].str.len_chars().min() == 1
    assert gpt2["is_special"].sum() == 1


def test_bytes_that_are_no_character_are_replaced(gpt2: pl.DataFrame, real_inputs: Path) -> None:
    vocabulary = AutoTokenizer.from_pretrained(real_inputs / "tokenizers" / "gpt2").get_vocab()
    assert gpt2["text"][vocabulary["Ð"]] == "\ufffd"  # the first byte of a Cyrillic letter
    assert gpt2["text"][vocabulary["Ġ"]] == " "
    assert gpt2["text"][vocabulary["ĠÐ"]] == " \ufffd"


def test_decoded_tokens_join_to_the_text(real_inputs: Path) -> None:
    text = "Once upon a time, there was a little girl named Lily; she liked 12 red apples!"
    for name in ("tokenizers/gpt2", "tokenizers/gpt-neox", "models/novella/step0", "models/stories260K"):
        tokenizer = AutoTokenizer.from_pretrained(real_inputs / name)
        texts = token_table(tokenizer, len(tokenizer))["text"]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert "".join(texts[token_id] for token_id in ids).lstrip() == text


def test_sentencepiece_tokens_keep_their_space(real_inputs: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_inputs / "models" / "stories260K")
    table = token_table(tokenizer, 512)
    assert rows(table, " and", " had", "<s>", "</s>", "<unk>") == {
        " and": (True, True, False),
        " had": (True, True, False),
        "<s>": (False, False, True),
        "</s>": (False, False, True),
        "<unk>": (False, False, True),
    }
    assert table["text"][tokenizer.convert_tokens_to_ids("▁ha")] == " ha"
    assert table["text"][tokenizer.convert_tokens_to_ids("<0xC5>")] == "\ufffd"


def test_padding_is_special_and_without_text(real_inputs: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_inputs / "tokenizers" / "gpt-neox")
    table = token_table(tokenizer, 50_304)
    assert table.height == 50_304
    padding = table.filter(pl.col("token_id") >= len(tokenizer))
    assert padding.height == 27
    assert padding["text"].unique().to_list() == [""]
    assert padding["is_special"].all()
    assert not padding["is_word"].any()
    assert table.filter("is_special").height == 27 + 2  # <|endoftext|> and <|padding|>
    assert rows(table, "  ") == {"  ": (False, False, False)}


def test_a_smaller_vocabulary_than_the_tokenizers_cuts_the_table() -> None:
    assert token_table(tiny_tokenizer(), 40).equals(token_table(tiny_tokenizer(), VOCABULARY).head(40))


def test_tokens_that_are_parts_of_characters_have_their_bytes() -> None:
    tokenizer = tiny_tokenizer()
    table = token_table(tokenizer, VOCABULARY)
    has_sign = table["text"].str.contains("\ufffd")
    assert has_sign.sum() > 100
    assert (table["bytes"].is_not_null() == has_sign).all()
    text = "He said “rare” — 日本 ½"
    rows = [table.row(token_id, named=True) for token_id in tokenizer(text)["input_ids"]]
    assert b"".join(row["bytes"] or row["text"].encode() for row in rows).decode() == text


@pytest.mark.parametrize(
    ("token", "bytes_"), [("<0xE2>", b"\xe2"), ("âĢ", b"\xe2\x80"), ("Ġa", b" a"), ("日", None), ("", None)]
)
def test_a_tokens_name_says_its_bytes(token: str, bytes_: bytes | None) -> None:
    assert part_of_character(token) == bytes_
