"""Running commands as a user does: in this process where that is enough, in one of its own where it must be killed."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rare_tokens import cli, warehouse
from rare_tokens.commands.support.settings import DEFAULT_WAREHOUSE, run
from tests.conftest import REPOSITORY


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Commands:
    """Runs commands against one warehouse in one folder."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.capture = folder, capture
        monkeypatch.chdir(folder)
        monkeypatch.delenv("RARE_TOKENS_WAREHOUSE", raising=False)

    def __call__(self, *arguments: object) -> Ended:
        """Run a command in this process."""
        self.capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(cli.cli, [str(argument) for argument in arguments])
        out, err = self.capture.readouterr()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else 0, out, err)

    def runs(self) -> list[str]:
        """Runs of the warehouse where commands look for one; none where there is no file."""
        path = self.folder / DEFAULT_WAREHOUSE
        return warehouse.runs(path)["run_id"].to_list() if path.exists() else []

    def start(
        self, *arguments: object, before: str = "", environment: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command in a process of its own; `before` is Python that runs first there."""
        find = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})"
        code = f"{find}; {before or 'pass'}; from rare_tokens import cli; cli.main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *(str(argument) for argument in arguments)],
            cwd=self.folder,
            env=os.environ | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def exit_code(*arguments: object) -> int:
    """Run a command in this process where nothing is captured: for what a module's tests share."""
    with pytest.raises(SystemExit) as ended:
        run(cli.cli, [str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def finish(process: subprocess.Popen[str], seconds: float = 120) -> Ended:
    """Wait for a command to end."""
    out, err = process.communicate(timeout=seconds)
    return Ended(process.returncode, out, err)
