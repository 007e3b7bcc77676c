"""Several processes at one warehouse: who cannot go on waits, or ends with 4 and names the holder; nothing is lost."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rare_tokens import warehouse
from rare_tokens.common.parts import parts_root
from tests.support.commands import Commands, Ended, finish
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus
from tests.support.warehouses import published, stored

WAREHOUSE = "rare_tokens.duckdb"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_folder(folder / "neox", SUPPORTED["gpt_neox"])
    tiny_corpus(folder / "corpus.jsonl", documents=200)
    return folder


def ingest(inputs: Path, seed: int) -> list[Any]:
    options = {"--model": inputs / "neox", "--corpus": inputs / "corpus.jsonl", "--tokens": 640, "--window": 32}
    return ["ingest", *(part for pair in options.items() for part in pair), "--seed", seed, "--device", "cpu"]


@contextmanager
def held(path: Path, *, read_only: bool) -> Iterator[int]:
    """Another process that has the warehouse open; gives its PID."""
    code = (
        f"import sys, duckdb; con = duckdb.connect(sys.argv[1], read_only={read_only});"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield other.pid
        other.communicate()


def facts(path: Path) -> int:
    with warehouse.open(path) as opened:
        return int(opened.sql("select count(*) as n from fct_effect")["n"].item())


@pytest.mark.slow
def test_two_ingests_a_report_and_queries_at_once_all_end_well_where_they_may_wait(
    commands: Commands, inputs: Path
) -> None:
    published(commands.folder / WAREHOUSE, "before")
    waiting = ["--wait", "110", "--quiet"]
    started = [commands.start(*ingest(inputs, seed), *waiting, environment=ONE_THREAD) for seed in (1, 2)]
    started.append(commands.start("report", "before", *waiting))
    query = "select count(*) as n from neuron_influence where run_id = 'before'"
    answers = []
    while any(process.poll() is None for process in started[:2]):
        answers.append(commands("sql", query, "--json", *waiting))
    ended = [finish(process) for process in started]
    assert [one.code for one in ended] == [0, 0, 0], [one.err for one in ended]
    assert {answer.code for answer in answers} == {0}, answers
    assert len({answer.out for answer in answers}) == 1
    assert warehouse.runs(commands.folder / WAREHOUSE)["status"].to_list() == ["published"] * 3
    assert facts(commands.folder / WAREHOUSE) == 128 * 40 + 2 * 640 * 80
    assert not list(parts_root(commands.folder / WAREHOUSE).iterdir())


@pytest.mark.slow
def test_two_ingests_that_may_not_wait_end_with_0_or_4_and_lose_nothing(commands: Commands, inputs: Path) -> None:
    started = {seed: commands.start(*ingest(inputs, seed), "--quiet", environment=ONE_THREAD) for seed in (1, 2)}
    ended = {seed: finish(process) for seed, process in started.items()}
    for seed, one in ended.items():
        assert one.code in (0, 4), one.err
        if one.code == 4:
            other = started[3 - seed].pid
            assert re.search(rf"process {other}\b", one.err), one.err
        again = commands(*ingest(inputs, seed), "--quiet", "--wait", "60")
        assert again.code == 0, again.err
    assert facts(commands.folder / WAREHOUSE) == 2 * 640 * 80


@pytest.mark.parametrize("read_only", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_who_writes_is_refused_and_waits_if_told_to(commands: Commands, read_only: bool) -> None:
    path = commands.folder / WAREHOUSE
    stored(path, "run")
    writers = [("delete", "run"), ("vacuum",), ("analyze",), ("check",), ("migrate",), ("report",)]
    readers = [("runs",), ("tables",), ("sql", "from dim_run"), ("report", "--no-analyze"), ("export", "out")]
    with held(path, read_only=read_only) as pid:
        for arguments in writers:
            assert_locked(commands(*arguments), pid)
        for arguments in readers:
            ended = commands(*arguments)
            if read_only:
                assert ended.code == 0, ended.err
            else:
                assert_locked(ended, pid)
        start = time.monotonic()
        assert_locked(commands("delete", "run", "--wait", "0.5"), pid)
        assert time.monotonic() - start > 0.4
    assert commands("delete", "run", "--wait", "5").code == 0


def assert_locked(ended: Ended, pid: int) -> None:
    assert ended.code == 4, ended
    assert str(pid) in ended.err
    assert "--wait" in ended.err


@pytest.mark.slow
def test_an_ingest_that_is_locked_out_at_its_end_keeps_its_work(
    commands: Commands, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of work must not be lost to a notebook that was opened meanwhile."""
    path, publish = commands.folder / WAREHOUSE, warehouse.publish_together
    with monkeypatch.context() as patched:

        def while_a_notebook_is_open(*given: Any, **named: Any) -> Any:
            with held(path, read_only=True) as pid:
                pids.append(pid)
                return publish(*given, **named)

        pids: list[int] = []
        patched.setattr(warehouse, "publish_together", while_a_notebook_is_open)
        ended = commands(*ingest(inputs, 1))
    assert_locked(ended, pids[0])
    assert warehouse.runs(path)["status"].to_list() == ["staged"]
    parts = {file: file.stat().st_mtime_ns for file in parts_root(path).rglob("*.parquet")}
    assert len(parts) > 5
    monkeypatch.setattr("rare_tokens.ingest.run.execution._effects", lambda *_: pytest.fail("computed a second time"))
    ended = commands(*ingest(inputs, 1))
    assert ended.code == 0, ended.err
    assert facts(path) == 640 * 80
