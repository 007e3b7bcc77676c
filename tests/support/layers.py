"""Layers for tests of the analyses: drawn activations with known structure, and a real model's."""

import json
from pathlib import Path

import numpy as np
import polars as pl

from rare_tokens.analyses.coordination.activations import Activations
from rare_tokens.analyses.coordination.neuron_groups import GROUP
from rare_tokens.analyses.result_table import table


def drawn(positions=1_200, neurons=80, *, windows=12, seed=0, factors=3, strength=0.5):
    """Activations with a few common factors, so that correlations are neither zero nor alike."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((positions, factors)) @ rng.standard_normal((factors, neurons))
    values = strength * common + rng.standard_normal((positions, neurons)) + rng.standard_normal(neurons)
    return Activations(values.astype(np.float32), np.repeat(np.arange(windows), -(-positions // windows))[:positions])


def group(*members, name="boost", draw=0):
    """A group frame of one draw."""
    return table([{"group_name": name, "k": len(members), "draw": draw, "neuron": n} for n in members], GROUP)


def random_draws(neurons, k, draws, seed=0, *, first_tested=True):
    """One tested group and `draws` controls, all drawn alike from the whole layer: the null hypothesis itself."""
    rng = np.random.default_rng(seed)
    parts = [
        group(*rng.choice(neurons, k, replace=False).tolist(), name="boost" if draw == 0 else "control", draw=draw)
        for draw in range(0 if first_tested else 1, draws + 1)
    ]
    return pl.concat(parts)


def real_layer(real_inputs: Path, windows=24, step="step3979") -> tuple[Activations, np.ndarray]:
    """Novella's last MLP on C4: activations (windows · 256 × 1024) and its output weights (1024 × 256)."""
    import torch
    from transformers import AutoTokenizer, GPTNeoXForCausalLM

    folder = real_inputs / "models" / "novella" / step
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    lines = (real_inputs / "corpora" / "c4-sample" / "c4_sample.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [token for line in lines for token in tokenizer(json.loads(line)["text"])["input_ids"]][: windows * 256]
    output = model.gpt_neox.layers[-1].mlp.dense_4h_to_h
    seen = []
    with output.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])), torch.no_grad():
        for batch in torch.tensor(ids).reshape(windows, 256).split(8):
            model(batch)
    values = torch.cat(seen).reshape(windows * 256, -1).numpy()
    return Activations(values, np.repeat(np.arange(windows), 256)), output.weight.detach().T.numpy().copy()
