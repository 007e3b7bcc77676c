"""What nobody meant to type or to hand over is taken or refused in words: Hypothesis, and atheris in the long run."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from tests.robustness.fuzz import TARGETS, WORDS, Fuzzer, seeds

FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    with pytest.MonkeyPatch.context() as restored:
        from rare_tokens import warehouse
        from rare_tokens.commands import analyze

        for owner, name in ((warehouse, "run_sql"), (warehouse, "check"), (analyze, "_analyze")):
            restored.setattr(owner, name, getattr(owner, name))  # the fuzzer shortens them
        made = Fuzzer(tmp_path_factory.mktemp("fuzz"))
        yield made
    print(json.dumps(dict(made.ends)))


def damaged(target: str) -> st.SearchStrategy[bytes]:
    """A sound input with a piece of it replaced, or plain bytes."""

    def put(seed: bytes, at: int, piece: bytes, cut: int) -> bytes:
        place = at % (len(seed) + 1)
        return seed[:place] + piece + seed[place + cut :]

    short = st.binary(max_size=12)
    return st.builds(put, st.sampled_from(seeds(target)), st.integers(0, 600), short, st.integers(0, 9)) | st.binary()


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("target", ["corpus", "counts", "config"])
def test_damaged_files_are_taken_or_refused(fuzzer: Fuzzer, target: str) -> None:
    @FEW
    @given(damaged(target))
    def tried(data: bytes) -> None:
        getattr(fuzzer, target)(data)

    tried()


@FEW
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=8))
def test_command_lines_end_with_0_2_3_or_4(fuzzer: Fuzzer, arguments: list[str]) -> None:
    fuzzer.command(arguments)


@pytest.mark.parametrize("arguments", [["--config", "--config", "x"], ["--version", "--version"], ["runs", "--config"]])
def test_global_options_given_twice_or_without_a_value(fuzzer: Fuzzer, arguments: list[str]) -> None:
    fuzzer.command(arguments)


@pytest.mark.slow
@settings(FEW, max_examples=15)
@given(damaged("parts"))
def test_damaged_parts_are_refused(fuzzer: Fuzzer, data: bytes) -> None:
    fuzzer.parts(data)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_coverage_guided_inputs(target: str) -> None:
    """13,000 inputs in all; the counts are printed."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("NOT TESTED: atheris is not installed (extra `fuzz`)")
    runs = 400 if target == "parts" else 3200
    command = [sys.executable, "-m", "tests.robustness.fuzz", target, "--runs", str(runs)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-3000:]
    counts = json.loads([line for line in ended.stdout.splitlines() if line.startswith("{")][-1])
    print(counts)
    assert counts["inputs"] >= runs
