"""Writes files so that a reader never sees half of one, reads small JSON files back, and checks names."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rare_tokens

IMPORT_ROOT = Path(rare_tokens.__file__).resolve().parent.parent
"""What our own child processes need on their path to import this program from a folder when it is not installed."""


def is_utf8(name: str) -> bool:
    """Whether a name can be stored: bytes in a file's name that are not UTF-8 reach Python as surrogates."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file next to `path`, flush it to disk, then rename it into place.

    A crash leaves the old file, none, or the whole new one. The temporary name ends in
    ``.partial`` and carries the process id, so that two writers never share one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)

    def write(partial: Path) -> None:
        partial.write_text(text + "\n", encoding="utf-8")

    write_atomically(path, write)


def read_json(path: Path) -> Any:
    """Read a JSON file written by `write_json`."""
    return json.loads(path.read_text(encoding="utf-8"))
