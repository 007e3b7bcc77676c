"""Finding a model: a local folder, a folder of checkpoints, or a hub id."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from rare_tokens.common.checkpoint_names import parse
from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.checkpoint_folders import NoCheckpointError, checkpoint_folders, last, named
from rare_tokens.ingest.model.files import (
    ADAPTER,
    CONFIG,
    PICKLES,
    SAFETENSORS,
    ModelFolder,
    Trust,
    folder_name,
    weight_files,
    weight_names,
)
from rare_tokens.ingest.model.gguf import gguf_file, gguf_in, is_gguf

HUB_TIMEOUT_SECONDS = 8.0
_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")
_TOKENIZER_AND_CONFIG = ("*.json", "*.model", "*.txt", "*.tiktoken")


def shown_name(model: str) -> str:
    """What `--model` is called: the hub id, or the name of the folder or GGUF file (never its path)."""
    path = Path(model).expanduser()
    if path.is_dir():
        return folder_name(path)
    if is_gguf(path):
        return path.stem
    return path.resolve().name if path.exists() or _is_path(model) else model


def portable_name(model: str) -> str:
    """What `--model` can be given as again, beside the model: as `shown_name`, but a GGUF file with its suffix."""
    path = Path(model).expanduser()
    return path.name if is_gguf(path) else shown_name(model)


def available_revisions(model: str) -> list[str]:
    """The revisions of a model: its folders of checkpoints, or its branches and tags on the hub (else in the cache).

    Raises:
        UserError: a folder without checkpoints, no such model, or no hub and nothing in the cache.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        found = [name.listed for name in checkpoint_folders(path)]
        if not found:
            raise UserError(
                f"--revisions: {folder_name(path)} is one model, not a series: it has no folders that are named as "
                "checkpoints are (step1000, checkpoint-1000). Leave --revisions out."
            )
        return found
    try:
        validate_repo_id(model)
        refs = HfApi().list_repo_refs(model)
    except HFValidationError as error:
        raise UserError(f"--model {model}: neither a folder here nor a possible hub id. Check the path.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"--model {model}: no such folder here and no such model on the hub.") from error
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        cached = Path(HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "refs"
        if not cached.is_dir():
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"--revisions: the checkpoints of {model} are not in the local cache, and the hub cannot be reached "
                f"({reason}). Name each with --revision, or connect to the network."
            ) from error
        return sorted(item.name for item in cached.iterdir())
    return [ref.name for ref in (*refs.branches, *refs.tags)]


def locate(model: str, revision: str | None, trust: Trust, *, fetch: bool = True) -> ModelFolder:
    """Find a model on disk, fetching it from the hub where it is not a folder.

    Without `fetch`, weights that are not in the local cache stay on the hub: they are then `absent`.

    Raises:
        UserError: no such folder, revision or hub id; the hub cannot be reached and has nothing cached; no weights.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        found = _local(path, revision)
    elif is_gguf(path):
        found = _whole(gguf_file(path), revision)
    elif path.exists() or _is_path(model):
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise UserError(
            f"--model {model}: {what}. Give a folder with config.json and weights, a .gguf file, or a hub id."
        )
    else:
        found = _from_hub(model, revision, trust, fetch=fetch)
    _require_files(found, trust)
    return found


def _is_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or "\\" in model


def _local(path: Path, revision: str | None) -> ModelFolder:
    """A folder with a model, with checkpoints, or with both: a revision other than `main` is one of the checkpoints."""
    name, found = folder_name(path), checkpoint_folders(path)
    is_model = (path / CONFIG).is_file()
    if not found or (is_model and revision in (None, "main")):
        _refuse_adapter(path, name)
    if is_model and (not found or revision in (None, "main")):
        return _whole(ModelFolder(path, name, "main"), revision)
    if not found and (file := gguf_in(path)) is not None:
        return _whole(replace(file, name=name), revision)
    if not found:
        raise UserError(
            f"--model {path}: no config.json, no .gguf file and no folders of checkpoints (step1000, checkpoint-1000) "
            "in it. Give a Hugging Face model folder."
        )
    wanted = last(found) if revision is None else named(found, revision)
    _refuse_adapter(path / wanted, f"{name} ({wanted})")
    if not (path / wanted / CONFIG).is_file():
        raise NoCheckpointError(f"--model {path}: {wanted} has no config.json.")
    above = path if not _has_tokenizer(path / wanted) and _has_tokenizer(path) else None
    return ModelFolder(path / wanted, name, wanted, above=above)


def _has_tokenizer(path: Path) -> bool:
    return any((path / name).is_file() for name in _TOKENIZERS)


def _whole(found: ModelFolder, revision: str | None) -> ModelFolder:
    """A model that is no series.

    Raises:
        UserError: a step of it is asked for.
    """
    if revision not in (None, "main"):
        raise UserError(
            f"--revision {revision}: {found.name} is one model, it has no folders of checkpoints. Leave it out."
        )
    return found


def _refuse_adapter(path: Path, name: str) -> None:
    """Refuse a folder with an adapter: whether the library applies it depends on what is installed.

    Raises:
        UserError: there is one.
    """
    if not (path / ADAPTER).is_file():
        return
    try:
        values = json.loads((path / ADAPTER).read_text(encoding="utf-8"))
        base = str(values.get("base_model_name_or_path") or "")
    except (ValueError, OSError, AttributeError, RecursionError):
        base = ""
    of = f" of {shown_name(base)[:80]}" if base else ""
    raise UserError(
        f"--model {name}: it holds a PEFT adapter{of} ({ADAPTER}). Merge it into its model and give the merged folder: "
        "`PeftModel.from_pretrained(…).merge_and_unload().save_pretrained(FOLDER)`."
    )


def _from_hub(model: str, revision: str | None, trust: Trust, *, fetch: bool) -> ModelFolder:
    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise UserError(f"--model {model}: neither a folder here nor a possible hub id. Check the path.") from error
    wanted = revision or "main"
    try:
        info = HfApi().model_info(model, revision=wanted, timeout=HUB_TIMEOUT_SECONDS, files_metadata=not fetch)
        has_safetensors = any(item.rfilename.endswith(".safetensors") for item in info.siblings or [])
        weights = SAFETENSORS if has_safetensors or not trust.pickle else PICKLES
        patterns = [*(weights if fetch else ()), *_TOKENIZER_AND_CONFIG, *(["*.py"] if trust.remote_code else [])]
        path = snapshot_download(model, revision=wanted, allow_patterns=patterns)
        if not fetch:
            hashes = {item.rfilename: item.lfs.sha256 if item.lfs else "" for item in info.siblings or []}
            return ModelFolder(Path(path), model, wanted, absent=_absent(Path(path), hashes, trust))
    except RevisionNotFoundError as error:
        raise NoCheckpointError(f"--revision {wanted}: {model} has no such revision on the hub.") from error
    except GatedRepoError as error:
        raise UserError(
            f"--model {model}: the hub asks for access. Accept its terms there and set HF_TOKEN."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"--model {model}: no such folder here and no such model on the hub.") from error
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        path = _cached(model, wanted, error)
        if not fetch:
            here = {item.name: "" for item in Path(path).iterdir()}
            whole = {"model.safetensors": ""} if not weight_names(Path(path), here, trust) else {}
            return ModelFolder(Path(path), model, wanted, absent=_absent(Path(path), here | whole, trust))
    return ModelFolder(Path(path), model, wanted)


def _absent(path: Path, hashes: Mapping[str, str], trust: Trust) -> tuple[tuple[str, str], ...]:
    """Name and sha256 of each weight file of a model on the hub, unless all are in the cache already."""
    names = weight_names(path, hashes, trust)
    if all((path / name).is_file() for name in names):
        return ()
    return tuple((name, hashes.get(name, "")) for name in names)


def _cached(model: str, revision: str, error: BaseException) -> str:
    """The copy in the local cache, when the hub cannot be reached."""
    try:
        return snapshot_download(model, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"--model {model}: no such folder here, not in the local cache, and the hub cannot be reached ({reason}). "
            "Give a local model folder, or connect to the network."
        ) from error


def _require_files(found: ModelFolder, trust: Trust) -> None:
    if found.gguf is not None:
        return
    _refuse_adapter(found.path, found.name)
    if next(found.path.glob("*.distcp"), None) is not None:
        raise UserError(
            f"--model {found.name}: its folder holds a distributed checkpoint (*.distcp). Save the model from it with "
            "`save_pretrained` and give that folder."
        )
    if not found.absent and not weight_files(found.path, trust):
        pickled = any(item for pattern in PICKLES for item in found.path.glob(pattern))
        if pickled and not trust.pickle:
            raise UserError(
                f"--model {found.name}: its weights are pickles, which can run code when loaded. "
                "Convert them to safetensors, or say --allow-pickle if you trust them."
            )
        others = sorted(item.name for pattern in ("*.safetensors", "*.gguf") for item in found.path.glob(pattern))
        seen = f"; it has {', '.join(name[:80] for name in others[:3])}" if others else ""
        raise NoCheckpointError(
            f"--model {found.name} ({found.revision}): no weights (model.safetensors, or an index of its parts) in its "
            f"folder{seen}."
        )
    if not _has_tokenizer(found.tokenizer_path):
        above = found.path.resolve().parent
        hint = ""
        if parse(found.path.resolve().name) and _has_tokenizer(above):
            hint = f" Give the folder above it as --model, and --revision {found.path.resolve().name}: it has one."
        raise UserError(f"--model {found.name} ({found.revision}): no tokenizer (tokenizer.json) in its folder.{hint}")


def require_folders(model: str, revisions: Sequence[str]) -> None:
    """Make sure that a folder has the checkpoints that are named, before the first of them is worked on.

    Raises:
        UserError: it lacks one. What a hub has is seen only in its turn.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        for revision in revisions:
            _local(path, revision)
