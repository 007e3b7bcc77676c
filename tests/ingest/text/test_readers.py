"""The readers of corpus files: the texts in each kind of file, and what is refused with which words."""

import bz2
import errno
import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text import readers
from rare_tokens.ingest.text.corpus import open_corpus
from rare_tokens.ingest.text.readers import read_texts
from tests.support.corpora import TEXTS, json_lines, refusal, texts_of, write

# What is read


def test_plain_file_is_one_document_without_its_mark_and_with_line_ends_made_one_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "novel.txt", b"\xef\xbb\xbfChapter 1\r\n\r\nIt was\ra dark night.\r\n")
    assert list(read_texts(path)) == ["Chapter 1\n\nIt was\na dark night."]


def test_separator_lines_part_a_plain_file(tmp_path: Path) -> None:
    content = (
        "One.\n\nStill one.\n<|endoftext|>\nTwo, <|endoftext|> within a line.\n  <|endoftext|> \n \n<|endoftext|>\n"
    )
    path = write(tmp_path / "stories.txt", content)
    assert list(read_texts(path)) == ["One.\n\nStill one.", "Two, <|endoftext|> within a line."]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "A.JSONL"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    content = json_lines(TEXTS) + "\n" + '{"text": null}\n{"text": "", "n": 1}\n{"n": {"x": 1}, "text": "last"}'
    assert list(read_texts(write(tmp_path / name, content))) == [*TEXTS, "last"]


def test_json_list_of_strings_or_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "list.json", "\n " + json.dumps([TEXTS[0], {"text": TEXTS[1]}, TEXTS[2]], indent=1))
    assert list(read_texts(path)) == TEXTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary("int8", pa.string())])
def test_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array([TEXTS[0], None, *TEXTS[1:]], type=pa.string()).cast(kind)
    pq.write_table(pa.table({"url": ["u"] * 4, "text": texts}), tmp_path / "a.parquet")
    assert list(read_texts(tmp_path / "a.parquet")) == TEXTS


def test_compressed_files(tmp_path: Path) -> None:
    lines = json_lines(TEXTS).encode()
    write(tmp_path / "a.jsonl.gz", gzip.compress(lines))
    write(tmp_path / "b.json.bz2", bz2.compress(lines))
    with pa.CompressedOutputStream(str(tmp_path / "c.jsonl.zst"), "zstd") as file:
        file.write(lines)
    for name in ("a.jsonl.gz", "b.json.bz2", "c.jsonl.zst"):
        assert list(read_texts(tmp_path / name)) == TEXTS
    assert Counter(texts_of(open_corpus([str(tmp_path)]))) == Counter(TEXTS * 3)


def test_what_is_too_long_is_cut_where_it_hurts_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LONGEST_DOCUMENT", 20)
    whole = "first part\n\nsecond\nthird line is long\nabcdefghijklmnopqrstuvwxyz 123"
    parts = ["first part", "second", "third line is long", "abcdefghijklmnopqrst", "uvwxyz 123"]
    assert list(read_texts(write(tmp_path / "long.txt", whole))) == parts
    assert list(read_texts(write(tmp_path / "same.jsonl", json_lines([whole])))) == parts
    pieces = list(read_texts(write(tmp_path / "long.jsonl", json_lines(["x" * 45]))))
    assert [len(piece) for piece in pieces] == [20, 20, 5]


def test_lines_and_characters_that_chunks_cut_in_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "äöü€𝄞\r\nein Wort\r\r\n\n<|endoftext|>\r\nEnde €"
    path = write(tmp_path / "a.txt", text)
    whole = list(read_texts(path))
    assert whole == ["äöü€𝄞\nein Wort", "Ende €"]
    for size in (1, 2, 3, 5, 7):
        monkeypatch.setattr(readers, "_CHUNK", size)
        assert list(read_texts(path)) == whole


@pytest.mark.parametrize("chunk", [1, 2, 3, 1 << 22])
def test_not_utf8_names_file_and_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(readers, "_CHUNK", chunk)
    latin = write(tmp_path / "latin.txt", "Über 20 Cafés".encode("latin-1"))
    assert f"{latin} is not UTF-8: byte 0 (0xdc)" in refusal(latin)
    inside = write(tmp_path / "inside.jsonl", '{"text": "äöü'.encode() + b'\xe9"}\n')
    assert "is not UTF-8: byte 16 (0xe9)" in refusal(inside)
    cut = write(tmp_path / "cut.txt", "ab€".encode()[:-1])
    assert "is not UTF-8: byte 2 (0xe2)" in refusal(cut)
    assert "byte 0 (0xff)" in refusal(write(tmp_path / "utf16.txt", "text".encode("utf-16")))
    assert "byte 2 (0xff)" in refusal(write(tmp_path / "packed.txt.gz", gzip.compress(b"ab\xff")))


def test_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    """It could be read, but no warehouse could say what was."""
    try:
        write(tmp_path / "corpus" / os.fsdecode(b"\xff.txt"), "text")
    except (OSError, UnicodeEncodeError) as error:
        pytest.skip(f"NOT TESTED: this system has no such names ({error})")
    assert "whose name is not UTF-8" in refusal(tmp_path / "corpus")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n\n{"text": \n', "is not JSON: line 3 cannot be parsed"),
        (
            '{"body": "a", "url": "u"}\n',
            "line 1 has no field `text`. Name the one that holds the text: --text-field body.",
        ),
        ('{"text": "a"}\n{"text": 7}\n', "line 2: the field `text` is a number, not a string."),
        ('{"text": "a"}\n"b"\n', "line 2 is no JSON object with a field `text`."),
        ('["a", 7]', "item 2 is no JSON object with a field `text`."),
        ('["a", ', "is not JSON: it cannot be parsed"),
        ('{"text": "\\ud800"}', "line 1: the field `text` holds half a surrogate pair"),
        ("[" * 100_000, "is not JSON"),
        ('{"text": ' + "9" * 5000 + "}", "is not JSON: line 1"),
    ],
)
def test_json_that_is_no_corpus(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(write(tmp_path / "a.jsonl", content))


def test_parquet_that_is_no_corpus(tmp_path: Path) -> None:
    assert "a.parquet cannot be read" in refusal(write(tmp_path / "a.parquet", b"PAR1 no parquet at all PAR1"))
    pq.write_table(pa.table({"content": ["a"]}), tmp_path / "b.parquet")
    assert "has no field `text`. Name the one that holds the text: --text-field content." in refusal(
        tmp_path / "b.parquet"
    )
    pq.write_table(pa.table({"text": [1]}), tmp_path / "c.parquet")
    assert "the column `text` holds no strings but int64" in refusal(tmp_path / "c.parquet")
    raw = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": raw}), tmp_path / "d.parquet")
    assert "d.parquet cannot be read: Invalid UTF8" in refusal(tmp_path / "d.parquet")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.bz2", "a.txt.zst"])
def test_broken_compression(tmp_path: Path, name: str) -> None:
    assert f"{name} cannot be read" in refusal(write(tmp_path / name, b"not compressed at all"))


def test_truncated_compression(tmp_path: Path) -> None:
    packed = gzip.compress(os.urandom(1000).hex().encode())
    assert "cannot be read" in refusal(write(tmp_path / "a.txt.gz", packed[: len(packed) // 2]))


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = write(tmp_path / "a.txt", "text")
    monkeypatch.setattr(readers.pa, "input_stream", refuse)
    assert refusal(path) == f"The corpus file {path} cannot be read: Permission denied."


# Whatever the bytes, texts or a UserError

SUFFIXES = [
    ".txt",
    ".jsonl",
    ".ndjson",
    ".json",
    ".parquet",
    ".arrow",
    ".txt.gz",
    ".jsonl.bz2",
    ".json.zst",
    ".json.xz",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "url"]), inner, max_size=2),
    max_leaves=6,
)
MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(path: Path) -> None:
    texts: list[str] = []
    said = ""
    try:
        texts = list(read_texts(path))
    except UserError as error:
        said = str(error)
    assert all(text.strip() and text.encode() for text in texts)
    assert said == "" or (str(path) in said and "\n" not in said)


@MANY
@given(content=st.binary(max_size=200), suffix=st.sampled_from(SUFFIXES))
def test_any_bytes_give_texts_or_a_user_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    read_or_refuse(write(tmp_path / f"a{suffix}", content))


@MANY
@given(values=st.lists(JSON, max_size=4), listed=st.booleans())
def test_any_json_gives_texts_or_a_user_error(tmp_path: Path, values: list[object], listed: bool) -> None:
    content = json.dumps(values) if listed else "\n".join(map(json.dumps, values))
    read_or_refuse(write(tmp_path / "a.json", content))


@MANY
@given(content=st.binary(min_size=1, max_size=60), at=st.floats(0, 1))
def test_any_damage_to_a_parquet_file_gives_texts_or_a_user_error(tmp_path: Path, content: bytes, at: float) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS * 3}), path)
    whole = path.read_bytes()
    start = int(at * (len(whole) - 1))
    path.write_bytes(whole[:start] + content + whole[start + len(content) :])
    read_or_refuse(path)


@MANY
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=6))
def test_every_text_comes_back_from_json_and_parquet(tmp_path: Path, texts: list[str]) -> None:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), tmp_path / "a.parquet")
    write(tmp_path / "a.jsonl", json_lines(texts))
    write(tmp_path / "a.json", json.dumps(texts, ensure_ascii=False))
    kept = [text for text in texts if text.strip()]
    for name in ("a.parquet", "a.jsonl", "a.json"):
        assert list(read_texts(tmp_path / name)) == kept
