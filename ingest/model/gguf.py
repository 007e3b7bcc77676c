"""GGUF: one file that holds configuration, tokenizer and (mostly quantised) weights; `transformers` dequantises it."""

import importlib.util
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rare_tokens.common.errors import UserError
from rare_tokens.common.program import install
from rare_tokens.ingest.model.files import GGUF_SUFFIX, ModelFolder, folder_name, refuse_pointer

_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-\d{5}")


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, by its name."""
    return path.is_file() and path.suffix.lower() == GGUF_SUFFIX


def gguf_file(path: Path) -> ModelFolder:
    """The model in a GGUF file.

    Raises:
        UserError: the package that reads such files is missing, or the file is one shard of several or a pointer.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UserError(
            f"--model {path.name}: reading GGUF files takes the package gguf. In this program's folder: "
            f"{install('gguf')}"
        )
    refuse_pointer(path)
    if shard := _SHARD.fullmatch(path.stem):
        raise UserError(
            f"--model {path.name}: one of several files of {shard['stem']}. Merge them first: llama-gguf-split --merge."
        )
    return ModelFolder(path.parent, path.stem, "main", path.name)


def gguf_in(folder: Path) -> ModelFolder | None:
    """The model in a folder's one GGUF file; None where it has none.

    Raises:
        UserError: there are several, or as `gguf_file`.
    """
    files = sorted(file for file in folder.iterdir() if is_gguf(file))
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:3]) + (" …" if len(files) > 3 else "")
        raise UserError(f"--model {folder_name(folder)}: {len(files)} GGUF files ({names}). Name one: --model FILE.")
    return gguf_file(files[0]) if files else None


@contextmanager
def alone(found: ModelFolder) -> Iterator[Path]:
    """The folder to load a model from; a GGUF file is in it by itself, so that none of its neighbours has a say.

    `transformers` would take a tokenizer's class, or an adapter, from files that lie beside it.
    """
    if found.gguf is None:
        yield found.path
        return
    with tempfile.TemporaryDirectory(prefix="rare-tokens-gguf-") as folder:
        link = Path(folder, found.gguf)
        try:
            link.symlink_to((found.path / found.gguf).resolve())
        except OSError:  # a system that does not let everyone make links
            link.hardlink_to((found.path / found.gguf).resolve())
        yield Path(folder)
