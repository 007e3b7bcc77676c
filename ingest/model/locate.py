"""Finding, hashing and loading a model: a local folder, a folder of `step*/` checkpoints, or a hub id."""

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import align_module_device
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
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.model.head import all_finite

HUB_TIMEOUT_SECONDS = 8.0
DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
_STEP = re.compile(r"step(\d+)")
_SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
_PICKLES = ("*.bin", "*.bin.index.json")
_TOKENIZER_AND_CONFIG = ("*.json", "*.model", "*.txt", "*.tiktoken")


class NoCheckpointError(UserError):
    """A revision that is not there, or has no weights; of a range of checkpoints, a gap."""


@dataclass(frozen=True)
class ModelFolder:
    """A model at one revision, on disk.

    Attributes:
        path: folder with config.json, weights and tokenizer.
        name: as shown to people: the hub id, or the folder's name (never its path).
        revision: branch, tag or commit of a hub id; the step folder's name; `main` for a plain folder.
    """

    path: Path
    name: str
    revision: str

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


def shown_name(model: str) -> str:
    """What `--model` is called: the hub id, or the folder's name (never its path)."""
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model


def available_revisions(model: str) -> list[str]:
    """The revisions of a model: its step*/ folders, or its branches and tags on the hub (else those in the cache).

    Raises:
        UserError: a folder without steps, no such model, or no hub and nothing in the cache.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        steps = sorted(item.name for item in path.iterdir() if item.is_dir() and _STEP.fullmatch(item.name))
        if not steps:
            raise UserError(f"--revisions: {path.resolve().name} is one model, not a series of step*/ folders.")
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
    elif path.exists() or model.startswith((".", "/", "~")) or "\\" in model:
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise UserError(f"--model {model}: {what}. Give a folder with config.json and weights, or a hub id.")
    else:
        found = _from_hub(model, revision, trust)
    _require_files(found, trust)
    return found


def _local(path: Path, revision: str | None) -> ModelFolder:
    name = path.resolve().name
    if (path / "config.json").is_file():
        if revision not in (None, "main"):
            raise UserError(
                f"--revision {revision}: {name} is one model, not a series of step*/ folders. Leave it out."
            )
        return ModelFolder(path, name, "main")
    steps = {item.name: int(match[1]) for item in path.iterdir() if (match := _STEP.fullmatch(item.name))}
    if not steps:
        raise UserError(
            f"--model {path}: no config.json and no step*/ folders in it. Give a Hugging Face model folder."
        )
    wanted = max(steps, key=lambda step: steps[step]) if revision is None else revision
    wanted = f"step{wanted}" if wanted.isdigit() else wanted
    if wanted not in steps:
        known = ", ".join(sorted(steps, key=lambda step: steps[step]))
        raise NoCheckpointError(f"--revision {revision}: {name} has no such step. It has {known}.")
    if not (path / wanted / "config.json").is_file():
        raise NoCheckpointError(f"--model {path}: {wanted} has no config.json.")
    return ModelFolder(path / wanted, name, wanted)


def _from_hub(model: str, revision: str | None, trust: Trust) -> ModelFolder:
    try:
        validate_repo_id(model)
    except HFValidationError as error:
        raise UserError(f"--model {model}: neither a folder here nor a possible hub id. Check the path.") from error
    wanted = revision or "main"
    try:
        info = HfApi().model_info(model, revision=wanted, timeout=HUB_TIMEOUT_SECONDS, files_metadata=False)
        has_safetensors = any(item.rfilename.endswith(".safetensors") for item in info.siblings or [])
        patterns = [*(_SAFETENSORS if has_safetensors or not trust.pickle else _PICKLES), *_TOKENIZER_AND_CONFIG]
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
    if not weight_files(found.path, trust):
        pickled = any(item for pattern in _PICKLES for item in found.path.glob(pattern))
        if pickled and not trust.pickle:
            raise UserError(
                f"--model {found.name}: its weights are pickles, which can run code when loaded. "
                "Convert them to safetensors, or say --allow-pickle if you trust them."
            )
        raise NoCheckpointError(f"--model {found.name} ({found.revision}): no weights (*.safetensors) in its folder.")
    if not any((found.path / name).is_file() for name in ("tokenizer.json", "vocab.json", "tokenizer.model")):
        raise UserError(f"--model {found.name} ({found.revision}): no tokenizer (tokenizer.json) in its folder.")


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
    digest = hashlib.sha256(json.dumps(_config_dict(found), sort_keys=True).encode())
    for file in weight_files(found.path, trust):
        digest.update(f"{file.name} {_file_hash(file)}".encode())
    return digest.hexdigest()


def _config_dict(found: ModelFolder) -> Any:
    try:
        return json.loads((found.path / "config.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"--model {found.name}: its config.json cannot be read ({error}).") from error


def _file_hash(file: Path) -> str:
    blob = file.resolve().name
    if file.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
        return blob
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_tokenizer(found: ModelFolder, trust: Trust) -> PreTrainedTokenizerBase:
    """The model's tokenizer; never from the network."""
    _quiet()
    try:
        return AutoTokenizer.from_pretrained(
            found.path, local_files_only=True, trust_remote_code=trust.remote_code, use_fast=True
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(f"--model {found.name}: its tokenizer cannot be loaded ({_first_line(error)}).") from error


def tokenizer_id(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> str:
    """Identity of a vocabulary by its content, so that the checkpoints of one series share it.

    The unembedding's rows count: two models may pad one tokenizer to different sizes.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    digest = hashlib.sha256(f"{vocabulary_size} {content}".encode("utf-8", "surrogatepass"))
    return "tok-" + digest.hexdigest()[:12]


def load_config(found: ModelFolder, trust: Trust) -> Any:
    """The model's configuration (layers, context length) without its weights."""
    _quiet()
    try:
        return AutoConfig.from_pretrained(
            found.path, local_files_only=True, trust_remote_code=trust.remote_code
        ).get_text_config()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--model {found.name}: its architecture is not known ({_first_line(error)}).") from error


def context_length(config: Any) -> int | None:
    """Longest window the model was built for; None where it says nothing."""
    lengths = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    return next((int(length) for length in lengths if length), None)


def load_model(
    found: ModelFolder, *, dtype: str, device: str, trust: Trust, device_map: dict[str, str] | None = None
) -> PreTrainedModel:
    """Load a causal language model for inference.

    Args:
        found: the model's folder.
        dtype: of its weights.
        device: where it computes.
        trust: what of it may run code.
        device_map: where each part of it is, `disk` included: accelerate fetches it for the moment that it computes.

    Raises:
        UserError: unknown architecture, weights that are missing, corrupt, of another shape, or not finite.
    """
    _quiet()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            found.path,
            dtype=DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=trust.remote_code,
            use_safetensors=not trust.pickle or None,
            output_loading_info=True,
            device_map=device_map,
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        raise UserError(f"--model {found.name} ({found.revision}): cannot be loaded ({_first_line(error)}).") from error
    except SafetensorError as error:
        raise UserError(f"--model {found.name} ({found.revision}): its weights are corrupt ({error}).") from error
    if missing := sorted(report["missing_keys"]):
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise UserError(f"--model {found.name} ({found.revision}): {len(missing)} weights are missing ({shown}).")
    model = (model if device_map else model.to(device)).eval().requires_grad_(False)
    _require_finite(model, found)
    return model


def _require_finite(model: PreTrainedModel, found: ModelFolder) -> None:
    for place, module in model.named_modules():
        with align_module_device(module):  # fetches what waits off the device
            for name, weight in module.named_parameters(recurse=False):
                if not all_finite(weight):
                    raise UserError(
                        f"--model {found.name} ({found.revision}): weight {place}.{name} holds NaN or infinity."
                    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _quiet() -> None:
    """Keep the library's bars and advice off stderr; our own progress stands there."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
