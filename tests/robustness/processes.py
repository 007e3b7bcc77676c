"""Processes apart: forked, killed, with a disk that fails or fills up."""

import ctypes
import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
# Asked once: Python looks for a folder by writing files of its own, and where none can be removed leaves them lying.
TEMPORARY = tempfile.gettempdir()


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
