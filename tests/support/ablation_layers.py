"""Layers for the ablation's tests: trained ones, made-up ones, and how far results are from their definition."""

import json
from pathlib import Path

import torch
from torch import Tensor

from rare_tokens.common.effects import ATTRIBUTION
from rare_tokens.ingest.ablation.block import BlockEffects
from rare_tokens.ingest.ablation.numerics.rounding import RELATIVE_TOLERANCE
from rare_tokens.ingest.ablation.reference import reference_attribution, reference_effects
from rare_tokens.ingest.model.head import Head
from rare_tokens.ingest.model.norms import NormForm

TOLERANCE = 1e-6


def made_up(
    seed: int,
    *,
    norm: str = "layer",
    biases: bool = True,
    V: int = 300,
    d: int = 24,
    N: int = 20,
    B: int = 16,
    **scale: float,
) -> tuple[Head, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A random head, its output rows, references, residuals, activations and targets."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    unembedding, logit_bias = normal(V, d) * scale.get("logits", 0.5), normal(V) if biases else None
    gain = torch.rand(d, generator=g) + 0.5
    form = NormForm(norm == "layer", gain, normal(d) if biases else None, 1e-5)
    head = Head(unembedding, logit_bias, form)
    w = normal(N, d) * scale.get("neurons", 0.02)
    x = normal(B, d) * scale.get("residual", 3.0)
    return head, w, normal(N) * 0.1, x, normal(B, N), torch.randint(V, (B,), generator=g)


def every_pair(B: int, N: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(B), torch.arange(N))


def worst(
    layer: tuple[Head, Tensor, Tensor, Tensor, Tensor, Tensor],
    found: BlockEffects,
    pairs: Tensor,
    effects: tuple[str, ...] = ("loss",),
    counts: Tensor | None = None,
) -> float:
    """Largest error of the pairs, in units of the tolerance."""
    truth = reference_effects(*layer, pairs, unigram_counts=counts)
    if ATTRIBUTION in effects:
        truth[ATTRIBUTION] = reference_attribution(*layer, pairs)
    errors = []
    for name in effects:
        value = found.values[name][pairs[:, 0], pairs[:, 1]].double()
        error = (value - truth[name]).abs() / (TOLERANCE + RELATIVE_TOLERANCE * truth[name].abs())
        assert error.isfinite().all(), name
        errors.append(float(error.max()))
    return max(errors)


def trained(real_inputs: Path, name: str, positions: int) -> tuple[Head, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The last layer of a real model on real text."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = real_inputs / "models" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = (real_inputs / "corpora" / "c4-sample" / "c4_sample.jsonl").read_text(encoding="utf-8").splitlines()
    text = " ".join(json.loads(line)["text"] for line in lines[:20])
    windows = torch.tensor(tokenizer(text)["input_ids"][: positions // 128 * 129]).reshape(-1, 129)
    inner = model.gpt_neox if hasattr(model, "gpt_neox") else model.model
    mlp = inner.layers[-1].mlp
    project = mlp.dense_4h_to_h if hasattr(mlp, "dense_4h_to_h") else mlp.down_proj
    norm = inner.final_layer_norm if hasattr(inner, "final_layer_norm") else inner.norm
    seen: dict[str, Tensor] = {}
    project.register_forward_pre_hook(lambda _, inputs: seen.update(n=inputs[0]))
    norm.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        model(windows[:, :-1])
    layered = isinstance(norm, torch.nn.LayerNorm)
    bias, eps = (norm.bias.detach(), norm.eps) if layered else (None, norm.variance_epsilon)
    form = NormForm(layered, norm.weight.detach(), bias, eps)
    head = Head(model.get_output_embeddings().weight.detach(), None, form)
    n = seen["n"].flatten(0, 1)
    w = project.weight.detach().T.contiguous()
    return head, w, n.mean(0), seen["x"].flatten(0, 1), n, windows[:, 1:].flatten()


def chosen_pairs(found: BlockEffects, count: int) -> Tensor:
    """Half uniform, half those of largest |Δ|."""
    B, N = found.delta_loss.shape
    generator = torch.Generator().manual_seed(0)
    uniform = torch.randint(B * N, (count // 2,), generator=generator)
    largest = found.delta_loss.abs().flatten().topk(count // 2).indices
    flat = torch.cat([uniform, largest])
    return torch.stack([flat // N, flat % N], 1)
