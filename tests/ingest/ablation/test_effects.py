"""Every further effect of every pair against the hooked model itself in float64, not only against its head."""

import numpy as np
import pytest
import torch

from rare_tokens.common.effects import EFFECTS
from rare_tokens.ingest.ablation.ablation import Ablation
from rare_tokens.ingest.model.structure import find_structure, hooked
from tests.support.float64 import float64_model
from tests.support.tiny import SUPPORTED

WINDOWS, WINDOW = 3, 16


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "llama", "opt", "gemma3", "olmo2"])
def test_every_effect_of_every_pair_agrees_with_the_hooked_model(name: str) -> None:
    model = float64_model(SUPPORTED[name])
    found = find_structure(model)
    V = found.head.unembedding.shape[0]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(V, (WINDOWS, WINDOW), generator=generator)
    targets = torch.randint(V, (WINDOWS * WINDOW,), generator=generator)
    counts = torch.randint(1000, (V,), generator=generator)
    seen: dict[str, torch.Tensor] = {}

    def logits() -> torch.Tensor:
        return model(input_ids=inputs).logits.reshape(len(targets), -1)

    def keep(key: str):
        return lambda _module, args: seen.__setitem__(key, args[0].reshape(len(targets), -1))

    with (
        torch.no_grad(),
        hooked((found.out_projection, "before", keep("n"))),
        hooked((found.final_norm, "before", keep("x"))),
    ):
        before = logits()
    mean = seen["n"].mean(0)
    scale = norm_scale(seen["x"], found.head)
    ablation = Ablation(
        found.head,
        found.w_out.float(),
        mean.float(),
        post_norm=found.post_norm,
        effects=tuple(EFFECTS),
        unigram_counts=counts,
    )
    ours = ablation.ablate(seen["x"].float(), seen["n"].float(), targets)
    unigram = (counts.double() + 1) / (counts.double() + 1).sum()
    axis = unigram.log() - unigram.log().mean()
    axis = axis / axis.norm()
    for neuron in range(found.neurons):

        def replace(_module, args, neuron=neuron):
            edited = args[0].clone()
            edited[..., neuron] = mean[neuron]
            return (edited,)

        with (
            torch.no_grad(),
            hooked((found.out_projection, "before", replace)),
            hooked((found.final_norm, "before", keep("edited"))),
        ):
            after = logits()
        frozen = before + unnormed_change(before, after, scale, norm_scale(seen["edited"], found.head), found)
        truth = {
            "loss": cross_entropy(after, targets) - cross_entropy(before, targets),
            "direct": cross_entropy(frozen, targets) - cross_entropy(before, targets),
            "entropy": entropy(after) - entropy(before),
            "kl": (before.log_softmax(1) - after.log_softmax(1)) @ unigram,
            "frequency": cross_entropy(after - ((after - before) @ axis)[:, None] * axis, targets)
            - cross_entropy(before, targets),
        }
        for effect, wanted in truth.items():
            got = ours.values[effect][:, neuron].double()
            worst = float(((got - wanted).abs() / (1e-6 + 1e-4 * wanted.abs())).max())
            assert worst <= 1.25, f"{name}, neuron {neuron}: {effect} is off by {worst:.3g} of its tolerance"
    assert float(np.abs(ours.delta_loss.numpy()).max()) > 1e-3


def norm_scale(x: torch.Tensor, head) -> torch.Tensor:
    """σ of the final norm at each position."""
    if head.norm.centred:
        x = x - x.mean(1, keepdim=True)
    return (x.square().mean(1) + head.norm.eps).sqrt()


def unnormed_change(before, after, scale, new_scale, found) -> torch.Tensor:
    """Change of the logits with the final norm's scale frozen: the logits less their constant part scale as 1/σ."""
    constant = model_constant(found)
    return (after - constant) * (new_scale / scale)[:, None] - (before - constant)


def model_constant(found) -> torch.Tensor:
    """The logits of a residual stream of zeros: bias through the unembedding, and the unembedding's own."""
    head = found.head
    constant = torch.zeros(head.unembedding.shape[0], dtype=torch.float64)
    if head.norm.bias is not None:
        constant = constant + head.unembedding.double() @ head.norm.bias.double()
    return constant if head.logit_bias is None else constant + head.logit_bias.double()


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def entropy(logits: torch.Tensor) -> torch.Tensor:
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
