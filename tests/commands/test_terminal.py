"""A person's terminal: tables that fit, colours and progress only there, hostile text inert, JSON and completion."""

import fcntl
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time

import pytest

from rare_tokens import cli
from tests.conftest import REPOSITORY
from tests.support.commands import Ended, finish
from tests.support.warehouses import stored

RUN = "synthetic-main-00000000"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
FIND = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})"
DIRECT = f"{FIND}; from rare_tokens import cli; cli.main()"


@pytest.fixture
def published(commands):
    stored(commands.folder / "rare_tokens.duckdb", RUN)
    return commands.folder


def on_terminal(folder, *arguments, columns=80, environment=None, before="pass") -> Ended:
    """Run a command with a terminal as stdout and stderr; `out` is all that it was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", f"{FIND}; {before}; {DIRECT}", *arguments],
        cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=clean | {"TERM": "xterm"} | (environment or {}),
    )  # fmt: skip
    os.close(theirs)
    sent, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([ours], [], [], 0.2)
        if not ready:
            continue
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        sent += piece
    os.close(ours)
    return Ended(process.wait(timeout=10), sent.decode(), "")


def shown(sent: str) -> list[str]:
    """The lines that stay on the screen, as text."""
    return [ESCAPES.sub("", line).rsplit("\r", 1)[-1] for line in sent.replace("\r\n", "\n").split("\n")]


def test_numbers_are_aligned_to_the_right_and_text_to_the_left(commands, published):
    ended = commands(
        "sql", "select * from (values ('a', 1, 0.5::double), ('bcd', 1000, 12.25)) as t(word, count, share)"
    )
    header, _, first, second = ended.out.rstrip("\n").split("\n")
    assert header.split() == ["word", "count", "share"]
    assert first.rstrip() == "a          1     0.5"
    assert second.rstrip() == "bcd     1000   12.25"


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_a_terminal_s_and_no_color_turns_them_off(published, environment, coloured):
    ended = on_terminal(published, "sql", "select 1 as one", environment=environment)
    assert ended.code == 0
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", ended.out)) is coloured
    assert any(line.strip() == "1" for line in shown(ended.out))


def test_nothing_but_text_goes_into_a_pipe(published):
    process = subprocess.run(
        [sys.executable, "-c", DIRECT, "runs"], cwd=published, capture_output=True, text=True, check=True, timeout=60
    )
    assert RUN in process.stdout
    assert "\x1b" not in process.stdout + process.stderr


HOSTILE = {
    "escape": ("\x1b]0;owned\x07\x1b[31mred", "\\x1b"),
    "null byte": ("a\0b", "\\x00"),
    "right to left": ("abc\u202e\u2066txt", "\\u202e"),
    "markup": ("[red]x[/red] [link=file:///]y[/link]", "[red]x[/red] [link=file:///]y[/link]"),
    "carriage return": ("good\rbad", "\\r"),
}


def inert_on_terminal(sent: str) -> None:
    assert not set(sent) & set("\0\u202e\u2066\x07")
    assert "\x1b]" not in sent
    assert "\x1b[31m" not in sent


def test_hostile_text_is_inert_in_tables(published):
    spelled = [" || ".join(f"chr({ord(character)})" for character in text) for text, _ in HOSTILE.values()]
    query = f"select unnest([{', '.join(spelled)}]) as token"
    ended = on_terminal(published, "sql", query, "--quiet", columns=200)
    assert ended.code == 0
    inert_on_terminal(ended.out)
    rows = shown(ended.out)[2:]
    for name, (_, seen) in HOSTILE.items():
        assert any(seen in row for row in rows), name


def test_hostile_text_is_inert_in_messages(published):
    texts = [text for text, _ in HOSTILE.values() if "\0" not in text]  # no argument can hold one
    message = on_terminal(published, "delete", " ".join(texts), columns=400)
    assert message.code == 2
    inert_on_terminal(message.out)
    said = "".join(shown(message.out))
    assert "no run" in said
    for name, (text, seen) in HOSTILE.items():
        assert "\0" in text or seen in said or repr(text)[1:-1] in said, name


def test_a_remark_cannot_act_on_a_terminal(commands):
    from rare_tokens.common.text import inert

    assert inert("first\nsecond\x1b[2J") == "first\nsecond\\x1b[2J"
    assert "\\x1b" in commands("runs", "--warehouse", "no\x1b[2Jwhere.duckdb").err


@pytest.mark.slow
def test_a_long_step_shows_progress_on_a_terminal_only(published):
    slow = "import time; from rare_tokens import warehouse; run = warehouse.run_sql; "
    slow += "warehouse.run_sql = lambda *a, **k: (time.sleep(1), run(*a, **k))[1]"
    seen = on_terminal(published, "sql", "select 7 as seven", before=slow)
    assert "Query" in seen.out
    assert not any("Query" in line for line in shown(seen.out)[-4:]), "it is cleared afterwards"
    assert "Query" not in on_terminal(published, "sql", "select 7 as seven", "--quiet", before=slow).out
    process = subprocess.run(
        [sys.executable, "-c", f"{FIND}; {slow}; {DIRECT}", "sql", "select 7 as seven"],
        cwd=published, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert process.stderr == ""


AS_JSON = {
    "runs": ((), "run_id"),
    "tables": ((), "name"),
    "sql": (("select 1 as one",), "one"),
    "export": (("out",), "relation"),
    "attach": (("exported",), "outcome"),
    "analyze": ((), "analysis"),
    "migrate": ((), None),
    "vacuum": ((), "bytes_after"),
    "delete": ((RUN,), "run_id"),
}
# .ci/run, and tests of commands and warehouse: test_cli.py, test_explore.py, test_check.py, test_report.py,
# test_compare.py, test_neuron.py
ELSEWHERE = {"demo", "ingest", "explore", "check", "report", "compare", "neuron", "token"}


def test_every_command_is_in_the_list_of_those_tried_with_json():
    assert set(AS_JSON) | ELSEWHERE == set(cli.cli.commands)


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize("name", AS_JSON)
def test_json_is_all_of_stdout(commands, published, name, monkeypatch):
    from rare_tokens.analyses import registry

    monkeypatch.setattr(registry, "REGISTRY", registry.REGISTRY[1:2])  # the quickest
    arguments, key = AS_JSON[name]
    if name == "attach":
        assert commands("export", *arguments).code == 0
    ended = commands(name, *arguments, "--json")
    rows = json.loads(ended.out)
    assert ended.code in (0, 3), ended.err
    assert rows == [] if key is None else key in rows[0]


# --- completion -----------------------------------------------------------------------------------------------------

SHELLS = ["bash", *(pytest.param(shell, marks=pytest.mark.slow) for shell in ("zsh", "fish"))]


@pytest.fixture
def completed(commands, published, monkeypatch):
    """What a shell is offered after `rare-tokens` and what is typed."""

    def offered(typed: str, shell: str = "zsh", folder=published) -> list[str]:
        words = f"rare-tokens {typed}"
        with monkeypatch.context() as patched:
            patched.chdir(folder)
            patched.setenv("_RARE_TOKENS_COMPLETE", f"{shell}_complete")
            patched.setenv("COMP_WORDS", words)
            patched.setenv("COMP_CWORD", typed.split(" ")[-1] if shell == "fish" else str(len(typed.split(" "))))
            ended = commands()
        assert ended.err == ""
        return [line for line in ended.out.splitlines() if line]

    return offered


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_runs_and_relations_are_completed(completed, shell):
    assert any("analyze" in line for line in completed("ana", shell))
    assert any("--explain" in line for line in completed("check --ex", shell))
    assert any(RUN in line for line in completed("report synth", shell))
    assert any("neuron_influence" in line for line in completed("tables neuron_inf", shell))
    assert not any(RUN in line for line in completed("report other", shell))


def test_the_warehouse_that_is_meant_is_looked_into(completed, published, monkeypatch):
    (published / "rare_tokens.duckdb").rename(published / "mine.duckdb")
    assert RUN not in completed("delete ")
    assert RUN in completed("delete --warehouse mine.duckdb ")
    assert RUN in completed("--warehouse mine.duckdb delete ")
    monkeypatch.setenv("RARE_TOKENS_WAREHOUSE", "mine.duckdb")
    assert RUN in completed("delete ")
    monkeypatch.delenv("RARE_TOKENS_WAREHOUSE")
    (published / "rare_tokens.toml").write_text('warehouse = "mine.duckdb"\n', encoding="utf-8")
    assert RUN in completed("delete ")


def test_a_locked_damaged_or_absent_warehouse_offers_nothing_and_says_nothing(commands, completed, published):
    (published / "empty").mkdir()
    assert completed("delete ", folder=published / "empty") == []
    assert not list((published / "empty").iterdir())
    (published / "bad.duckdb").write_text("no database", encoding="utf-8")
    assert completed("delete --warehouse bad.duckdb ") == []
    hold = "import duckdb, time; c = duckdb.connect('rare_tokens.duckdb'); print('held', flush=True); time.sleep(60)"
    holder = commands.start(before=hold)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert completed("delete ") == []
    finally:
        holder.kill()
        finish(holder)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_s_own_script_completes(published, shell, tmp_path):
    """Where the shell is there, its script is sourced and its own function asked; elsewhere it is at least printed."""
    program = tmp_path / "rare-tokens"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c {json.dumps(DIRECT)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = subprocess.run(
        [program], env=environment | {"_RARE_TOKENS_COMPLETE": f"{shell}_source"}, capture_output=True, text=True,
        check=True, timeout=60,
    ).stdout  # fmt: skip
    assert "_RARE_TOKENS_COMPLETE" in script
    if shutil.which(shell) is None or shell == "zsh":  # zsh completes only inside its line editor
        return
    ask = {
        "bash": "COMP_WORDS=(rare-tokens report syn); COMP_CWORD=2; _rare_tokens_completion rare-tokens; "
        'echo "${COMPREPLY[@]}"',
        "fish": 'complete -C "rare-tokens report syn"',
    }[shell]
    answer = subprocess.run(
        [shell, "-c", f"{script}\n{ask}"], cwd=published, env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert RUN in answer.stdout, answer.stderr
