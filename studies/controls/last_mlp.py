"""The last MLP of a model folder, opened for editing: a neuron's input and output weights, saved as a new folder.

Supported are the layouts of GPT-NeoX (Pythia, novella) and of Llama, with all weights in one `model.safetensors`.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "model.safetensors"
# By `model_type`: the key of the number of layers, of the MLP's output projection, and of its (gate's) input projection
LAYOUTS = {
    "gpt_neox": ("gpt_neox.layers.{}.mlp.dense_4h_to_h", "gpt_neox.layers.{}.mlp.dense_h_to_4h"),
    "llama": ("model.layers.{}.mlp.down_proj", "model.layers.{}.mlp.gate_proj"),
}


class LastMlp:
    """Weights of a model whose last MLP is edited in place, in float32.

    Attributes:
        output: row i is w_out of neuron i, shape (N, d); a view, so that editing it edits the model.
        input: row i is w_in of neuron i, of a gated MLP its gate's row, shape (N, d); a view too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names = LAYOUTS[self.config["model_type"]]
        last = self.config["num_hidden_layers"] - 1
        self.tensors = {name: value.float() for name, value in load_file(folder / WEIGHTS).items()}
        out, into = (self.tensors[f"{name.format(last)}.weight"] for name in names)
        self.output: Tensor = out.T
        self.input: Tensor = into

    @property
    def neurons(self) -> int:
        """N."""
        return len(self.output)

    def save(self, folder: Path) -> Path:
        """Save as a complete folder in float32: half precision would round the edits away."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        # A file that is read-only stays so when it is copied, and must give way.
        for name in (WEIGHTS, "config.json"):
            (folder / name).unlink()
        config = {**self.config, "dtype": "float32"}
        config.pop("torch_dtype", None)  # the older name of the same key
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        whole = {name: value.contiguous() for name, value in self.tensors.items()}
        save_file(whole, folder / WEIGHTS, {"format": "pt"})
        return folder


def untrained(folder: Path, seed: int, to: Path) -> Path:
    """Save a model of the same shape and tokenizer with freshly drawn weights, as its class initialises them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    (to / WEIGHTS).unlink()
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).save_pretrained(to)
    return to
