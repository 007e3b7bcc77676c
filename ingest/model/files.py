"""A model's folder: its name and revision, which of its files are loaded, and the identity of their contents."""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from rare_tokens.common.errors import UserError

SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
PICKLES = ("*.bin", "*.bin.index.json")
CONFIG, TOKENIZER, ADAPTER = "config.json", "tokenizer.json", "adapter_config.json"
GGUF_SUFFIX = ".gguf"
_WHOLE = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}
_LFS_POINTER = b"version https://git-lfs.github.com/"
_SNAPSHOT = re.compile(r"(?:models|datasets)--(?P<repository>.+)")


@dataclass(frozen=True)
class ModelFolder:
    """A model at one revision, on disk.

    Attributes:
        path: folder with config.json, weights and tokenizer, or with the GGUF file that holds all three.
        name: as shown to people: the hub id, or the name of the folder or file (never its path).
        revision: branch, tag or commit of a hub id; the checkpoint folder's name; `main` for a plain folder or file.
        gguf: name of the GGUF file in `path`; None where the model is a folder in Hugging Face's layout.
        above: the folder above, where a checkpoint has no tokenizer of its own and that one's is taken.
        absent: name and sha256 of each weight file that is on the hub only; the hash is empty where it is not known.
    """

    path: Path
    name: str
    revision: str
    gguf: str | None = None
    above: Path | None = None
    absent: tuple[tuple[str, str], ...] = ()

    @property
    def tokenizer_path(self) -> Path:
        """Where its tokenizer is."""
        return self.above or self.path

    @property
    def short_name(self) -> str:
        """The name without the owner, safe in a file name."""
        return short_name(self.name)

    @property
    def file_options(self) -> dict[str, str]:
        """What `transformers` must be told beside the folder."""
        return {} if self.gguf is None else {"gguf_file": self.gguf}

    def shown(self, file: str) -> str:
        """A file of the model, to begin a message with: the model's own name stands for a GGUF file."""
        revision = "" if self.revision == "main" else f" ({self.revision})"
        return f"--model {self.name}{revision}" if self.gguf else f"--model {self.name}{revision}: its {file}"


@dataclass(frozen=True)
class Trust:
    """What of a model's folder may run code: pickled weights, code of the model's own. Nothing, by default."""

    pickle: bool = False
    remote_code: bool = False


def short_name(name: str) -> str:
    """A hub id or folder name without the owner, safe in a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name.rsplit("/", 1)[-1]).strip("-.") or "model"


def folder_name(path: Path) -> str:
    """What people call a model's folder: its name, or the repository whose snapshot it is in a hub cache."""
    path = path.resolve()
    if path.parent.name == "snapshots" and (cached := _SNAPSHOT.fullmatch(path.parent.parent.name)):
        return cached["repository"].replace("--", "/", 1)
    return path.name


def weight_files(path: Path, trust: Trust) -> list[Path]:
    """The weight files that `transformers` would load: safetensors, else pickles where they are allowed.

    It takes `model.safetensors`, else the files that the index names; others in the folder are not part of the model.

    Raises:
        UserError: an index cannot be read, or names a file that is not there.
    """
    for kind in ("safetensors", "bin") if trust.pickle else ("safetensors",):
        whole = path / _WHOLE[kind]
        index = path / f"{whole.name}.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            return _indexed(index)
    return []


def weight_names(path: Path, files: Collection[str], trust: Trust) -> list[str]:
    """Names of the weight files that would be loaded, of which some may not be in the folder yet.

    Args:
        path: the folder; it has the index, if there is one.
        files: every file that there is to fetch.
        trust: whether pickles count.

    Raises:
        UserError: an index cannot be read.
    """
    for kind in ("safetensors", "bin") if trust.pickle else ("safetensors",):
        whole = _WHOLE[kind]
        if whole in files:
            return [whole]
        if (index := path / f"{whole}.index.json").is_file():
            return [file.name for file in _named(index)]
    return []


def _indexed(index: Path) -> list[Path]:
    """The files that an index names, all of them there."""
    files = _named(index)
    if missing := [file.name for file in files if not file.is_file()]:
        shown = ", ".join(name[:80] for name in missing[:3]) + (" …" if len(missing) > 3 else "")
        raise UserError(
            f"{_unusable(index)}: of the files it names {len(missing)} are not there ({shown}). Download them."
        )
    return files


def _unusable(index: Path) -> str:
    return f"The index of the weights, {index.name}, cannot be used"


def _named(index: Path) -> list[Path]:
    """The files that an index names."""
    wrong = _unusable(index)
    refuse_pointer(index)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [index.parent / name for name in names]
    except (ValueError, OSError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{wrong}: it has no `weight_map` of tensors to files. Download it again.") from error
    if not files or any(file.parent != index.parent for file in files):
        raise UserError(f"{wrong}: it names no files of its own folder. Download it again.")
    return files


def refuse_pointer(file: Path) -> None:
    """Refuse a file that Git LFS has left in the place of the real one.

    Raises:
        UserError: it is such a pointer.
    """
    try:
        with file.open("rb") as stream:
            is_pointer = stream.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:  # whoever reads it says why
        return
    if is_pointer:
        raise UserError(
            f"{file.name} is a Git LFS pointer, not the file itself. Fetch it: `git lfs pull` in the model's folder."
        )


def model_hash(found: ModelFolder, trust: Trust) -> str:
    """sha256 over everything that is loaded as the model, hex: its configuration, its weights, code that comes with it.

    In a hub cache a large file is a link to a blob named by its own sha256, which is then not read again. Of a file
    that is on the hub only, the hash is the hub's.
    """
    if found.gguf is not None:
        return hashlib.sha256(f"gguf {file_hash(found.path / found.gguf)}".encode()).hexdigest()
    digest = hashlib.sha256(json.dumps(config_values(found), sort_keys=True).encode())
    code = sorted(found.path.glob("*.py")) if trust.remote_code else []
    absent = dict(found.absent)
    weights = [found.path / name for name in sorted(absent)] if absent else weight_files(found.path, trust)
    for file in (*weights, *code):
        known = absent.get(file.name) or (file_hash(file) if file.is_file() else "")
        digest.update(f"{file.name} {known}".encode())
    return digest.hexdigest()


def config_values(found: ModelFolder) -> dict[str, Any]:
    """What config.json holds; of a GGUF file, nothing.

    Raises:
        UserError: it cannot be read, or is no object.
    """
    if found.gguf is not None:
        return {}
    refuse_pointer(found.path / CONFIG)
    try:
        values = json.loads((found.path / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{found.shown(CONFIG)} cannot be read ({error}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{found.shown(CONFIG)} holds a {type(values).__name__}, not an object with a configuration.")
    return values


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
