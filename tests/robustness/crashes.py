"""Kills at random moments and disks that fail, over every command that writes; what is left must be whole.

    python -m tests.robustness.crashes [--kills 120] [--faults 120] [--full-disks 24] [--seed 0]
        [--only NAME …] [--json FILE]

Each trial takes a fresh copy of a small warehouse, runs one command in a process of its own, and disturbs it: SIGKILL
after a random time; a random call of a kind by which files are written failing with ENOSPC or EIO, alone or with all
that follow (`failing_disk.c`, where there is a C compiler); or a tmpfs that fills up (where it may be mounted). Then
the warehouse must open and hold, of every relation, what it held before the command or what it holds after it, never
a mixture; the same command must finish; and the end must equal an undisturbed one's, relation by relation.

Processes are forked from one that has imported everything and done nothing, so that a trial takes a second or two.
"""

import argparse
import importlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.robustness.operations import OPERATIONS, Operation
from tests.robustness.processes import (
    ERRORS,
    KINDS,
    apart,
    can_mount,
    failing,
    fork,
    inside,
    small_disk,
    wait,
    with_failing_disk,
)
from tests.robustness.wholeness import DONE_ALREADY, check_whole, differing, leftovers, snapshot

os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass
class Tally:
    """What trials came to."""

    trials: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Bench:
    """Runs trials of one operation."""

    def __init__(self, operation: Operation, folder: Path) -> None:
        """Build the state that trials start from, and measure an undisturbed run of the command."""
        self.operation, self.folder, self.base = operation, folder, folder / "base"
        self.calls: dict[str, int] = {}
        self.base.mkdir(parents=True)
        apart(lambda: operation.build(self.base))
        self.before: bytes = (
            pickle.dumps({}) if operation.name == "migrate" else apart(lambda: pickle.dumps(snapshot(self.base)))
        )
        whole = self._copy(folder / "whole")
        start = time.perf_counter()
        code, text = self.run(whole)
        self.seconds = time.perf_counter() - start
        assert code == 0, f"undisturbed {operation.name} ended with {code}: {text}"
        self.after = apart(lambda: pickle.dumps(snapshot(whole)))

    def _copy(self, target: Path) -> Path:
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(self.base, target, dirs_exist_ok=True))

    def run(self, folder: Path, call: Callable[[], int] | None = None) -> tuple[int, str]:
        """Run the command to its end; returns its exit code and what it said."""
        output = self.folder / "output"
        output.unlink(missing_ok=True)
        code = wait(fork(inside(folder, call or self.operation.command), output))
        return code, output.read_text() if output.exists() else ""

    def kill(self, after: float) -> str:
        """Kill the command after some seconds, then see that it can be finished."""
        folder = self._copy(self.folder / "trial")
        pid = fork(inside(folder, self.operation.command), self.folder / "output")
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        return f"{'killed' if code == -signal.SIGKILL else 'done before'}, {self.finish(folder)}"

    def count_calls(self) -> dict[str, int]:
        """How many calls of each kind an undisturbed run of the command makes."""
        folder = self._copy(self.folder / "trial")
        _, text = self.run(folder, failing(KINDS[0], sys.maxsize, 0, True, self.operation.command))
        return dict(json.loads(text.rpartition("CALLS ")[2]))

    def fail(self, kind: str, first: int, error: int, once: bool) -> str:
        """Let the disk fail under the command, then see that it can be finished on a sound one."""
        folder = self._copy(self.folder / "trial")
        code, text = self.run(folder, failing(kind, first, error, once, self.operation.command))
        return f"{self.ended(code, text)}, {self.finish(folder)}"

    def fill(self, share: float) -> str:
        """Let the disk fill up under the command, then see that it can be finished on a larger one."""
        size = sum(path.stat().st_size for path in self.base.rglob("*") if path.is_file())
        after = sum(path.stat().st_size for path in (self.folder / "whole").rglob("*") if path.is_file())
        needed = (size + share * (2 * max(after - size, 0) + size + 2**20)) / 2**20
        with small_disk(needed + 0.1) as disk:
            folder = self._copy(disk / "trial")
            (folder / "tmp").mkdir()
            code, text = self.run(folder)
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            return f"{self.ended(code, text)}, {self.finish(folder)}"

    def ended(self, code: int, text: str) -> str:
        """How a command on a failing disk ended: never as a bug of ours."""
        assert code in (0, 2, 3) or code < 0, f"ended with {code}: {text}"
        assert "Traceback" not in text, text
        return {0: "unhurt", 2: "refused", 3: "refused"}.get(code, f"signal {-code}")

    def finish(self, folder: Path) -> str:
        """Check the disturbed warehouse, give the command again, and compare the end."""
        operation, before, after = self.operation, self.before, self.after
        state = apart(lambda: check_whole(folder, operation, pickle.loads(before), pickle.loads(after)))
        code, text = self.run(folder)
        already = DONE_ALREADY.get(operation.name)
        assert code == 0 or (code == 2 and already and already in text), f"again, it ended with {code}: {text}"
        different = apart(lambda: differing(snapshot(folder), pickle.loads(after)))
        assert not different, f"other than an undisturbed run's: {sorted(different)}"
        assert not leftovers(folder), f"left over: {leftovers(folder)}"
        return f"found {state}"


def trials(
    benches: list[Bench], count: int, rng: random.Random, disturb: Callable[[Bench, random.Random, int], str]
) -> Tally:
    """Disturb the operations in turn, `count` times in all; a trial that goes wrong is kept with what it said."""
    tally = Tally()
    for number in range(count):
        bench = benches[number % len(benches)]
        name = bench.operation.name
        tally.trials[name] += 1
        try:
            tally.ends[f"{name}: {disturb(bench, rng, number // len(benches))}"] += 1
        except (AssertionError, subprocess.CalledProcessError) as error:
            tally.faults.append(f"{name}, trial {number}: {error}")
            print(f"FAULT {tally.faults[-1]}", flush=True)
    return tally


def kill(bench: Bench, rng: random.Random, _round: int) -> str:
    """A kill at a moment of the command's time, evenly."""
    return bench.kill(rng.uniform(0, 1.02 * bench.seconds))


def fail(bench: Bench, rng: random.Random, turn: int) -> str:
    """A call that fails; kinds that the command uses, errors, and once or from then on, in turn."""
    if not bench.calls:
        bench.calls = {kind: count for kind, count in bench.count_calls().items() if count}
    kinds = list(bench.calls)
    kind = kinds[turn % len(kinds)]
    name = list(ERRORS)[turn // len(kinds) % len(ERRORS)]
    once = turn // len(kinds) // len(ERRORS) % 2 == 1
    first = rng.randint(1, bench.calls[kind])
    try:
        return f"{name}, {bench.fail(kind, first, ERRORS[name], once)}"
    except AssertionError as error:
        where = f"{kind} {first} of {bench.calls[kind]}, {name}{' once' if once else ''}"
        raise AssertionError(f"{where}: {error}") from error


def fill(bench: Bench, rng: random.Random, _round: int) -> str:
    """A disk that is full after a share of what the command needs."""
    return bench.fill(rng.random())


def main(arguments: list[str] | None = None) -> int:
    """Run the trials, print and keep the counts; 1 where any went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--faults", type=int, default=140)
    parser.add_argument("--full-disks", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=[operation.name for operation in OPERATIONS])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    preloaded = given.faults > 0 and with_failing_disk()
    chosen = [operation for operation in OPERATIONS if given.only is None or operation.name in given.only]
    import_everything(chosen)
    rng = random.Random(given.seed)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="crashes-") as folder:
        benches = [Bench(operation, Path(folder) / operation.name) for operation in chosen]
        found["seconds undisturbed"] = {bench.operation.name: round(bench.seconds, 2) for bench in benches}
        kinds: list[tuple[str, int, bool, Any, str]] = [
            ("kills", given.kills, True, kill, ""),
            ("faults", given.faults, preloaded, fail, "no C compiler to build the failing disk with"),
            ("full disks", given.full_disks, can_mount(), fill, "this process may not mount a tmpfs"),
        ]
        for name, count, possible, disturb, why in kinds:
            if count and not possible:
                print(f"NOT TESTED: {name}: {why}", flush=True)
                found[name] = f"not tested: {why}"
            elif count:
                start = time.perf_counter()
                tally = trials(benches, count, rng, disturb)
                found[name] = report(name, tally, time.perf_counter() - start)
        found["calls that write"] = {bench.operation.name: bench.calls for bench in benches if bench.calls}
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(any(isinstance(value, dict) and value.get("wrong") for value in found.values()))


def report(name: str, tally: Tally, seconds: float) -> dict[str, Any]:
    """Print the counts of one kind of disturbance; returns them."""
    count = sum(tally.trials.values())
    print(f"{name}: {count} trials in {seconds:.0f} s, {len(tally.faults)} wrong", flush=True)
    for end, times in sorted(tally.ends.items()):
        print(f"  {times:4d}  {end}", flush=True)
    return {
        "trials": count,
        "wrong": len(tally.faults),
        "by operation": dict(tally.trials),
        "ends": dict(sorted(tally.ends.items())),
        "faults": tally.faults,
        "seconds": round(seconds),
    }


def import_everything(operations: list[Operation]) -> None:
    """Load what commands load, so that a forked process need not; nothing here may start a thread."""
    layers = ["rare_tokens.analyses.reference", "rare_tokens.cli"]
    layers += ["tests.support.old_schema", "tests.support.warehouses"]
    if any("ingest" in operation.name for operation in operations):
        import torch

        torch.set_num_threads(1)
        layers += [f"rare_tokens.ingest.run.{name}" for name in ("executors", "pipeline", "request")]
        layers.append("tests.support.tiny")
    if any(operation.name == "analyze" for operation in operations):
        layers.append("rare_tokens.analyses.registry")
    for name in layers:
        importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
