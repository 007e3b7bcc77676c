"""The layers that the benchmark ablates: `novella`'s own, and synthetic ones of its scale and other shapes.

A synthetic layer copies from the captured one, position by position and neuron by neuron: activations, the norm's
scale, the entropy of the prediction, the spread of each neuron's logit effect m_i and the cosine of w_i with the mean
residual; the vocabulary's mean prediction is stretched over its larger vocabulary. Directions are random.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rare_tokens.ingest.model.head import Head
from rare_tokens.ingest.model.norms import NormForm

_WIDEST_LOGITS = 4.5  # largest standard deviation of z over the vocabulary
_LOGIT_EFFECTS = 400_000_000  # neurons x vocabulary whose spread is measured
_UNSEEN = 24  # further dimensions that x and w_i share: few, so that they overlap as in novella and |u| agrees


@dataclass(frozen=True)
class Layer:
    """A head, the last MLP's output rows, and what was captured at T positions."""

    head: Head
    w_out: Tensor  # N x d
    residual: Tensor  # T x d
    activations: Tensor  # T x N
    targets: Tensor  # T

    def quantiles(self, positions: int = 64) -> dict[str, list[float]]:
        """Quantiles (0.1, 0.5, 0.9, 0.99, 0.999) of |u|, |c|, R, |n| and p's largest value and entropy.

        Over some positions, and for the largest heads over some neurons.
        """
        head, T = self.head, len(self.residual)
        rows = torch.arange(0, T, max(1, T // positions))
        some = slice(None, None, -(-self.w_out.shape[0] * len(head.unembedding) // _LOGIT_EFFECTS))
        x, w, n = self.residual[rows].double(), self.w_out[some].double(), self.activations[:, some].double()
        x, w = head.norm.centre(x), head.norm.centre(w)
        scale = head.norm.scale_of_centred(x)
        a = (n.mean(0) - n[rows]) / scale
        x = x / scale
        growth = a * (2 * (x @ w.T) + a * w.square().sum(1)) / x.shape[1]
        ratio = (1 + growth).sqrt()
        u, c = -growth / (ratio * (1 + ratio)), a / ratio
        U = head.unembedding.float() * head.norm.gain
        z = x.float() @ U.T
        logits = z if head.logit_bias is None else z + head.logit_bias
        if head.norm.bias is not None:
            logits = logits + head.unembedding.float() @ head.norm.bias
        log_p = logits.log_softmax(1)

        def spread(values: Tensor) -> Tensor:
            return values.amax(1) - values.amin(1)

        m_spread = torch.cat([spread(part.float() @ U.T) for part in w.split(256)])
        R = u.abs() * spread(z)[:, None] + c.abs() * m_spread
        found = {"u": u, "c": c, "R": R, "n": n[rows], "p_max": log_p.amax(1).exp()}
        found["entropy"] = -(log_p.exp() * log_p).sum(1)
        levels = torch.tensor([0.1, 0.5, 0.9, 0.99, 0.999], dtype=torch.float64)
        return {
            name: [round(float(q), 6) for q in _thinned(value.abs().double()).quantile(levels)]
            for name, value in found.items()
        }


def _thinned(values: Tensor) -> Tensor:
    flat = values.reshape(-1)
    return flat[:: max(1, len(flat) // 1_000_000)]


def captured(data: Path, positions: int, step: str = "step3979") -> Layer:
    """`novella`'s last layer at the first positions of the C4 sample, in windows of 256."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = data / "models" / "novella" / step
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = (data / "corpora" / "c4-sample" / "c4_sample.jsonl").read_text(encoding="utf-8").splitlines()
    tokens: list[int] = []
    for line in lines:
        tokens += [*tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"], 0]
        if len(tokens) > positions * 257 // 256 + 257:
            break
    windows = torch.tensor(tokens[: positions // 256 * 257]).reshape(-1, 257)
    seen: dict[str, Tensor] = {}
    project, norm = model.gpt_neox.layers[-1].mlp.dense_4h_to_h, model.gpt_neox.final_layer_norm
    project.register_forward_pre_hook(lambda _, inputs: seen.update(n=inputs[0]))
    norm.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        model(windows[:, :-1])
    form = NormForm(True, norm.weight.detach(), norm.bias.detach(), norm.eps)
    head = Head(model.lm_head.weight.detach(), None, form)
    return Layer(
        head,
        project.weight.detach().T.contiguous(),
        seen["x"].flatten(0, 1),
        seen["n"].flatten(0, 1),
        windows[:, 1:].flatten(),
    )


def synthetic(real: Layer, vocabulary: int, width: int, neurons: int, positions: int, seed: int = 0) -> Layer:
    """A layer of V x d x N with `real`'s scale (module docstring), behind an RMSNorm without gain."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    match = _measure(real)
    old_t = torch.randint(len(real.residual), (positions,), generator=generator)
    old_i = torch.arange(neurons) % len(real.w_out)
    seen = width * 3 // 4  # dimensions that the unembedding reads; the others carry the rest of x and of w
    most = 0.95 * float(1 - match["mean_share"] ** 2) ** 0.5  # share of x that may lie in the seen dimensions
    row = _WIDEST_LOGITS / (width**0.5 * most)  # spread of U_v·(unit vector)
    U = torch.zeros(vocabulary, width)
    U[:, :seen] = normal(vocabulary, seen) * row
    bias = _stretched(match["mean_log_p"], torch.linspace(0, 1, vocabulary))
    # Output rows: as much in the seen dimensions as gives m_i its spread, the mean direction's share, the rest unseen
    norms = match["w_norm"][old_i]
    w = torch.zeros(neurons, width)
    inside = normal(neurons, seen)
    w[:, :seen] = inside / inside.norm(dim=1, keepdim=True) * (match["m_spread"][old_i] / row)[:, None]
    mean_share = match["cosine"][old_i] * norms
    outside = normal(neurons, _UNSEEN)
    left = (norms**2 - w[:, :seen].square().sum(1) - mean_share**2).clamp_min(0).sqrt()
    w[:, seen] = mean_share
    w[:, seen + 1 : seen + 1 + _UNSEEN] = outside / outside.norm(dim=1, keepdim=True) * left[:, None]
    # Positions: as much in the seen dimensions as gives the prediction its entropy, the mean direction, the rest unseen
    x = torch.zeros(positions, width)
    direction = normal(positions, seen)
    direction /= direction.norm(dim=1, keepdim=True)
    share = _share_for_entropy(U[:, :seen], bias, direction * width**0.5, match["entropy"][old_t])
    share = share.clamp_max(most)
    x[:, :seen] = direction * share[:, None]
    x[:, seen] = match["mean_share"]
    unseen = normal(positions, _UNSEEN)
    rest = (1 - share**2 - match["mean_share"] ** 2).clamp_min(0).sqrt()
    x[:, seen + 1 : seen + 1 + _UNSEEN] = unseen / unseen.norm(dim=1, keepdim=True) * rest[:, None]
    x *= width**0.5 * match["scale"][old_t][:, None]
    head = Head(U, bias, NormForm(False, torch.ones(width), None, 1e-5))
    logits = x[: min(positions, 4096)] / match["scale"][old_t][: min(positions, 4096), None]
    targets = torch.cat(
        [torch.multinomial((part @ U.T + bias).softmax(1), 1, generator=generator)[:, 0] for part in logits.split(128)]
    )
    targets = targets.repeat(-(-positions // len(targets)))[:positions]
    return Layer(head, w, x, real.activations[old_t][:, old_i], targets)


def _measure(real: Layer) -> dict[str, Tensor]:
    head, d = real.head, real.head.unembedding.shape[1]
    x = head.norm.centre(real.residual)
    scale = head.norm.scale_of_centred(x)[:, 0]
    normed = x / scale[:, None]
    W_U = head.unembedding.float()
    U = W_U * head.norm.gain
    assert head.norm.bias is not None
    mean_p = torch.zeros(len(U))
    entropy = []
    for part in normed.split(512):
        log_p = (part @ U.T + W_U @ head.norm.bias).log_softmax(1)
        mean_p += log_p.exp().sum(0) / len(normed)
        entropy.append(-(log_p.exp() * log_p).sum(1))
    order = mean_p.argsort(descending=True)
    U = U - mean_p @ U
    w = head.norm.centre(real.w_out)
    m_spread = ((w @ U.T).square() @ mean_p).sqrt()
    mean_x = normed.mean(0)
    return {
        "mean_log_p": mean_p[order].log(),
        "w_norm": w.norm(dim=1),
        "m_spread": m_spread,
        # with the mean residual's length taken out: x̂·w = √d ‖w‖ (share · cosine + the rest)
        "cosine": (w @ mean_x) / (w.norm(dim=1) * mean_x.norm()),
        "mean_share": mean_x.norm() / d**0.5,
        "entropy": torch.cat(entropy),
        "scale": scale,
    }


def _stretched(values: Tensor, places: Tensor) -> Tensor:
    """Values at 0 … 1 of a curve given at evenly spaced places."""
    at = places * (len(values) - 1)
    low = at.floor().long().clamp_max(len(values) - 2)
    return values[low] + (values[low + 1] - values[low]) * (at - low)


def _share_for_entropy(U: Tensor, bias: Tensor, directions: Tensor, entropy: Tensor) -> Tensor:
    """How much of each direction gives the prediction its entropy (a coarse grid, on the first 256 positions' mean)."""
    grid = torch.linspace(0.02, 1.0, 25)
    few = min(64, len(directions))
    z = directions[:few] @ U.T
    found = []
    for share in grid:
        log_p = (z * share + bias).log_softmax(1)
        found.append(-(log_p.exp() * log_p).sum(1).mean())
    curve = torch.stack(found)  # falls with the share
    place = (curve[None, :] > entropy[:, None]).sum(1).clamp(0, len(grid) - 1)
    return grid[place]
