"""Fetches an export from the Hugging Face hub, where someone has uploaded it as a data set."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from rare_tokens.common.errors import UserError
from rare_tokens.common.progress import progress
from rare_tokens.warehouse.connection import require_place
from rare_tokens.warehouse.share import layout

_FORM = "hf://datasets/USER/NAME[@REVISION]"
_TIMEOUT = 5.0  # seconds until a hub that does not answer counts as out of reach
_AT_ONCE = 8  # files fetched at the same time: most are small
_LONGEST_REASON = 150  # characters


def is_address(source: Path | str) -> bool:
    """Whether a source of `attach` is an address and not a folder."""
    return isinstance(source, str) and "://" in source


@contextmanager
def fetched(address: str, path: Path, *, quiet: bool) -> Iterator[layout.Exported]:
    """The export at an address, in a folder beside the warehouse `path` that goes with the context.

    Its manifest comes first, so what is no export of this version is refused before anything large is fetched. Hashes
    are not compared here (`layout.verify`).

    Raises:
        UserError: the address is of another form, the hub cannot be reached, has no such data set or revision, or
            what is there is no export.
    """
    name, revision = _parsed(address)
    require_place(path)
    layout.remove_leftovers(path)
    folder = layout.partial_name(path, os.getpid())
    try:
        with _refusing(address):
            commit = _commit(name, revision)
            folder.mkdir()
            _fetch(name, commit, layout.MANIFEST, folder)
        exported = layout.read_export(folder, address)
        with _refusing(address):
            _fetch_all(name, commit, exported, quiet=quiet)
        yield exported
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parsed(address: str) -> tuple[str, str | None]:
    """Name and revision of the data set at an address."""
    from huggingface_hub.errors import HfUriError
    from huggingface_hub.utils import parse_hf_uri

    try:
        parsed = parse_hf_uri(address)
    except HfUriError as error:
        raise UserError(f"{address} is no address of a data set. Give a folder, or {_FORM}.") from error
    if parsed.type != "dataset" or parsed.path_in_repo:
        raise UserError(f"{address} is no address of a whole data set. Give a folder, or {_FORM}.")
    return parsed.id, parsed.revision


def _commit(name: str, revision: str | None) -> str:
    """The commit that a revision is now, so that every file comes from the same one."""
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(name, revision=revision, timeout=_TIMEOUT).sha
    if commit is None:
        raise OSError("it names no commit")
    return str(commit)


def _fetch(name: str, commit: str, file: str, folder: Path) -> None:
    import huggingface_hub

    huggingface_hub.utils.disable_progress_bars()  # ours counts all files together
    huggingface_hub.logging.set_verbosity_error()
    huggingface_hub.hf_hub_download(
        name, file, repo_type="dataset", revision=commit, local_dir=folder, etag_timeout=_TIMEOUT
    )


def _fetch_all(name: str, commit: str, exported: layout.Exported, *, quiet: bool) -> None:
    """Fetch the files that the manifest lists; the first that fails ends it."""
    kilobytes = {file: max(1, of["bytes"] // 1000) for file, of in exported.files.items()}

    def fetch(file: str) -> str:
        _fetch(name, commit, file, exported.folder)
        return file

    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        with progress("Download", sum(kilobytes.values()), "kB", quiet=quiet) as advance:
            for file in pool.map(fetch, kilobytes):
                advance(kilobytes[file])
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _refusing(address: str) -> Iterator[None]:
    """Say in one sentence what the hub's client found wrong."""
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except RevisionNotFoundError as error:
        raise UserError(f"{address} has no such revision. Name a branch, a tag or a commit of it.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"The hub has no data set at {address}, or shows it only to others. Check the name (USER/NAME); if it is "
            "private, log in (hf auth login)."
        ) from error
    except RemoteEntryNotFoundError as error:
        file = error.response.url.path.rpartition("/resolve/")[2].partition("/")[2]
        if file == layout.MANIFEST:
            message = f"{address} is not an export: it has no {file}. Name a data set that `export` wrote."
        else:
            message = f"{address}/{file} is missing. Ask whoever uploaded it for the whole folder."
        raise UserError(message) from error
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        _refuse_unless_disk(address, error)


def _refuse_unless_disk(address: str, error: Exception) -> NoReturn:
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        raise error  # of this machine's disk: the command line says so
    cause = error.__cause__ or error
    why = (str(cause) or type(cause).__name__).splitlines()[0].rstrip(".")[:_LONGEST_REASON]
    raise UserError(
        f"{address} cannot be fetched from the hub ({why}). Check the network, or download the data set where there is "
        "one and attach the folder."
    ) from error
