"""The real layers that the benchmark ablates, captured by the project's own forward pass."""

import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import ROOT
from rare_tokens.ingest.ablation.stages.capture import forward
from rare_tokens.ingest.model.files import Trust
from rare_tokens.ingest.model.head import Head
from rare_tokens.ingest.model.load import load_model
from rare_tokens.ingest.model.locate import locate
from rare_tokens.ingest.model.structure import find_structure
from rare_tokens.ingest.model.tokenizer import load_tokenizer

WINDOW = 256
REAL_MODEL = ROOT.parent / "shared" / "tools" / "real_model.sh"
_WINDOWS_AT_A_TIME = 8


@dataclass(frozen=True)
class Layer:
    """A head, the last MLP's output rows, and what was captured at T positions; all on the CPU."""

    head: Head
    w_out: Tensor  # N x d
    residual: Tensor  # T x d
    activations: Tensor  # T x N
    targets: Tensor  # T

    def first(self, positions: int) -> "Layer":
        """The same at its first positions."""
        few = (value[:positions] for value in (self.residual, self.activations, self.targets))
        return Layer(self.head, self.w_out, *few)


@dataclass(frozen=True)
class RealModel:
    """A trained model on the CPU and what its last layer did on real text."""

    model: PreTrainedModel
    layer: Layer


def captured(model: Path, documents: Iterable[str], positions: int, device: str = "cpu") -> RealModel:
    """A model's last layer at the first positions of a text in windows of 256, a separator between its documents.

    Args:
        model: a folder, or a GGUF file.
        documents: the text.
        positions: a multiple of 256; fewer are captured where the text is shorter.
        device: where the forward pass runs.

    Raises:
        UserError: the model cannot be used.
        ValueError: something else than the final norm lies between its MLP and the unembedding.
    """
    found = locate(str(model), None, Trust())
    loaded = load_model(found, dtype="float32", device=device, trust=Trust())
    structure = find_structure(loaded)
    if structure.between:
        raise ValueError(f"{found.name}: {'; '.join(structure.between)}")
    tokenizer = load_tokenizer(found, Trust())
    separator = tokenizer.eos_token_id or 0
    pieces = ([*tokenizer(text, add_special_tokens=False)["input_ids"], separator] for text in documents)
    wanted = positions // WINDOW * (WINDOW + 1)
    tokens = list(itertools.islice(itertools.chain.from_iterable(pieces), wanted))
    whole = len(tokens) // (WINDOW + 1) * (WINDOW + 1)
    windows = torch.tensor(tokens[:whole]).reshape(-1, WINDOW + 1)
    parts = [
        [value.cpu() for value in forward(loaded, structure, some[:, :-1].to(device))]
        for some in windows.split(_WINDOWS_AT_A_TIME)
    ]
    residual, activations = (torch.cat(column) for column in zip(*parts, strict=True))
    loaded = loaded.to("cpu")
    head, w_out = structure.head, structure.w_out.cpu().contiguous()
    gain, bias = head.norm.gain.cpu(), None if head.norm.bias is None else head.norm.bias.cpu()
    norm = type(head.norm)(head.norm.centred, gain, bias, head.norm.eps)
    logit_bias = None if head.logit_bias is None else head.logit_bias.cpu()
    layer = Layer(
        Head(head.unembedding.cpu(), logit_bias, norm), w_out, residual, activations, windows[:, 1:].flatten()
    )
    return RealModel(loaded, layer)


def c4_sample(data: Path) -> list[str]:
    """The documents of the C4 sample among the real inputs."""
    lines = (data / "corpora" / "c4-sample" / "c4_sample.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def novella(data: Path, positions: int, device: str = "cpu") -> RealModel:
    """`novella`'s last step on the C4 sample."""
    return captured(data / "models" / "novella" / "step3979", c4_sample(data), positions, device)


def smollm2(data: Path, positions: int, file: Path | None = None, device: str = "cpu") -> RealModel:
    """SmolLM2-135M on the C4 sample; without its `file` the real inputs' own tool fetches it.

    Raises:
        FileNotFoundError: it is not given and cannot be fetched.
    """
    if file is not None:
        return captured(file, c4_sample(data), positions, device)
    with tempfile.TemporaryDirectory() as folder:
        return captured(fetched(Path(folder)), c4_sample(data), positions, device)


def fetched(folder: Path) -> Path:
    """SmolLM2-135M's GGUF file, put into a folder by the real inputs' own tool.

    Raises:
        FileNotFoundError: there is no such tool, or it could not fetch the model; the message says why.
    """
    if not REAL_MODEL.is_file():
        raise FileNotFoundError(f"No {REAL_MODEL.name} to fetch SmolLM2 with; give its file by --smollm2 FILE.gguf.")
    ended = subprocess.run(["bash", str(REAL_MODEL), str(folder)], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise FileNotFoundError(f"SmolLM2 cannot be fetched: {ended.stderr.strip()} Give its file by --smollm2.")
    return Path(ended.stdout.strip())
