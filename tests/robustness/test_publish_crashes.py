"""Kills and other processes: either the old state or the new, and one writer at a time."""

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import LockedError
from rare_tokens.warehouse import locks
from rare_tokens.warehouse.publish import runs
from studies.synthetic.runs import make_parts
from tests.support.warehouses import SMALL, assert_same, contents, parts_of, published, stored


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.duckdb"


def test_parts_left_by_a_crash_after_the_commit_are_only_removed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = parts_of(path)
    make_parts(folder, run_id="run", **SMALL)
    kept = path.with_name("kept")
    shutil.copytree(folder, kept)
    warehouse.publish(path, folder, line=power_law_line)
    before = contents(path)
    shutil.copytree(kept, folder)
    monkeypatch.setattr(runs.audit, "audit_parts", lambda _: pytest.fail("published a second time"))
    assert warehouse.publish(path, folder, line=power_law_line) == "run"
    assert not folder.exists()
    assert_same(before, contents(path))


KILLED = """
import os, signal, sys
from pathlib import Path
from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.warehouse.publish import runs
path, folder, stage = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
original = runs._timed
def timed(name):
    if name == stage:
        die()
    return original(name)
runs._timed = timed
warehouse.publish(path, folder, line=power_law_line)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """What is there where nobody kills."""
    path = tmp_path_factory.mktemp("undisturbed") / "w.duckdb"
    stored(path, "other", seed=9)
    published(path, seed=1, code_version="0.2.0")
    return contents(path, leave_out=("dim_run",))


@pytest.mark.parametrize(
    ("stage", "again"),
    [
        ("commit", True),
        *(
            pytest.param(stage, again, marks=pytest.mark.slow)
            for stage, again in [
                ("audit", True),
                ("facts", True),
                ("facts", False),
                ("commit", False),
                ("checkpoint", True),
                ("checkpoint", False),
            ]
        ),
    ],
)
def test_a_kill_leaves_the_old_state_or_the_new(
    path: Path, undisturbed: dict[str, pl.DataFrame], stage: str, again: bool
) -> None:
    stored(path, "other", seed=9)
    if again:
        published(path, seed=0)
    before = contents(path, leave_out=("dim_run",))
    folder = parts_of(path)
    make_parts(folder, run_id="run", code_version="0.2.0", **(SMALL | {"seed": 1}))
    killed = subprocess.run([sys.executable, "-c", KILLED, path, folder, stage], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert folder.is_dir()
    if stage == "checkpoint":  # after the commit
        assert warehouse.status(path, "run") == "published"
        assert contents(path)["dim_run"].filter(pl.col("run_id") == "run")["code_version"].item() == "0.2.0"
    else:
        assert_same(before, contents(path, leave_out=("dim_run",)))
    warehouse.publish(path, folder, line=power_law_line)
    assert_same(undisturbed, contents(path, leave_out=("dim_run",)))


def test_a_run_whose_process_is_gone_is_interrupted(path: Path) -> None:
    manifest = make_parts(parts_of(path), run_id="run", staged=False, **SMALL)
    code = (
        "import sys; from pathlib import Path; from rare_tokens import warehouse; from rare_tokens.common import parts;"
        "warehouse.begin(Path(sys.argv[1]), parts.read_manifest(Path(sys.argv[2])))"
    )
    subprocess.run([sys.executable, "-c", code, path, parts_of(path)], check=True)
    assert warehouse.status(path, "run") == "interrupted"
    assert warehouse.runs(path)["status"].to_list() == ["interrupted"]
    warehouse.begin(path, manifest)
    assert warehouse.status(path, "run") == "running"


def test_a_run_that_another_process_writes_is_locked(path: Path) -> None:
    manifest = make_parts(parts_of(path), run_id="run", staged=False, **SMALL)
    code = (
        "import sys; from pathlib import Path; from rare_tokens import warehouse; from rare_tokens.common import parts;"
        "warehouse.begin(Path(sys.argv[1]), parts.read_manifest(Path(sys.argv[2]))); print('begun', flush=True);"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path), str(parts_of(path))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for refused in (lambda: warehouse.begin(path, manifest), lambda: warehouse.delete(path, "run")):
            with pytest.raises(LockedError, match=str(other.pid)):
                refused()
        assert warehouse.runs(path)["pid"].to_list() == [other.pid]
        other.communicate()
    warehouse.begin(path, manifest, wait=5)
    assert warehouse.status(path, "run") == "running"


def test_a_claim_is_held_by_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "parts" / "run"
    code = (
        "import sys; from pathlib import Path; from rare_tokens import warehouse\n"
        "with warehouse.claim(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(LockedError, match=str(other.pid)), warehouse.claim(folder, wait=0.2):
            pytest.fail("claimed twice")
        other.kill()
    with warehouse.claim(folder, wait=5):  # its holder is gone
        pass
    with warehouse.claim(folder):
        pass


def test_processes_of_other_hosts_count_as_alive() -> None:
    assert locks.holder(locks.current()) is not None
    assert locks.other_holder(locks.current()) is None
    assert locks.holder("some-other-host 1 0.0") == 1
    host, pid, _ = locks.current().rsplit(" ", 2)
    assert locks.holder(f"{host} {pid} 1.0") is None  # the PID was used again


def test_a_missing_revision_is_recorded(path: Path) -> None:
    warehouse.record_gap(path, run_id="m-step5", model="m", revision="step5", why="no weights at step5")
    assert warehouse.status(path, "m-step5") == "missing"
    with warehouse.open(path) as opened:
        assert opened.dim_run(run="m-step5")["status_reason"].item() == "no weights at step5"
    published(path, "m-step5")
    warehouse.record_gap(path, run_id="m-step5", model="m", revision="step5", why="gone")
    assert warehouse.status(path, "m-step5") == "published"
