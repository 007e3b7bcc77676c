"""Killed at any moment, an ingest leaves nothing half-published, and the same command finishes it, bit for bit."""

import time

import pytest

from rare_tokens import warehouse
from rare_tokens.common.parts import parts_root
from tests.support.commands import finish
from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus

# Parts of a few positions, so that a small run has many moments to be killed at.
UNITS = "import rare_tokens.ingest.ablation.stages.parts as u, rare_tokens.ingest.ablation.stages.capture as c"
MANY_UNITS = f"{UNITS}; u.PAIRS_PER_PART = 20_480; c.POSITIONS_PER_BATCH = 512"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def asked(tmp_path):
    model = save_folder(tmp_path / "neox", SUPPORTED["gpt_neox"])
    corpus = tiny_corpus(tmp_path / "corpus.jsonl", documents=400)
    return [
        "ingest",
        "--model",
        model,
        "--corpus",
        corpus,
        "--tokens",
        2048,
        "--window",
        64,
        "--device",
        "cpu",
        "--quiet",
    ]


def contents(path):
    """Every relation of a warehouse, in order, without times and paths."""
    found = {}
    names = [table.name for table in warehouse.tables(path) if table.kind != "macro"]
    with warehouse.open(path) as opened:
        for name in names:
            frame = opened.read(name)
            dropped = {"created_at", "seconds", "stage_seconds", "options", "published_at", "checked_at"}
            frame = frame.drop(dropped & set(frame.columns))
            found[name] = frame.sort([column for column, kind in frame.schema.items() if not kind.is_nested()])
    return found


def start_and_kill_when(commands, asked, pattern, count):
    """Start an ingest and SIGKILL it once `count` files of its parts match `pattern`."""
    process = commands.start(*asked, "--warehouse", "killed.duckdb", before=MANY_UNITS, environment=ONE_THREAD)
    root = parts_root(commands.folder / "killed.duckdb")
    while process.poll() is None and len(list(root.glob(pattern))) < count:
        time.sleep(0.002)
    process.kill()
    finish(process)
    return process.returncode


@pytest.mark.slow
def test_killed_and_run_again_it_equals_an_undisturbed_run(commands, asked):
    ended = finish(commands.start(*asked, "--warehouse", "whole.duckdb", before=MANY_UNITS, environment=ONE_THREAD))
    assert ended.code == 0, ended.err
    for pattern, count in (("*/capture/*.done", 2), ("*/fct_effect/*.parquet", 3), ("*/summary.json", 1)):
        assert start_and_kill_when(commands, asked, pattern, count) == -9
        states = warehouse.runs(commands.folder / "killed.duckdb")["status"].to_list()
        assert states in (["interrupted"], ["staged"])
        with warehouse.open(commands.folder / "killed.duckdb") as opened:
            assert opened.sql("select count(*) n from fct_effect")["n"].item() == 0
    done = len(list(parts_root(commands.folder / "killed.duckdb").glob("*/fct_effect/*.parquet")))
    assert done == 8, "what was done before the last kill is kept"
    again = finish(commands.start(*asked, "--warehouse", "killed.duckdb", before=MANY_UNITS, environment=ONE_THREAD))
    assert again.code == 0, again.err
    whole, killed = contents(commands.folder / "whole.duckdb"), contents(commands.folder / "killed.duckdb")
    assert whole.keys() == killed.keys()
    assert whole["fct_effect"].height == 2048 * 80
    for name, frame in whole.items():
        assert frame.equals(killed[name]), name


@pytest.mark.slow
def test_two_ingests_of_one_run_do_not_mix(commands, asked):
    first = commands.start(*asked, before=MANY_UNITS, environment=ONE_THREAD)
    root = parts_root(commands.folder / "rare_tokens.duckdb")
    while first.poll() is None and not list(root.glob("*/manifest.json")):
        time.sleep(0.002)
    second = commands(*asked)
    assert second.code == 4, second.err
    assert str(first.pid) in second.err
    assert finish(first).code == 0
