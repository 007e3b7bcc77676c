"""Files whose names say something else than their content, and the fields that hold the text."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.corpus import open_corpus
from rare_tokens.ingest.text.readers import read_texts
from rare_tokens.ingest.text.records import TextField
from tests.support.corpora import TEXTS, json_lines, refusal, texts_of, write

LINES = json_lines(TEXTS).encode()
TURNS = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def parquet(columns: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def arrow(columns: dict[str, object], *, stream: bool) -> bytes:
    buffer, table = io.BytesIO(), pa.table(columns)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


TABLE = {"n": [1, 2, 3, 4], "text": [TEXTS[0], None, *TEXTS[1:]]}
READ = {
    "c.ndjson": LINES,
    "gzip_named.jsonl": gzip.compress(LINES),
    "zstd.json": zstd(LINES),
    "bzip.jsonl": bz2.compress(LINES),
    "xz.ndjson": lzma.compress(LINES),
    "c.jsonl.xz": lzma.compress(LINES),
    "two_streams.jsonl.gz": gzip.compress(LINES[:20]) + gzip.compress(LINES[20:]),
    "two_streams.jsonl.xz": lzma.compress(LINES[:20]) + lzma.compress(LINES[20:]),
    "unpacked.jsonl.gz": LINES,
    "lines.parquet": LINES,
    "list.arrow": json.dumps(TEXTS).encode(),
    "gzipped_lines.parquet": gzip.compress(LINES),
    "lines": LINES,
    "blob": gzip.compress(LINES),
    "parquet.jsonl": parquet(TABLE),
    "parquet.txt": parquet(TABLE),
    "stream.arrow": arrow(TABLE, stream=True),
    "file.arrow": arrow(TABLE, stream=False),
    "stream.parquet": arrow(TABLE, stream=True),
    "file.json": arrow(TABLE, stream=False),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_certain_is_read_by_content(tmp_path: Path, name: str) -> None:
    assert list(read_texts(write(tmp_path / name, READ[name]))) == TEXTS
    assert sorted(texts_of(open_corpus([str(tmp_path / name)]))) == sorted(TEXTS)


def test_plain_text_is_what_a_name_says_and_only_compression_is_looked_at(tmp_path: Path) -> None:
    assert list(read_texts(write(tmp_path / "a.txt", LINES))) == [LINES.decode().strip("\n")]
    assert list(read_texts(write(tmp_path / "b.txt", gzip.compress(b"Some text.")))) == ["Some text."]
    starts = "PAR1 is where it starts, BZh9 too, and it ends in PAR"
    assert list(read_texts(write(tmp_path / "c.txt", starts))) == [starts]
    assert list(read_texts(write(tmp_path / "d.txt", "BZh91 is no magic number"))) == ["BZh91 is no magic number"]


def test_one_object_that_fills_a_file_is_one_record(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps({"text": "One."}, indent=2))
    assert list(read_texts(path)) == ["One."]


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "text")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"Once upon a time.", "line 1 begins with 'Once upon a time.'. If it is plain text, rename it"),
        ("a.jsonl", b'"one"\n', "is not JSON: line 1 begins with"),
        ("a.parquet", b"Once upon", "its name says .parquet, but it begins with 'Once upon'"),
        ("a.txt.gz", b"Once upon", "its name says that it is compressed, but it begins with 'Once upon'"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer: fetch"),
        ("a.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer: fetch"),
        ("a.jsonl", zipped(), "is a zip archive: unpack it"),
        ("a.txt", b"%PDF-1.7 ...", "is a PDF: convert it"),
        ("a.txt.gz", gzip.compress(b"\0" * 257 + b"ustar" + b"\0" * 300, mtime=0), "is a tar archive: unpack it"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(LINES, mtime=0), mtime=0), "is compressed twice"),
        ("a.jsonl.gz", gzip.compress(parquet(TABLE), mtime=0), "is Parquet within another compression"),
        ("a.arrow", arrow(TABLE, stream=True)[:40], "a.arrow cannot be read"),
        ("a.arrow", arrow(TABLE, stream=False)[:-20], "a.arrow cannot be read"),
        ("a.jsonl", lzma.compress(LINES)[:-8], "a.jsonl cannot be read"),
        ("notes", b"[link](x)", "ends in none of"),
        ("a.md", b"{{ template }}", "ends in none of"),
    ],
)  # fmt: skip
def test_what_is_uncertain_or_no_corpus_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    found = refusal(write(tmp_path / name, content))
    assert said in found
    assert "\n" not in found
    assert len(found.replace(str(tmp_path), "")) <= 600


# The field that holds the text


def texts(path: Path, field: str | None = None) -> list[str]:
    return sorted(texts_of(open_corpus([str(path)], field)))


def test_the_field_is_the_one_that_is_named(tmp_path: Path) -> None:
    rows = [{"content": "One.", "meta": {"title": "T1"}}, {"content": None, "meta": None, "meta.title": "T2"}]
    lines = write(tmp_path / "content.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert texts(lines, "content") == ["One."]
    assert texts(lines, "meta.title") == ["T1", "T2"]
    table = write(tmp_path / "a.parquet", parquet({"meta": [{"a": {"b": "B1"}}, None], "x.y": ["XY", "Z"]}))
    assert texts(table, "meta.a.b") == ["B1"]
    assert texts(table, "x.y") == ["XY", "Z"]
    strings = write(tmp_path / "list.json", '["One.", {"content": "Two."}]')
    assert texts(strings, "content") == ["One.", "Two."]


def test_the_same_texts_have_one_identity_whatever_their_field(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", '{"text": "One."}')
    other = write(tmp_path / "b.jsonl", '{"content": "One."}')
    assert open_corpus([str(plain)]).identity == open_corpus([str(other)], "content").identity


ABSENT: list[tuple[dict[str, Any], str | None, str]] = [
    ({"content": "c", "n": 1}, None, "has no field `text`. Name the one that holds the text: --text-field content. "
     "String fields: `content`."),
    ({"id": 7, "meta": {"title": "t", "body": {"raw": "r"}}}, None, "String fields: `meta.title`, `meta.body.raw`."),
    ({"messages": TURNS}, None, "(`messages` is a list of turns) without a field `text`"),
    ({"conversations": [{"from": "human", "value": "x"}], "system": "s"}, None, "name a field: --text-field system."),
    ({"paragraphs": [{"p": "x"}], "sentences": ["a"]}, None, "has no field `text` and no string field (it has: "
     "paragraphs (a list of records), sentences (a list of strings))"),
    ({"my text": "c"}, None, "--text-field 'my text'. String fields: `my text`."),
    ({"text": "x"}, "content", "has no field `content`. Name the one that holds the text: --text-field text."),
    ({"text": "x", "a": "b"}, "text.raw", "has no field `text.raw`"),
    ({f"field {number} " + "x" * 50: "x" for number in range(50)}, None, "…"),
]  # fmt: skip
OF_JSON: list[tuple[dict[str, Any], str | None, str]] = [
    ({}, None, "(it has: none)"),
    ({"n": 1}, None, "(it has: n (no string))"),
    ({"text": {"raw": "x"}}, None, "the field `text` is an object, not a string. Name the one that holds the text: "
     "--text-field text.raw."),
    ({"text": [TURNS]}, None, "the field `text` is a list, not a string."),
]  # fmt: skip


@pytest.mark.parametrize(("record", "field", "said"), [*ABSENT, *OF_JSON])
def test_no_field_of_a_record_is_guessed(tmp_path: Path, record: dict[str, Any], field: str | None, said: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(record) + "\n")
    assert said in (found := refusal_of(path, field))
    assert "line 1" in found


@pytest.mark.parametrize(("record", "field", "said"), ABSENT)
def test_no_column_is_guessed(tmp_path: Path, record: dict[str, Any], field: str | None, said: str) -> None:
    path = write(tmp_path / "a.parquet", parquet({name: [value] for name, value in record.items()}))
    assert said in refusal_of(path, field)


def refusal_of(path: Path, field: str | None) -> str:
    with pytest.raises(UserError) as caught:
        open_corpus([str(path)], field)
    assert len(str(caught.value).replace(str(path), "")) <= 600
    return str(caught.value)


def test_a_chat_is_named_for_what_it_is(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", json.dumps({"messages": TURNS}) + "\n")
    assert "line 1 is a chat record (`messages`" in refusal(lines)
    table = write(tmp_path / "a.parquet", parquet({"messages": [TURNS]}))
    assert "a.parquet holds chat records (`messages`" in refusal(table)


def test_a_field_is_sought_in_records_alone() -> None:
    with pytest.raises(UserError, match="row is no JSON object with a field `a`"):
        TextField("a").text(["x"], "row")
