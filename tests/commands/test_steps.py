"""What commands say while they work and at the end: steps in lines, warnings once, what comes next, help in groups."""

import logging
import sys
import time

import pytest

from rare_tokens.commands.support.settings import Settings, known_warnings, start_logging
from rare_tokens.common import progress
from tests.commands.test_terminal import ESCAPES, on_terminal
from tests.common.test_progress import Terminal

WHILE_WORKING = (
    "import logging, time, click; from rare_tokens.common.progress import progress, working;"
    " from rare_tokens import warehouse; log = logging.getLogger('rare_tokens'); run = warehouse.run_sql\n"
    "def slow(*a, **k):\n"
    "    with progress('Inner', 4, 'units') as advance:\n"
    "        for name in ('one', 'two', 'three', 'four'):\n"
    "            advance(0, name); time.sleep(0.15); log.warning('Warning: mind the gap'); advance()\n"
    "    return run(*a, **k)\n"
    "warehouse.run_sql = slow\n"
)


def test_a_warning_during_a_step_has_a_line_of_its_own_and_comes_once(commands):
    ended = on_terminal(commands.folder, "sql", "select 7 as seven", before=f"exec({WHILE_WORKING!r})", columns=100)
    assert ended.code == 0
    lines = [line.rstrip() for line in ESCAPES.sub("", ended.out).replace("\r", "\n").split("\n")]
    assert lines.count("Warning: mind the gap") == 1
    assert not [line for line in lines if "mind the gap" in line and line != "Warning: mind the gap"]
    assert any(line.startswith("Inner: three") for line in lines), "the step is named"
    assert any(line.startswith("Query") for line in lines), "the step around it is still shown"


def test_a_warning_that_is_known_is_kept_off_the_screen(capsys, tmp_path):
    log = logging.getLogger("rare_tokens")
    start_logging(Settings(log_file=tmp_path / "log.txt"))
    with known_warnings(are_known=True):
        log.warning("Warning: seen before")
        log.info("a remark")
    with known_warnings(are_known=False):
        log.warning("Warning: new")
        log.warning("Warning: new")
    assert capsys.readouterr().err.splitlines() == ["a remark", "Warning: new"]
    assert (tmp_path / "log.txt").read_text().count("Warning: ") == 3
    start_logging(Settings())


@pytest.fixture
def quick_lines(monkeypatch):
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)


def test_off_a_terminal_a_long_step_has_lines(quick_lines, capsys):
    with progress.progress("Analyse run", 4, "analyses") as advance:
        for name in ("one", "two"):
            advance(0, name)
            time.sleep(0.5)
            advance()
    first, *more, last = capsys.readouterr().err.splitlines()
    assert first == "Analyse run: 0 of 4 analyses, one"
    assert more == [f"Analyse run: {done} of 4 analyses, {name}" for done, name in ((1, "one"), (1, "two"), (2, "two"))]
    assert last.startswith("Analyse run: done in ")
    with progress.working("Prepare\x1b[2J"):
        time.sleep(0.5)
    assert capsys.readouterr().err.splitlines()[0] == "Prepare\\x1b[2J …"


def test_off_a_terminal_a_short_step_and_a_quiet_one_have_none(quick_lines, capsys):
    with progress.working("Prepare"):
        pass
    with progress.progress("Ablate", 2, "units", quiet=True) as advance:
        time.sleep(0.12)
        advance()
    assert capsys.readouterr().err == ""


def test_a_step_that_fails_is_not_done(quick_lines, capsys):
    def fail():
        with progress.working("Prepare"):
            time.sleep(0.5)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert capsys.readouterr().err == "Prepare …\n"


def test_bars_within_a_step_share_its_console(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.working("outer"), progress.progress("inner", 2, "units") as advance:
        advance()
        assert len({id(console) for console in progress._live}) == 1
    assert progress._live == []


# --- ingest ---------------------------------------------------------------------------------------------------------

SMALL = ("--revision", "step6144", "--corpus", "builtin", "--tokens", "256", "--window", "64")


def test_an_ingest_says_each_warning_once_and_what_comes_next(commands):
    ended = commands("ingest", "--model", "embedded", *SMALL)
    assert ended.code == 0, ended.err
    assert ended.err.count("Token frequencies rest on") == 1
    run = ended.out.split("\n")[2].split()[0]
    assert run.startswith("embedded-step6144-")
    assert ended.err.splitlines()[-1] == f"Next: `rare-tokens analyze {run}`, then `rare-tokens report {run}`."
    again = commands("ingest", "--model", "embedded", *SMALL)
    assert f"{run} is already published." in again.err
    assert "Warning" not in again.err
    assert "Next: " in again.err


def test_a_dry_run_is_lines_of_name_value_and_unit(commands, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ended = commands("ingest", "--model", "embedded", *SMALL, "--dry-run")
    assert ended.code == 0, ended.err
    title, header, _, *lines = ended.out.rstrip().split("\n")
    assert title.startswith("embedded-step6144-")
    assert header.split() == ["name", "value", "unit"]
    said = {line.split("  ")[0]: line.split()[-2:] for line in lines}
    assert said["positions"][-1] == "256"
    assert said["effects (positions × neurons)"] == ["131,072", "rows"]
    assert said["time"][1] == "minutes"
    assert {said[name][1] for name in ("memory at the peak", "memory available")} <= {"kB", "MB", "GB"}


def test_the_help_of_ingest_is_grouped_and_explains_every_option(commands, monkeypatch):
    import click

    from rare_tokens.commands.ingest import ingest
    from rare_tokens.commands.support.grouped_help import GENERAL

    own = [one for one in ingest.params if getattr(one, "group", None)]
    assert [one.name for one in ingest.params if one not in own] == [
        "warehouse", "json", "quiet", "verbose", "log_file", "wait", "debug",
    ]  # fmt: skip
    assert all(isinstance(one, click.Option) and len(one.help or "") > 20 for one in own)
    monkeypatch.setenv("COLUMNS", "80")
    text = commands("ingest", "--help").out
    titles = [*dict.fromkeys(one.group for one in own), GENERAL]
    places = [text.index(f"\n{title}:\n") for title in titles]
    assert places == sorted(places)
    assert len(titles) == 6
    assert max(map(len, text.split("\n"))) <= 80
    for effect in ("direct", "entropy", "kl", "frequency", "attribution"):
        assert f"{effect}," in text
