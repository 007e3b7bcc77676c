"""Corpora: what is found, in which order it comes, what a hub gives, and what is refused."""

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

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text import corpus as corpus_module
from rare_tokens.ingest.text.corpus import Corpus, open_corpus
from rare_tokens.ingest.text.documents import Document
from rare_tokens.ingest.text.hub_dataset import HubDataset
from tests.conftest import REPOSITORY
from tests.support.corpora import TEXTS, json_lines, refusal, texts_of, write
from tests.support.fake_hub import COMMIT, DOCUMENTS, fake_hub


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
    corpus = Corpus("c4 + mine", iter([("mine", "mine"), ("mine too", "mine")]), [stream])
    assert [document.domain for document in islice(corpus.documents(0), 6)] == ["mine", "c4", "mine", "c4", "c4", "c4"]
    assert corpus.streamed
    alone = Corpus("c4", iter(()), [stream])
    assert alone.identity != corpus.identity
    assert alone.identity != Corpus("c4", iter(()), [Endless("c4", "allenai/c4", "en", "train", "0" * 40)]).identity
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
from rare_tokens.ingest.text.corpus import open_corpus
corpus = open_corpus(["c4"])
orders = [[d.text for d in corpus.documents(seed)] for seed in (0, 0, 1)]
print(json.dumps([corpus.name, corpus.streamed, corpus.identity, orders, next(corpus.documents(0)).domain]))
"""


@pytest.mark.slow
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
    assert identity == Corpus("c4", iter(()), [stream]).identity


REFUSED = """
import time
start = time.monotonic()
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.corpus import open_corpus
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


def test_missing_corpus(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.txt") == (
        f"There is no corpus {tmp_path}/none.txt; give a file or folder that exists, `c4`, `builtin`, or hf:NAME for a "
        "data set of the hub."
    )


def test_no_corpus_or_one_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No corpus was named"):
        open_corpus([])
    write(tmp_path / "a.txt", "text")
    with pytest.raises(UserError, match="named twice"):
        open_corpus([str(tmp_path / "a.txt"), str(tmp_path / "sub" / ".." / "a.txt")])


def test_unknown_kind_of_file(tmp_path: Path) -> None:
    assert "ends in none of .txt, .jsonl, .ndjson, .json, .parquet, .arrow" in refusal(write(tmp_path / "a.docx", "x"))
    assert "ends in none of" in refusal(write(tmp_path / "a.parquet.gz", "x"))
    assert "ends in none of" in refusal(write(tmp_path / "noend", "x"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", ""), ("a.txt", " \n\t\n"), ("a.txt", "<|endoftext|>\n"), ("a.jsonl", ""), ("a.jsonl", '{"text": ""}'),
     ("a.json", "[]"), ("a.txt.gz", gzip.compress(b"", mtime=0))],
)  # fmt: skip
def test_empty_corpus(tmp_path: Path, name: str, content: str | bytes) -> None:
    assert refusal(write(tmp_path / name, content)).endswith("is empty: it holds no text.")


def test_empty_folder_and_empty_parquet(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "holds no file that ends in .txt" in refusal(tmp_path / "folder")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert "is empty" in refusal(tmp_path / "a.parquet")


def test_full_disk_is_the_users_to_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = write(tmp_path / "a.txt", "text")
    monkeypatch.setattr(corpus_module.pa, "OSFile", refuse)
    with pytest.raises(UserError, match=r"is full.*set TMPDIR"):
        open_corpus([str(path)])


def test_a_label_is_the_domain_of_its_documents(tmp_path):
    news, novel = write(tmp_path / "a" / "x.txt", "Some news."), write(tmp_path / "b" / "x.txt", "A story.")
    corpus = open_corpus([f"news={news}", f"literature={novel}"])
    assert {(one.text, one.domain) for one in corpus.documents(0)} == {
        ("Some news.", "news"),
        ("A story.", "literature"),
    }
    assert corpus.name == "news + literature"
    unlabelled = open_corpus([str(news), str(novel)])
    assert unlabelled.identity == corpus.identity, "labels do not change what the texts are"
    assert unlabelled.labelled_identity != corpus.labelled_identity
    swapped = open_corpus([f"literature={news}", f"news={novel}"])
    assert swapped.labelled_identity != corpus.labelled_identity


def test_a_path_with_an_equals_sign_is_a_path(tmp_path):
    path = write(tmp_path / "lr=1.txt", "A text.")
    (document,) = open_corpus([str(path)]).documents(0)
    assert document.domain == "lr=1.txt"


@pytest.mark.parametrize("second", ["news={b}", "{c}/news"])
def test_two_corpora_of_one_label_are_refused(tmp_path, second):
    first, b = write(tmp_path / "a.txt", "One."), write(tmp_path / "b.txt", "Two.")
    write(tmp_path / "c" / "news" / "x.txt", "Three.")
    with pytest.raises(UserError, match="label news"):
        open_corpus([f"news={first}", second.format(b=b, c=tmp_path / "c")])


def test_a_labelled_corpus_that_is_not_there_or_named_twice_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", "One.")
    with pytest.raises(UserError, match=r"no corpus .*absent\.txt"):
        open_corpus([f"news={tmp_path / 'absent.txt'}"])
    with pytest.raises(UserError, match="named twice"):
        open_corpus([f"news={path}", f"web={path}"])
