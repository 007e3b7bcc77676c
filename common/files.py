"""Writes files so that a reader never sees half of one, reads small JSON files back, and checks names."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rare_tokens
from rare_tokens.common.errors import UserError

IMPORT_ROOT = Path(rare_tokens.__file__).resolve().parent.parent
"""What our own child processes need on their path to import this program from a folder when it is not installed."""


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")  # of two letters at least: C:/ is a disk


def is_utf8(name: str) -> bool:
    """Whether a name can be stored: bytes in a file's name that are not UTF-8 reach Python as surrogates."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def require_local(path: Path) -> None:
    """Refuse an address in the place of a warehouse's file.

    Raises:
        UserError: it is one, such as ``s3://bucket/name``.
    """
    if address := _ADDRESS.match(str(path)):
        raise UserError(
            f"--warehouse {path}: a warehouse is a file on a disk of this machine, not at an address "
            f"({address[0]}). Name a file; unfinished work may lie at an address: ingest --parts URL."
        )


def size_in_words(size: float) -> str:
    """Bytes as people read them, for example ``850 MB`` or ``1.2 GB``."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= 0.95 * unit:
            return f"{size / unit:.1f} {name}" if size < 9.95 * unit else f"{size / unit:,.0f} {name}"
    return f"{size / 1e3:,.0f} kB"


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
