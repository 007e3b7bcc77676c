"""Corpora as people have them, given to `ingest`: other fields and suffixes, names that lie, and a word list."""

import gzip
import json
from pathlib import Path

import pytest

from rare_tokens import warehouse
from tests.support.commands import Commands
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_folder(folder / "neox", SUPPORTED["gpt_neox"])
    lines = tiny_corpus(folder / "c.jsonl", documents=400).read_text(encoding="utf-8")
    (folder / "c.ndjson").write_text(lines, encoding="utf-8")
    (folder / "content.jsonl").write_text(lines.replace('{"text"', '{"content"'), encoding="utf-8")
    (folder / "gzip_named.jsonl").write_bytes(gzip.compress(lines.encode()))
    return folder


def asked(inputs: Path, corpus: str, *more: str) -> list[str]:
    fixed = ["--tokens", "640", "--window", "32"]
    return ["ingest", "--model", str(inputs / "neox"), "--corpus", str(inputs / corpus), *fixed, *more]


def test_the_same_texts_make_the_same_run_whatever_file_they_are_in(commands: Commands, inputs: Path) -> None:
    found = {}
    for name, *more in (["c.jsonl"], ["c.ndjson"], ["gzip_named.jsonl"], ["content.jsonl", "--text-field", "content"]):
        ended = commands(*asked(inputs, name, *more, "--dry-run", "--json"))
        assert ended.code == 0, ended.err
        found[name] = json.loads(ended.out)[0]["run_id"]
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize(
    ("corpus", "more", "said"),
    [
        ("content.jsonl", [], "line 1 has no field `text`. Name the one that holds the text: --text-field content."),
        ("c.jsonl", ["--text-field", " "], "--text-field: the name is empty"),
        ("c.jsonl", ["--corpus", "hf:a/b/c"], "a data set of the hub is named hf:NAME[:CONFIG]"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(
    commands: Commands, inputs: Path, corpus: str, more: list[str], said: str
) -> None:
    ended = commands(*asked(inputs, corpus, *more))
    assert ended.code == 2
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_counts_from_a_word_list_are_a_source_of_their_own_with_its_limits(
    commands: Commands, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {word: 0.05 / rank for rank, word in enumerate(["the", "to", "of", "cat", "sat", "zebra", "onyx"], start=1)}
    monkeypatch.setattr("wordfreq.get_frequency_dict", lambda *_, **__: words)
    ended = commands(*asked(inputs, "c.jsonl", "--frequencies", "wordfreq"))
    assert ended.code == 0, ended.err
    assert "estimated from the large English word list of wordfreq" in ended.err
    assert "punctuation and numbers of several digits count 0" in ended.err
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        (run,) = opened.sql("select frequency_source_id, frequency_source, warnings, options from dim_run").to_dicts()
    assert run["frequency_source_id"].startswith("words-")
    assert "wordfreq" in run["frequency_source"]
    assert "punctuation" in str(run["warnings"])
    assert json.loads(run["options"])["frequencies"] == "wordfreq"
