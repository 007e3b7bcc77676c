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
import ctypes
import errno
import importlib
import io
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
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
KINDS = (
    "write",
    "pwrite",
    "writev",
    "ftruncate",
    "fsync",
    "fdatasync",
    "fallocate",
    "rename",
    "create",
    "mkdir",
    "unlink",
)  # fmt: skip  as in failing_disk.c
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
WAREHOUSE = "w.duckdb"
# Asked once: Python looks for a folder by writing files of its own, and where none can be removed leaves them lying.
TEMPORARY = tempfile.gettempdir()
ON_DISK = "files of facts"  # a kill may leave some that no run lists, until the next command
TIMES = ("created_at", "seconds", "stage_seconds", "published_at", "checked_at")
# The command found nothing left to do: the run is gone, the export is there.
DONE_ALREADY = {
    "delete": "There is no run",
    "delete from Parquet": "There is no run",
    "export": "is there already",
}


@dataclass(frozen=True)
class Operation:
    """A command that writes.

    Attributes:
        build: makes the folder that it starts from.
        command: runs it in the current folder; returns its exit code.
        stepwise: it commits in several transactions, so that relations go over one by one.
    """

    name: str
    build: Callable[[Path], None]
    command: Callable[[], int]
    stepwise: bool = False


@dataclass
class Tally:
    """What trials came to."""

    trials: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


# --- the commands ---------------------------------------------------------------------------------------------------


def command_line(*arguments: str) -> Callable[[], int]:
    """A command as typed, in this process."""

    def call() -> int:
        from rare_tokens import cli
        from rare_tokens.commands.support.settings import run

        try:
            run(cli.cli, [*arguments, "--warehouse", WAREHOUSE, "--quiet"])
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 0
        return 0

    return call


def _ingest(*more: str) -> int:
    """Small parts, so that there are many moments to be disturbed at."""
    from rare_tokens.ingest.ablation import capture, parts
    from rare_tokens.warehouse.publish import loading

    loading.FACTS_PER_STATEMENT = 1  # a file for each 64 neurons
    parts.PAIRS_PER_PART = 20_480
    capture.POSITIONS_PER_BATCH = 256
    options = ["--tokens", "1024", "--window", "64", "--device", "cpu"]
    return command_line("ingest", "--model", "neox", "--corpus", "corpus.jsonl", *options, *more)()


def _ingest_into_parquet() -> int:
    return _ingest("--store", "parquet")


def _publish() -> int:
    """What ends an ingest, here of a run that replaces one published before."""
    from rare_tokens import warehouse
    from rare_tokens.analyses.curve.power_law import power_law_line
    from rare_tokens.common.errors import RareTokensError
    from rare_tokens.common.parts import parts_root
    from rare_tokens.warehouse.publish import staging

    folder = parts_root(Path(WAREHOUSE)) / "run"
    try:
        if staging.parts.read_manifest(folder) is None and warehouse.status(Path(WAREHOUSE), "run") == "published":
            return 0
        warehouse.publish(Path(WAREHOUSE), folder, line=power_law_line, quiet=True)
    except RareTokensError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:  # the command line calls it the user's
        print(error, file=sys.stderr)
        return 2 if error.errno in ERRORS.values() else 1
    return 0


def _two_runs(folder: Path) -> None:
    from tests.support.warehouses import published

    published(folder / WAREHOUSE, "other", seed=9, neurons=64)
    published(folder / WAREHOUSE, "run", seed=1, positions=512, window=64, neurons=128)


def _for_ingest(folder: Path) -> None:
    from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus
    from tests.support.warehouses import published

    save_folder(folder / "neox", SUPPORTED["gpt_neox"])
    tiny_corpus(folder / "corpus.jsonl", documents=200)
    published(folder / WAREHOUSE, "other", seed=9)


def _for_publish(folder: Path) -> None:
    from studies.synthetic.runs import make_parts
    from tests.support.warehouses import SMALL, parts_of

    _two_runs(folder)
    given = SMALL | {"positions": 512, "window": 64, "neurons": 128}
    make_parts(parts_of(folder / WAREHOUSE, "run"), run_id="run", seed=2, **given)


def _for_publish_into_parquet(folder: Path) -> None:
    """The run that is replaced has its files, which go once the new ones are there."""
    from rare_tokens import warehouse

    _for_publish(folder)
    warehouse.keep(folder / WAREHOUSE, "run", "parquet", quiet=True)


def _two_runs_in_parquet(folder: Path) -> None:
    from rare_tokens import warehouse

    _two_runs(folder)
    for run in ("run", "other"):
        warehouse.keep(folder / WAREHOUSE, run, "parquet", quiet=True)


def _for_attach(folder: Path) -> None:
    from rare_tokens import warehouse
    from tests.support.warehouses import published

    with tempfile.TemporaryDirectory() as there:
        published(Path(there) / WAREHOUSE, "run", seed=1, positions=512, window=64, neurons=128)
        warehouse.export(Path(there) / WAREHOUSE, folder / "out")
    published(folder / WAREHOUSE, "other", seed=9, neurons=64)


def _for_migrate(folder: Path) -> None:
    from tests.support.old_schema import make_old

    with tempfile.TemporaryDirectory() as there:
        _two_runs(Path(there))
        make_old(folder / WAREHOUSE, Path(there) / WAREHOUSE)


def _for_analyze(folder: Path) -> None:
    from tests.support.warehouses import published

    published(folder / WAREHOUSE, "run", seed=1)


def _for_vacuum(folder: Path) -> None:
    from rare_tokens import warehouse

    _two_runs(folder)
    warehouse.delete(folder / WAREHOUSE, "other")


OPERATIONS = [
    Operation("ingest", _for_ingest, _ingest),
    Operation("publish", _for_publish, _publish),
    Operation("analyze", _for_analyze, command_line("analyze"), stepwise=True),
    Operation("migrate", _for_migrate, command_line("migrate")),
    Operation("delete", _two_runs, command_line("delete", "run")),
    Operation("export", _two_runs, command_line("export", "out")),
    Operation("vacuum", _for_vacuum, command_line("vacuum")),
    Operation("ingest into Parquet", _for_ingest, _ingest_into_parquet),
    Operation("publish into Parquet", _for_publish_into_parquet, _publish),
    Operation("delete from Parquet", _two_runs_in_parquet, command_line("delete", "run")),
    Operation("attach to Parquet", _for_attach, command_line("attach", "out", "--store", "parquet")),
]


# --- what a warehouse holds -----------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, Any]:
    """Every public relation, rows in order, times left out; and every file of an export."""
    import polars as pl

    from rare_tokens import warehouse

    path, held = folder / WAREHOUSE, {}
    with warehouse.open(path) as opened:
        for table in warehouse.tables(path):
            if table.kind == "view":
                frame = opened.sql(f"select * from {table.name} order by all")
                # A file's name has the hash of a manifest in it, with its times.
                frame = frame.drop((*TIMES, "path") if table.name == "fact_file" else TIMES, strict=False)
                held[table.name] = frame.sort("run_id") if table.name == "dim_run" else frame
        listed = set(opened.fact_file()["path"])
    facts = folder / f"{WAREHOUSE}.facts"
    there = {file.relative_to(facts).as_posix() for file in facts.rglob("*") if file.is_file()}
    held[ON_DISK] = pl.DataFrame({"unlisted": [len(there - listed)], "missing": [len(listed - there)]})
    for file in sorted((folder / "out").rglob("*.parquet")):
        name = str(file.relative_to(folder))
        frame = pl.read_parquet(file, hive_partitioning=False).drop(TIMES, strict=False)
        held[name] = frame.sort([column for column, kind in frame.schema.items() if not kind.is_nested()])
    return held


def differing(left: dict[str, Any], right: dict[str, Any]) -> set[str]:
    """The relations and files that are not the same."""
    return {
        name for name in left.keys() | right.keys() if not (name in left and name in right and _same(left, right, name))
    }


def _same(left: dict[str, Any], right: dict[str, Any], name: str) -> bool:
    return bool(left[name].equals(right[name]))


def check_whole(folder: Path, operation: Operation, before: dict[str, Any], after: dict[str, Any]) -> str:
    """Which state a disturbed warehouse is in.

    Raises:
        AssertionError: in neither, or it does not open.
    """
    from rare_tokens import warehouse

    path = folder / WAREHOUSE
    if operation.name == "migrate" and not _is_migrated(path):
        return "before"
    found = snapshot(folder)
    assert not warehouse.runs(path).is_empty()
    # What a run that is under way, or was refused for its broken parts, may change.
    bookkeeping = {"dim_run", "quality_result", ON_DISK}
    assert found[ON_DISK]["missing"].item() == 0
    # A view over what several steps store has no state of its own; the tables that it reads are looked at themselves.
    ignored = bookkeeping | {"measured_value"} if operation.stepwise else bookkeeping
    from_before, from_after = differing(found, before) - ignored, differing(found, after) - ignored
    if not from_before:
        return "before" if from_after else "both"
    if not from_after:
        return "after"
    mixed = from_before & from_after if operation.stepwise else from_before | from_after
    assert operation.stepwise, f"not before: {sorted(from_before)[:5]}; not after: {sorted(from_after)[:5]}"
    assert not mixed, f"half of {sorted(mixed)}"
    return "between"


def _is_migrated(path: Path) -> bool:
    from rare_tokens import warehouse
    from rare_tokens.common.errors import UserError

    try:
        warehouse.runs(path)
    except UserError as error:
        if "rare-tokens migrate" in str(error):
            return False
        raise
    return True


def leftovers(folder: Path) -> list[str]:
    """Files that a finished command should not leave.

    A .wal belongs to the warehouse and the next writer takes it in; a .lock names a process that is gone: no claim.
    """
    known = {
        WAREHOUSE,
        f"{WAREHOUSE}.wal",
        f"{WAREHOUSE}.parts",
        f"{WAREHOUSE}.facts",
        "neox",
        "corpus.jsonl",
        "out",
        "tmp",
    }
    found = [path.name for path in folder.iterdir() if path.name not in known]
    return found + [path.name for path in (folder / f"{WAREHOUSE}.parts").glob("*") if path.suffix != ".lock"]


# --- processes ------------------------------------------------------------------------------------------------------


def fork(call: Callable[[], int], output: Path) -> int:
    """Run `call` in a process forked from this one; its output goes to a file once it has ended."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        sys.stdout = sys.stderr = text = io.StringIO()
        code = call()
        output.write_text(text.getvalue())
    except BaseException:  # the process ends here, whatever it was
        output.write_text(traceback.format_exc())
    os._exit(code)


def wait(pid: int) -> int:
    """Exit code, or minus the signal."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def apart(call: Callable[[], Any]) -> Any:
    """The result of `call`, made in a process of its own: this one must never start a thread."""
    with tempfile.TemporaryDirectory() as folder:
        result, output = Path(folder) / "result", Path(folder) / "output"

        def keep() -> int:
            result.write_bytes(pickle.dumps(call()))
            return 0

        code = wait(fork(keep, output))
        if code:
            raise AssertionError(output.read_text() if output.exists() else f"ended with {code}")
        return pickle.loads(result.read_bytes())


def inside(folder: Path, call: Callable[[], int]) -> Callable[[], int]:
    def there() -> int:
        os.chdir(folder)
        tempfile.tempdir = str(folder / "tmp") if (folder / "tmp").is_dir() else TEMPORARY
        return call()

    return there


# --- disturbances ---------------------------------------------------------------------------------------------------


def failing(kind: str, first: int, error: int, once: bool, call: Callable[[], int]) -> Callable[[], int]:
    """`call` with the first-th call of a kind failing, and unless `once` every later one; says how many there were."""

    def there() -> int:
        disk = ctypes.CDLL(None)  # preloaded
        disk.disk_arm(KINDS.index(kind), ctypes.c_long(first), error, once)
        try:
            return call()
        finally:
            disk.disk_disarm()
            counts = {name: int(disk.disk_seen(number)) for number, name in enumerate(KINDS)}
            print(f"CALLS {json.dumps(counts)}")

    return there


def with_failing_disk() -> bool:
    """Whether this process has the failing disk under it; where it can be built, starts again with it."""
    compiler = shutil.which("cc")
    has_it = "failing_disk" in os.environ.get("LD_PRELOAD", "")
    if has_it or compiler is None or sys.platform != "linux":
        return has_it
    library = Path(tempfile.mkdtemp(prefix="failing-disk-")) / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    os.environ["LD_PRELOAD"] = str(library)
    return bool(
        os.execv(sys.executable, [sys.executable, "-m", "tests.robustness.crashes", *sys.argv[1:]])
    )  # never returns


@contextmanager
def small_disk(megabytes: float) -> Iterator[Path]:
    """A tmpfs of a size."""
    with tempfile.TemporaryDirectory(prefix="small-disk-") as folder:
        size = f"size={int(megabytes * 1024)}k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=True, capture_output=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    try:
        with small_disk(1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


# --- trials ---------------------------------------------------------------------------------------------------------


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
    import_everything()
    rng = random.Random(given.seed)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="crashes-") as folder:
        chosen = [operation for operation in OPERATIONS if given.only is None or operation.name in given.only]
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


def import_everything() -> None:
    """Load what commands load, so that a forked process need not; nothing here may start a thread."""
    import torch

    torch.set_num_threads(1)
    layers = (
        "rare_tokens.analyses.reference",
        "rare_tokens.analyses.registry",
        "rare_tokens.ingest.run.executors",
        "rare_tokens.ingest.run.pipeline",
        "rare_tokens.ingest.run.request",
        "cli",
    )
    for name in (*layers, "tests.support.old_schema", "tests.support.tiny", "tests.support.warehouses"):
        importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
