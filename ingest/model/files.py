"""A model's folder: its name and revision, what of it may run code, and the identity of its contents."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rare_tokens.common.errors import UserError

SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
PICKLES = ("*.bin", "*.bin.index.json")


@dataclass(frozen=True)
class ModelFolder:
    """A model at one revision, on disk.

    Attributes:
        path: folder with config.json, weights and tokenizer.
        name: as shown to people: the hub id, or the folder's name (never its path).
        revision: branch, tag or commit of a hub id; the checkpoint folder's name; `main` for a plain folder.
        above: the folder above, where a checkpoint has no tokenizer of its own and that one's is taken.
    """

    path: Path
    name: str
    revision: str
    above: Path | None = None

    @property
    def tokenizer_path(self) -> Path:
        """Where its tokenizer is."""
        return self.above or self.path

    @property
    def short_name(self) -> str:
        """The name without the owner, safe in a file name."""
        return short_name(self.name)


@dataclass(frozen=True)
class Trust:
    """What of a model's folder may run code: pickled weights, code of the model's own. Nothing, by default."""

    pickle: bool = False
    remote_code: bool = False


def short_name(name: str) -> str:
    """A hub id or folder name without the owner, safe in a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name.rsplit("/", 1)[-1]).strip("-.") or "model"


def weight_files(path: Path, trust: Trust) -> list[Path]:
    """The weight files that would be loaded: safetensors, else pickles where they are allowed."""
    files = sorted(path.glob("*.safetensors"))
    if not files and trust.pickle:
        files = sorted(path.glob("pytorch_model*.bin"))
    return files


def model_hash(found: ModelFolder, trust: Trust) -> str:
    """sha256 over the configuration and the contents of the weight files, hex.

    In a hub cache a large file is a link to a blob named by its own sha256, which is then not read again.
    """
    digest = hashlib.sha256(json.dumps(config_values(found), sort_keys=True).encode())
    for file in weight_files(found.path, trust):
        digest.update(f"{file.name} {file_hash(file)}".encode())
    return digest.hexdigest()


def config_values(found: ModelFolder) -> Any:
    """What config.json holds.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return json.loads((found.path / "config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"--model {found.name}: its config.json cannot be read ({error}).") from error


def file_hash(file: Path) -> str:
    """sha256 of a file, hex; that of a hub cache's blob is its name."""
    blob = file.resolve().name
    if file.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
        return blob
    state = file.stat()
    return _content_hash(file.resolve(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _content_hash(file: Path, _size: int, _changed: int) -> str:
    """Read once: more than one identity is made of the same file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
