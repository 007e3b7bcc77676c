"""Loading a model onto the device that computes and confirming its structure, here or on a worker of a cluster."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from rare_tokens.common.errors import OptionError
from rare_tokens.ingest.dense.ablation import confirm_replay
from rare_tokens.ingest.model.load import load_model
from rare_tokens.ingest.model.structure import Structure, find_structure
from rare_tokens.ingest.run.request import Request
from rare_tokens.ingest.run.resources import planned


@dataclass(frozen=True)
class LoadedModel:
    """A model, its structure, the device that computes, and the bytes of weights that wait off it."""

    model: PreTrainedModel
    structure: Structure
    device: str
    offloaded: int


class Loader:
    """Loads models one after the other, and keeps the last one for runs of its other layers."""

    def __init__(self) -> None:
        """Nothing is loaded yet."""
        self._kept: tuple[Any, PreTrainedModel] | None = None  # a model that is all on the device, and what it is

    def load(self, request: Request, *, whole: bool = False) -> LoadedModel:
        """Load the model of a run; with `whole`, none of it may wait off the device.

        Raises:
            UserError: the device is not available, there is too little memory, the weights cannot be used, the layer
                does not exist, or the architecture is not supported.
        """
        options = request.options
        device = choose_device(options.device)
        wanted = (request.folder, request.model_hash, options.dtype, device, options.trust, options.ignore_weights)
        model: PreTrainedModel | None = None
        if self._kept is not None and self._kept[0] == wanted:
            model = self._kept[1]
            held = planned(request, device, whole=whole, loaded=True)
        if model is None or held.device_map is not None:  # before another model is loaded, the kept one goes
            model = self._kept = None
            held = planned(request, device, whole=whole)
            model = load_model(
                request.folder,
                dtype=options.dtype,
                device=device,
                trust=options.trust,
                ignore=options.ignore_weights,
                device_map=held.device_map,
            )
            self._kept = None if held.device_map is not None else (wanted, model)
        structure = find_structure(model, request.layer)
        if structure.between:
            confirm_replay(model, structure, options.edit_scope)
        return LoadedModel(model, structure, device, held.offloaded)


def load(request: Request, *, whole: bool = False) -> LoadedModel:
    """Load the model of one run, as `Loader.load`."""
    return Loader().load(request, whole=whole)


def choose_device(wanted: str) -> str:
    """The device for `--device`; `auto` takes CUDA, then MPS, then the CPU. On each, float32 is float32 and never TF32.

    Raises:
        UserError: the device is not known or not available.
    """
    torch.set_float32_matmul_precision("highest")
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if available[name])
    kind, _, index = wanted.partition(":")
    fits = not index or (kind == "cuda" and index.isdigit() and int(index) < torch.cuda.device_count())
    if not available.get(kind, False) or not fits:
        raise OptionError(
            f"--device {wanted}: not available here. Use auto, or {', '.join(k for k, v in available.items() if v)}."
        )
    return wanted
