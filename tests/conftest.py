"""What every test may use: the real inputs, where there are any."""

import os
from pathlib import Path

import pytest

# The tests' matrices are small: many threads only get in each other's way, and spinning ones in everybody's.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)  # before what is slow is deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `quick_cases(n)` only n of its cases, evenly spread, are quick; the others are slow."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("quick_cases"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for found in cases.values():
        marker = found[0].get_closest_marker("quick_cases")
        quick = {len(found) * place // marker.args[0] for place in range(marker.args[0])}
        for place, item in enumerate(found):
            if place not in quick:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def real_inputs() -> Path:
    """Folder of real models, corpora and counts (`RARE_TOKENS_TEST_DATA`, default `../shared/data`)."""
    folder = Path(os.environ.get("RARE_TOKENS_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"REAL INPUTS ABSENT: no folder {folder}; set RARE_TOKENS_TEST_DATA to run this test")
    return folder


@pytest.fixture
def commands(tmp_path, capsys, monkeypatch):
    """Commands in an empty folder (see tests/support/commands.py); xdist gives workers a width, their output none."""
    from tests.support.commands import Commands

    monkeypatch.delenv("COLUMNS", raising=False)
    return Commands(tmp_path, capsys, monkeypatch)
