"""Where the parts of a run are while several processes compute it: a folder or a URL that all of them can reach.

fsspec moves the files and retries. Every file appears whole: an object store shows an object only when it is complete,
and elsewhere a file is written under a temporary name beside its own and then renamed.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import write_atomically

# Object stores have no folders to make, and show nothing of a put before it ends.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory"}
_PARTIAL = ".partial"


class Place:
    """A folder, local or at a URL of any kind that fsspec knows; names in it are relative, with slashes.

    What goes wrong with it is the user's error, named with the URL. It is pickled as its URL alone: credentials and
    endpoints are what each machine's environment says they are.
    """

    def __init__(self, url: str | Path) -> None:
        """Name it; nothing is opened before the first use."""
        is_path = "://" not in str(url) and "::" not in str(url)
        self.url = str(Path(url).expanduser().resolve()) if is_path else str(url).rstrip("/")

    def __getstate__(self) -> dict[str, Any]:
        """The URL alone."""
        return {"url": self.url}

    def __truediv__(self, name: str) -> "Place":
        """The folder of that name in it."""
        return Place(f"{self.url}/{name}")

    @cached_property
    def _opened(self) -> tuple[AbstractFileSystem, str]:
        files, root = url_to_fs(self.url)
        return files, root.rstrip("/")

    @property
    def _is_object_store(self) -> bool:
        protocol = self._opened[0].protocol
        return bool(_OBJECT_STORES & ({protocol} if isinstance(protocol, str) else set(protocol)))

    def names(self) -> set[str]:
        """Every finished file in it and in its subfolders.

        Raises:
            UserError: it cannot be read.
        """
        with self._naming():
            files, root = self._opened
            files.invalidate_cache()
            try:
                found = files.find(root)
            except FileNotFoundError:
                return set()
            return {path[len(root) :].lstrip("/") for path in found if not path.endswith(_PARTIAL)}

    def put(self, local: Path, name: str) -> None:
        """Copy a local file there under a name, replacing any file of that name.

        Raises:
            UserError: it cannot be written.
        """
        with self._naming():
            files, root = self._opened
            if self._is_object_store:
                files.put_file(str(local), f"{root}/{name}")
                return
            partial = f"{root}/{name}.{uuid4().hex}{_PARTIAL}"
            files.makedirs(partial.rpartition("/")[0], exist_ok=True)
            files.put_file(str(local), partial)
            files.mv(partial, f"{root}/{name}")

    def get(self, name: str, local: Path) -> None:
        """Copy one of its files to a local path, unless that exists.

        Raises:
            UserError: it cannot be read.
        """
        if local.exists():
            return
        with self._naming():
            files, root = self._opened
            write_atomically(local, lambda path: files.get_file(f"{root}/{name}", str(path)))

    @contextlib.contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A local copy of one of its files while the block runs.

        Raises:
            UserError: it cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="rare-tokens-") as folder:
            path = Path(folder) / "file"
            self.get(name, path)
            yield path

    def is_at(self, folder: Path) -> bool:
        """Whether it is this folder on this machine."""
        return self.url == str(folder.resolve())

    def remove(self) -> None:
        """Remove it with everything in it, if it exists.

        Raises:
            UserError: it cannot be written.
        """
        with self._naming():
            files, root = self._opened
            files.invalidate_cache()
            if files.exists(root):
                files.rm(root, recursive=True)

    @contextlib.contextmanager
    def probed(self) -> Iterator[str]:
        """Write a small file to it while the block runs, and yield its name, once it can be read here.

        Raises:
            UserError: it cannot be written or read.
        """
        name = f"{uuid4().hex}.probe"
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "out").write_text(name)
            self.put(Path(folder) / "out", name)
        try:
            self.require(name)
            yield name
        finally:
            with self._naming():
                files, root = self._opened
                files.invalidate_cache()
                for path in (f"{root}/{name}", f"{root}/{name}.here"):
                    if files.exists(path):
                        files.rm(path)

    def require(self, name: str) -> None:
        """Make sure that this machine can read a file written elsewhere, and write another.

        Raises:
            UserError: it cannot.
        """
        with self.fetched(name) as path:
            self.put(path, f"{name}.here")

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except _unusable() as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"--parts {self.url}: cannot be used ({lines[0][:200]}). Check that it exists, its permissions and "
                "the network. Finished work is kept."
            ) from error


def _unusable() -> tuple[type[Exception], ...]:
    """What fsspec and its back ends raise about a place, permissions or a network."""
    known: tuple[type[Exception], ...] = (OSError, ValueError, ImportError)
    with contextlib.suppress(ImportError):
        from botocore.exceptions import BotoCoreError

        known = (*known, BotoCoreError)
    return known
