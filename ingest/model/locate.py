"""Finding a model: a local folder, a folder of `step*/` checkpoints, or a hub id."""

import json
import re
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

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.files import (
    ADAPTER,
    CONFIG,
    PICKLES,
    SAFETENSORS,
    ModelFolder,
    Trust,
    folder_name,
    weight_files,
)
from rare_tokens.ingest.model.gguf import gguf_file, gguf_in, is_gguf

HUB_TIMEOUT_SECONDS = 8.0
_STEP = re.compile(r"step(\d+)")
_TOKENIZER_AND_CONFIG = ("*.json", "*.model", "*.txt", "*.tiktoken")


class NoCheckpointError(UserError):
    """A revision that is not there, or has no weights; of a range of checkpoints, a gap."""


def shown_name(model: str) -> str:
    """What `--model` is called: the hub id, or the name of the folder or GGUF file (never its path)."""
    path = Path(model).expanduser()
    if path.is_dir():
        return folder_name(path)
    return path.stem if is_gguf(path) else model


def available_revisions(model: str) -> list[str]:
    """The revisions of a model: its step*/ folders, or its branches and tags on the hub (else those in the cache).

    Raises:
        UserError: a folder without steps, no such model, or no hub and nothing in the cache.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        steps = sorted(item.name for item in path.iterdir() if item.is_dir() and _STEP.fullmatch(item.name))
        if not steps:
            raise UserError(f"--revisions: {folder_name(path)} is one model, not a series of step*/ folders.")
        return steps
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


def locate(model: str, revision: str | None, trust: Trust) -> ModelFolder:
    """Find a model on disk, fetching it from the hub where it is not a folder.

    Raises:
        UserError: no such folder, revision or hub id; the hub cannot be reached and has nothing cached; no weights.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        found = _local(path, revision)
    elif is_gguf(path):
        found = _whole(gguf_file(path), revision)
    elif path.exists() or model.startswith((".", "/", "~")) or "\\" in model:
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise UserError(
            f"--model {model}: {what}. Give a folder with config.json and weights, a .gguf file, or a hub id."
        )
    else:
        found = _from_hub(model, revision, trust)
    _require_files(found, trust)
    return found


def _local(path: Path, revision: str | None) -> ModelFolder:
    name = folder_name(path)
    _refuse_adapter(path, name)
    if (path / CONFIG).is_file():
        return _whole(ModelFolder(path, name, "main"), revision)
    steps = {item.name: int(match[1]) for item in path.iterdir() if (match := _STEP.fullmatch(item.name))}
    if not steps and (found := gguf_in(path)) is not None:
        return _whole(replace(found, name=name), revision)
    if not steps:
        raise UserError(
            f"--model {path}: no config.json, no .gguf file and no step*/ folders in it. Give a Hugging Face model "
            "folder."
        )
    wanted = max(steps, key=lambda step: steps[step]) if revision is None else revision
    wanted = f"step{wanted}" if wanted.isdigit() else wanted
    if wanted not in steps:
        known = ", ".join(sorted(steps, key=lambda step: steps[step]))
        raise NoCheckpointError(f"--revision {revision}: {name} has no such step. It has {known}.")
    if not (path / wanted / "config.json").is_file():
        raise NoCheckpointError(f"--model {path}: {wanted} has no config.json.")
    return ModelFolder(path / wanted, name, wanted)


def _whole(found: ModelFolder, revision: str | None) -> ModelFolder:
    """A model that is no series.

    Raises:
        UserError: a step of it is asked for.
    """
    if revision not in (None, "main"):
        raise UserError(
            f"--revision {revision}: {found.name} is one model, not a series of step*/ folders. Leave it out."
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


def _from_hub(model: str, revision: str | None, trust: Trust) -> ModelFolder:
    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise UserError(f"--model {model}: neither a folder here nor a possible hub id. Check the path.") from error
    wanted = revision or "main"
    try:
        info = HfApi().model_info(model, revision=wanted, timeout=HUB_TIMEOUT_SECONDS, files_metadata=False)
        has_safetensors = any(item.rfilename.endswith(".safetensors") for item in info.siblings or [])
        patterns = [*(SAFETENSORS if has_safetensors or not trust.pickle else PICKLES), *_TOKENIZER_AND_CONFIG]
        patterns += ["*.py"] if trust.remote_code else []
        path = snapshot_download(model, revision=wanted, allow_patterns=patterns)
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
    return ModelFolder(Path(path), model, wanted)


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
    if not weight_files(found.path, trust):
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
    if not any((found.path / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")):
        raise UserError(f"--model {found.name} ({found.revision}): no tokenizer (tokenizer.json) in its folder.")
