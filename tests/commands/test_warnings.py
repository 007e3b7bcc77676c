"""What commands say of runs before their results are read."""

from pathlib import Path

import duckdb
import pytest

from rare_tokens.commands.support.chosen_runs import say_warnings
from rare_tokens.commands.support.settings import Settings
from tests.support.warehouses import stored


def test_each_warning_is_said_once_on_one_line_and_cannot_act(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.duckdb"
    run = stored(path)
    with duckdb.connect(path) as con:
        con.execute("update store.frequency_source set description = 'counted over\n\x1b[31mtexts'")
        for table, others in (("run", "run_key + 1 as run_key, 'second' as run_id"), ("dim_position", "2 as run_key")):
            con.execute(f"insert into store.{table} select * replace ({others}) from store.{table}")
    say_warnings(Settings(path), [run, "second"])
    lines = capsys.readouterr().err.splitlines()
    (few,) = (line for line in lines if "Token frequencies rest on" in line)
    assert few.startswith("Warning, run and 1 more: ")
    assert "(counted over\\n\\x1b[31mtexts)" in few
    assert all(line.startswith("Warning, run and 1 more: ") for line in lines)
    say_warnings(Settings(path, quiet=True), [run])
    say_warnings(Settings(path), [])
    say_warnings(Settings(path), ["no-such-run"])
    assert capsys.readouterr().err == ""
