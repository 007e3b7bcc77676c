"""Runs taken from a hub: a server on the loopback interface that answers as the hub does."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.common.errors import UserError
from tests.support.fake_hub import COMMIT, fake_hub
from tests.support.warehouses import assert_same, contents, stored

ADDRESS = "hf://datasets/me/shared"
FACTS = "fct_effect/run-a.parquet"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    stored(folder / "w.duckdb", "run-a", seed=1)
    warehouse.export(folder / "w.duckdb", folder / "out")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine" / "new.duckdb"


def uploaded(folder: Path) -> dict[str, bytes]:
    """The files of a folder, and one that the hub adds."""
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return files | {".gitattributes": b"*.parquet filter=lfs\n"}


def attach(path: Path, address: str, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    with fake_hub(repositories={"me/shared": files}) as endpoint:
        reach(endpoint, monkeypatch)
        return warehouse.attach(path, address, line=power_law_line, quiet=True)


def reach(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment variable HF_ENDPOINT does before the hub's client is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("address", [f"{ADDRESS}@v1", ADDRESS, f"{ADDRESS}@{COMMIT}"])
def test_what_was_uploaded_is_attached(
    made: Path, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    assert attach(path, address, uploaded(made / "out"), monkeypatch) == {"run-a": "attached"}
    assert_same(contents(path), contents(made / "w.duckdb"))
    assert [file.name for file in path.parent.iterdir()] == ["new.duckdb"]
    assert not (tmp_path / "cache").exists()


def _without(name: str) -> Callable[[dict[str, bytes]], object]:
    return lambda files: files.pop(name)


def _replaced(name: str, contents: bytes) -> Callable[[dict[str, bytes]], object]:
    return lambda files: files.update({name: contents})


def _renamed(files: dict[str, bytes]) -> None:
    """A manifest that names a file elsewhere."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"]["../../mine.parquet"] = manifest["files"].pop(FACTS)
    files["manifest.json"] = json.dumps(manifest).encode()


REFUSED = [
    (ADDRESS, _without("manifest.json"), f"{ADDRESS} is not an export: it has no manifest.json"),
    (ADDRESS, _replaced("manifest.json", b"{"), f"{ADDRESS}/manifest.json is damaged"),
    (ADDRESS, _renamed, f"{ADDRESS}/manifest.json is damaged: it lists files that no export has"),
    (ADDRESS, _without(FACTS), f"{ADDRESS}/{FACTS} is missing"),
    (ADDRESS, _replaced(FACTS, b"PAR1"), f"{ADDRESS}/{FACTS} is damaged: it is not what was exported"),
    (f"{ADDRESS}@v9", None, "@v9 has no such revision. Name a branch, a tag or a commit"),
    ("hf://datasets/me/other", None, "The hub has no data set at hf://datasets/me/other, or shows it only to others"),
    ("hf://datasets/me", None, "hf://datasets/me is no address of a data set. Give a folder, or hf://datasets/USER/"),
    ("hf://me/shared", None, "hf://me/shared is no address of a whole data set"),
    (f"{ADDRESS}/fct_effect", None, "fct_effect is no address of a whole data set"),
    ("s3://me/shared", None, "s3://me/shared is no address of a data set"),
]


@pytest.mark.parametrize(("address", "change", "message"), REFUSED)
def test_what_is_no_export_is_refused_and_nothing_is_left(
    made: Path,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    change: Callable[[dict[str, bytes]], Any] | None,
    message: str,
) -> None:
    files = uploaded(made / "out")
    if change is not None:
        change(files)
    with pytest.raises(UserError) as refusal:
        attach(path, address, files, monkeypatch)
    assert message in str(refusal.value)
    assert list(path.parent.iterdir()) == []


def test_a_hub_out_of_reach_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reach(f"http://127.0.0.1:{unused.getsockname()[1]}", monkeypatch)
        with pytest.raises(UserError, match=r"^hf://datasets/me/shared cannot be fetched from the hub \(.+\)\. Check"):
            warehouse.attach(path, ADDRESS, line=power_law_line, quiet=True)
    assert list(path.parent.iterdir()) == []


@pytest.mark.slow  # the hub's client tries five times
def test_a_hub_that_breaks_off_is_one_sentence(made: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub(data_status=503, repositories={"me/shared": uploaded(made / "out")}) as endpoint:
        reach(endpoint, monkeypatch)
        with pytest.raises(UserError, match=r"cannot be fetched from the hub \(.*503"):
            warehouse.attach(path, ADDRESS, line=power_law_line, quiet=True)
    assert list(path.parent.iterdir()) == []


def test_the_command_says_what_was_tried_and_ends_with_2(commands: Any) -> None:
    process = commands.start(
        "attach", ADDRESS, "--json",
        environment={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"},
    )  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err.startswith(f"Error: {ADDRESS} cannot be fetched from the hub")
    assert err.count("\n") == 1
    assert not list(commands.folder.iterdir())


def test_the_command_attaches_from_an_endpoint(made: Path, commands: Any) -> None:
    with fake_hub(repositories={"me/shared": uploaded(made / "out")}) as endpoint:
        process = commands.start(
            "attach", f"{ADDRESS}@main", "--json", "--store", "parquet",
            environment={"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"},
        )  # fmt: skip
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out) == [{"run_id": "run-a", "outcome": "attached"}]


def test_what_a_killed_command_left_is_removed(made: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = path.with_name(f"{path.name}.{2**22 + 1}.partial")  # no process has that id
    shutil.copytree(made / "out", left)
    running = path.with_name(f"{path.name}.{os.getppid()}.partial")
    running.mkdir()
    attach(path, ADDRESS, uploaded(made / "out"), monkeypatch)
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(["new.duckdb", running.name])
