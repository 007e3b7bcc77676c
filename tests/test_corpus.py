"""Corpora: what is read from which file, in which order, and what is refused with which words."""

import bz2
import errno
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from pydoc_data.topics import topics

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from ingest import corpus as corpus_module
from ingest import readers
from ingest.corpus import Corpus, Document, HubDataset, open_corpus
from ingest.readers import read_texts
from tests.conftest import REPOSITORY
from tests.fake_hub import COMMIT, DOCUMENTS, fake_hub

TEXTS = ["The first text.", "A second\n\none, über two paragraphs.", "  third, with spaces  "]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def json_lines(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text, "url": None}) + "\n" for text in texts)


def texts_of(corpus: Corpus, seed: int = 0) -> list[str]:
    return [document.text for document in corpus.documents(seed)]


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


def test_folder_is_read_with_its_subfolders_but_not_its_notes(tmp_path: Path) -> None:
    for name in ("b.txt", "sub/a.txt", "[odd] *?::name.txt", "SOURCE.txt", "LICENSE.txt", ".hidden.txt", ".git/x.txt"):
        write(tmp_path / "books" / name, f"content of {name}")
    write(tmp_path / "books" / "dataset_infos.json", "{}")
    write(tmp_path / "books" / "notes.md", "# no corpus")
    corpus = open_corpus([str(tmp_path / "books")])
    assert set(texts_of(corpus)) == {f"content of {name}" for name in ("b.txt", "sub/a.txt", "[odd] *?::name.txt")}
    assert corpus.name == "books"
    assert {document.domain for document in corpus.documents(0)} == {"books"}
    assert texts_of(open_corpus([str(tmp_path / "books" / "SOURCE.txt")])) == ["content of SOURCE.txt"]


def test_several_sources_keep_their_labels(tmp_path: Path) -> None:
    write(tmp_path / "news.jsonl", json_lines(TEXTS))
    write(tmp_path / "novel.txt", "Call me")
    corpus = open_corpus([str(tmp_path / "news.jsonl"), str(tmp_path / "novel.txt")])
    assert corpus.name == "news.jsonl + novel.txt"
    assert Counter(document.domain for document in corpus.documents(0)) == {"news.jsonl": 3, "novel.txt": 1}
    assert not corpus.streamed
    assert corpus.documents_in_hand == 4


def test_builtin_is_the_language_reference() -> None:
    corpus = open_corpus(["builtin"])
    assert Counter(texts_of(corpus)) == Counter(text for text in topics.values() if text.strip())
    assert corpus.name == "builtin"


def test_real_corpora_hold_as_many_documents_as_their_notes_say(real_inputs: Path) -> None:
    found = {
        name: open_corpus([str(real_inputs / "corpora" / name)]) for name in ("c4-sample", "novels", "tinystories")
    }
    assert {name: corpus.documents_in_hand for name, corpus in found.items()} == {
        "c4-sample": 249, "novels": 2, "tinystories": 1000,
    }  # fmt: skip
    assert not any("\r" in text or "\ufeff" in text for text in texts_of(found["novels"]))
    assert sum(text.startswith("Once upon a time") for text in texts_of(found["tinystories"])) > 300


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


# Identity and order


def test_identity_is_of_the_texts_and_not_of_their_files(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{number}.txt", text) for number, text in enumerate(["one", "two", "three"])]
    lines = write(tmp_path / "all.jsonl", json_lines(["three", "one", "two"]))
    changed = write(tmp_path / "changed.jsonl", json_lines(["three", "one", "two!"]))
    plain = open_corpus([str(part) for part in parts])
    other = open_corpus([str(part) for part in reversed(parts)])
    assert plain.identity == other.identity == open_corpus([str(lines)]).identity
    assert texts_of(plain) == texts_of(other) == texts_of(open_corpus([str(lines)]))
    assert open_corpus([str(changed)]).identity != plain.identity


def test_order_is_the_seeds_and_complete() -> None:
    texts = [f"text {number}" for number in range(500)]
    corpus = Corpus("texts", iter([(text, "here") for text in texts]))
    orders = [texts_of(corpus, seed) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(texts)
    # A shuffle leaves about one document where it was, and 500 documents have about 250 rises.
    assert sum(a == b for a, b in zip(orders[0], texts, strict=True)) < 10
    ranks = [texts.index(text) for text in orders[0]]
    assert 200 < sum(a < b for a, b in pairwise(ranks)) < 300


def test_order_and_identity_stay_over_releases() -> None:
    """A run's identity is worth nothing if these change: stated, not derived."""
    corpus = Corpus("texts", iter([(text, "here") for text in "abcdef"]))
    assert corpus.identity == "8595cbb6fa6159725a6f2982bdd07e7be2794570ee64adfdf01c343782ce65a1"
    assert "".join(texts_of(corpus, 0)) == "dbfcea"


def test_a_corpus_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    corpus = open_corpus([str(write(tmp_path / "a.jsonl", json_lines(TEXTS)))])
    assert list((tmp_path / "temporary").iterdir()) == []
    assert sorted(texts_of(corpus)) == sorted(TEXTS)


# The hub


class Endless(HubDataset):
    """A stream of numbered documents, without a hub."""

    def documents(self, seed: int) -> Iterator[Document]:
        return (Document(f"web {number}", "c4", f"{number:064x}") for number in range(1_000_000_000))


def test_a_stream_and_texts_in_hand_take_turns() -> None:
    stream = Endless("c4", "allenai/c4", "en", "train", COMMIT)
    corpus = Corpus("c4 + mine", iter([("mine", "mine"), ("mine too", "mine")]), stream)
    assert [document.domain for document in islice(corpus.documents(0), 6)] == ["mine", "c4", "mine", "c4", "c4", "c4"]
    assert corpus.streamed
    alone = Corpus("c4", iter(()), stream)
    assert alone.identity != corpus.identity
    assert alone.identity != Corpus("c4", iter(()), Endless("c4", "allenai/c4", "en", "train", "0" * 40)).identity
    assert [document.text for document in islice(alone.documents(0), 2)] == ["web 0", "web 1"]


def run_python(code: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process whose hub is named by its environment (it is read at import)."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables |= {"HF_HOME": str(home), "PYTHONPATH": str(REPOSITORY)} | environment
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=100, check=False)


STREAM = """
import json
from itertools import islice, pairwise
from ingest.corpus import open_corpus
corpus = open_corpus(["c4"])
orders = [[d.text for d in corpus.documents(seed)] for seed in (0, 0, 1)]
print(json.dumps([corpus.name, corpus.streamed, corpus.identity, orders, next(corpus.documents(0)).domain]))
"""


def test_c4_is_streamed_from_a_hub(tmp_path: Path) -> None:
    with fake_hub() as endpoint:
        done = run_python(STREAM, tmp_path, HF_ENDPOINT=endpoint)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    name, streamed, identity, orders, domain = json.loads(done.stdout)
    assert (name, streamed, domain) == ("c4", True, "c4")
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == sorted(DOCUMENTS)
    assert orders[0] != DOCUMENTS
    stream = Endless("c4", "allenai/c4", "en", "train", COMMIT)
    assert identity == Corpus("c4", iter(()), stream).identity


REFUSED = """
import time
start = time.monotonic()
from common.errors import UserError
from ingest.corpus import open_corpus
try:
    print(len(list(open_corpus(["c4"]).documents(0))))
except UserError as error:
    print(error)
"""


def test_a_hub_out_of_reach_is_said_within_seconds(tmp_path: Path) -> None:
    start = time.monotonic()
    done = run_python(REFUSED, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert time.monotonic() - start < 15  # most of it imports
    assert "allenai/c4 cannot be had from the hub" in done.stdout
    assert "--corpus PATH" in done.stdout
    assert done.stderr == ""


def test_a_hub_that_stops_in_the_middle_is_the_users_to_know(tmp_path: Path) -> None:
    with fake_hub(data_status=403) as endpoint:
        done = run_python(REFUSED, tmp_path, HF_ENDPOINT=endpoint)
    assert "allenai/c4 cannot be had from the hub (403 Forbidden" in done.stdout
    assert done.stderr == ""


# What is refused


def refusal(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        open_corpus([str(path)])
    return str(caught.value)


def test_missing_corpus(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.txt") == (
        f"There is no corpus {tmp_path}/none.txt; give a file or folder that exists, `c4` or `builtin`."
    )


def test_no_corpus_or_one_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No corpus was named"):
        open_corpus([])
    write(tmp_path / "a.txt", "text")
    with pytest.raises(UserError, match="named twice"):
        open_corpus([str(tmp_path / "a.txt"), str(tmp_path / "sub" / ".." / "a.txt")])


def test_unknown_kind_of_file(tmp_path: Path) -> None:
    assert "ends in none of .txt, .jsonl, .json, .parquet" in refusal(write(tmp_path / "a.docx", "x"))
    assert "ends in none of" in refusal(write(tmp_path / "a.parquet.gz", "x"))
    assert "ends in none of" in refusal(write(tmp_path / "noend", "x"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", ""), ("a.txt", " \n\t\n"), ("a.txt", "<|endoftext|>\n"), ("a.jsonl", ""), ("a.jsonl", '{"text": ""}'),
     ("a.json", "[]"), ("a.txt.gz", gzip.compress(b""))],
)  # fmt: skip
def test_empty_corpus(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert refusal(write(tmp_path / name, content)).endswith("is empty: it holds no text.")


def test_empty_folder_and_empty_parquet(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "holds no file that ends in .txt" in refusal(tmp_path / "folder")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert "is empty" in refusal(tmp_path / "a.parquet")


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n\n{"text": \n', "is not JSON: line 3 cannot be parsed"),
        ('{"body": "a", "url": "u"}\n', "line 1 has no field `text` (it has: body, url); rename one."),
        ('{"text": "a"}\n{"text": 7}\n', "`text` of line 2 is no string but int."),
        ('{"text": "a"}\n"b"\n', "line 2 is no JSON object with a `text`."),
        ('["a", 7]', "item 2 is no JSON object with a `text`."),
        ('["a", ', "is not JSON: it cannot be parsed"),
        ('{"text": "\\ud800"}', "`text` of line 1 holds half a surrogate pair"),
        ("[" * 100_000, "is not JSON"),
        ('{"text": ' + "9" * 5000 + "}", "is not JSON: line 1"),
    ],
)
def test_json_that_is_no_corpus(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(write(tmp_path / "a.jsonl", content))


def test_parquet_that_is_no_corpus(tmp_path: Path) -> None:
    assert "a.parquet cannot be read" in refusal(write(tmp_path / "a.parquet", b"PAR1 no parquet at all PAR1"))
    pq.write_table(pa.table({"content": ["a"]}), tmp_path / "b.parquet")
    assert "has no column `text` (it has: content); rename one." in refusal(tmp_path / "b.parquet")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "c.parquet")
    assert "the column `text` holds no strings but int64" in refusal(tmp_path / "c.parquet")
    raw = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": raw}), tmp_path / "d.parquet")
    assert "d.parquet cannot be read: 'utf-8' codec" in refusal(tmp_path / "d.parquet")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.bz2", "a.txt.zst"])
def test_broken_compression(tmp_path: Path, name: str) -> None:
    assert f"{name} cannot be read" in refusal(write(tmp_path / name, b"not compressed at all"))


def test_truncated_compression(tmp_path: Path) -> None:
    packed = gzip.compress(os.urandom(1000).hex().encode())
    assert "cannot be read" in refusal(write(tmp_path / "a.txt.gz", packed[: len(packed) // 2]))


def test_full_disk_is_the_users_to_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = write(tmp_path / "a.txt", "text")
    monkeypatch.setattr(corpus_module.pa, "OSFile", refuse)
    with pytest.raises(UserError, match=r"is full.*set TMPDIR"):
        open_corpus([str(path)])


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = write(tmp_path / "a.txt", "text")
    monkeypatch.setattr(readers.pa, "input_stream", refuse)
    assert refusal(path) == f"The corpus file {path} cannot be read: Permission denied."


# Whatever the bytes, texts or a UserError

SUFFIXES = [".txt", ".jsonl", ".json", ".parquet", ".txt.gz", ".jsonl.bz2", ".json.zst"]
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
