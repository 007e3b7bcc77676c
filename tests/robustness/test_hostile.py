"""Hostile text and paths: inert in report and terminal; code that comes with a model never runs unasked."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common import parts
from studies.synthetic.runs import make_parts
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus
from tests.support.warehouses import SMALL, empty, parts_of, published

LONG = "x" * 300  # more than a file name may have

TEXTS = [
    "<script>window.hacked = true</script>",
    "\x1b]0;owned\x07\x1b[2J",
    "null\x00byte",
    "\u202egnirts\u2066",
    '"><img src=x onerror=alert(1)>',
    "x" * 10_000_000,
]


def with_texts(path: Path) -> None:
    """A published run whose first tokens, those that every neuron raises, have hostile texts."""
    folder = parts_of(empty(path))
    make_parts(folder, run_id="run", **SMALL)
    file = parts.relation_path(folder, "dim_token")
    table = pq.read_table(file)
    texts = [*TEXTS, *table["text"].to_pylist()[len(TEXTS) :]]
    pq.write_table(table.set_column(1, table.schema.field(1), pa.array(texts)), file)
    file = parts.relation_path(folder, "neuron_token")
    table = pq.read_table(file)
    tokens = pa.array([place % len(TEXTS) for place in range(len(table))], pa.uint32())
    pq.write_table(table.set_column(3, table.schema.field(3), tokens), file)
    warehouse.publish(path, folder, line=power_law_line, quiet=True)


@pytest.mark.slow
def test_hostile_tokens_are_inert_in_terminal_and_report(commands: Any) -> None:
    with_texts(commands.folder / "rare_tokens.duckdb")
    query = f"select text from dim_token where token_id < {len(TEXTS)} order by token_id"
    for form in ("table", "markdown"):
        ended = commands("sql", query, "--format", form)
        assert ended.code == 0, ended.err
        assert not {character for character in ended.out if ord(character) < 32 and character != "\n"}
        assert "\u202e" not in ended.out
        assert len(ended.out) < 3000, "a text of 10 MB is cut"
    exact = commands("sql", query, "--json")
    assert [row["text"] for row in json.loads(exact.out)] == TEXTS, "data for programs is whole"
    assert not {"\x1b", "\x00", "\x07"} & set(exact.out)
    ended = commands("report", "--no-analyze", "--out", "page")
    assert ended.code == 0, ended.err
    html = (commands.folder / "page" / "index.html").read_text(encoding="utf-8")
    assert len(html) < 5_000_000
    for character in "\x1b\x00\x07\u202e\u2066":
        assert character not in html
    for raw in (TEXTS[0], TEXTS[4]):
        assert raw not in html


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["with space", 'quote\'s "and" more', "ünï→日本語🦆", "percent %41; drop table x--", "[a]*"]
)
def test_paths_of_any_name_work(commands: Any, name: str) -> None:
    folder = commands.folder / name
    folder.mkdir()
    path = folder / f"{name}.duckdb"
    published(path)
    for arguments in (
        ("runs",),
        ("sql", "from dim_run"),
        ("export", folder / "out"),
        ("report", "--out", folder / "page"),
    ):
        ended = commands(*arguments, "--warehouse", path)
        assert ended.code == 0, ended.err
    assert (folder / "page" / "index.html").is_file()
    assert commands("delete", "run", "--warehouse", path).code == 0
    assert commands("vacuum", "--warehouse", path).code == 0


@pytest.mark.parametrize("file", ["configuration_evil.py", "modeling_evil.py"])
def test_code_that_comes_with_a_model_does_not_run_unasked(commands: Any, file: str) -> None:
    folder = save_folder(commands.folder / "model", SUPPORTED["gpt_neox"])
    corpus = tiny_corpus(commands.folder / "corpus.jsonl")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "configuration_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / file).write_text(f"open({str(commands.folder / 'ran')!r}, 'w').write('code ran')\n")
    ended = commands("ingest", "--model", folder, "--corpus", corpus, "--tokens", 64, "--window", 32)
    assert ended.code == 2, ended.err
    assert not (commands.folder / "ran").exists()


def test_pickled_weights_are_not_opened_unasked(commands: Any) -> None:
    folder = save_folder(commands.folder / "model", SUPPORTED["gpt_neox"])
    corpus = tiny_corpus(commands.folder / "corpus.jsonl")
    (folder / "model.safetensors").unlink()
    ran = commands.folder / "ran"
    code = f"cbuiltins\nopen\n(S'{ran}'\nS'w'\ntR."
    (folder / "pytorch_model.bin").write_bytes(code.encode())
    ended = commands("ingest", "--model", folder, "--corpus", corpus, "--tokens", 64, "--window", 32)
    assert ended.code == 2
    assert "--allow-pickle" in ended.err
    assert not ran.exists()


@pytest.mark.parametrize(
    "arguments",
    [("attach", LONG), ("export", LONG), ("--warehouse", LONG, "runs"), ("ingest", "--model", f"./{LONG}")],
)
def test_a_name_that_is_too_long_is_refused_and_not_shown_whole(commands: Any, arguments: tuple[str, ...]) -> None:
    ended = commands(*arguments)
    assert ended.code == 2, ended.err
    assert "name too long" in ended.err.lower()
    assert "Traceback" not in ended.err


NOT_UTF8 = os.fsdecode(b"\xff\xfe")


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", NOT_UTF8),
        ("attach", NOT_UTF8),
        ("sql", NOT_UTF8),
        ("--warehouse", NOT_UTF8, "runs"),
        ("ingest", "--config", "\ud800", "--model", ""),
    ],
)
def test_a_name_that_is_not_utf8_is_refused(commands: Any, arguments: tuple[str, ...]) -> None:
    """Neither DuckDB nor a manifest could hold it."""
    ended = commands(*arguments)
    assert ended.code == 2, ended.err
    assert "in the command line is not UTF-8" in ended.err
    assert not any(commands.folder.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: elsewhere every name is text")
def test_a_folder_that_is_not_utf8_holds_no_warehouse(commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = commands.folder / NOT_UTF8
    folder.mkdir()
    monkeypatch.chdir(folder)
    ended = commands("runs")
    assert ended.code == 2
    assert "is not UTF-8, and DuckDB cannot open it" in ended.err
    assert not any(folder.iterdir())
