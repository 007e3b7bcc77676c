"""The trials of `crashes.py`, in the long run, which prints their counts; `test_publish_crashes` is the quick one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="NOT TESTED: kills and full disks are tried on Linux only"
)


def trials(folder: Path, *arguments: str) -> dict[str, dict[str, int]]:
    command = [sys.executable, "-m", "tests.robustness.crashes", "--json", str(folder / "found.json"), *arguments]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((folder / "found.json").read_text())
    for name, counts in found.items():
        if isinstance(counts, str):
            pytest.skip(f"{name} {counts.upper()}")
    return found


# A class each, so that `--dist loadscope` gives each to a process of its own.


@pytest.mark.slow
class TestKills:
    def test_a_hundred_kills(self, tmp_path: Path) -> None:
        found = trials(tmp_path, "--kills", "165", "--faults", "0", "--full-disks", "0")
        killed = sum(count for end, count in found["kills"]["ends"].items() if ": killed" in end)
        assert killed >= 100


@pytest.mark.slow
class TestFailingDisk:
    def test_every_kind_of_write_fails(self, tmp_path: Path) -> None:
        found = trials(tmp_path, "--kills", "0", "--faults", "252", "--full-disks", "0")
        assert found["faults"]["trials"] == 252


@pytest.mark.slow
class TestFullDisk:
    def test_a_disk_fills_up(self, tmp_path: Path) -> None:
        found = trials(tmp_path, "--kills", "0", "--faults", "0", "--full-disks", "28")
        assert found["full disks"]["trials"] == 28
