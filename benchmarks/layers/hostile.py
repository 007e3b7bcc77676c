"""Heads made to hurt: each is a layer of ordinary predictions and edits, bent in one way.

They are small, so that nearly every pair may take the dearest way and all can be checked against float64.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.layers.layers import Layer


@dataclass(frozen=True)
class Hostile:
    """A way to bend a layer, and the layer's shape."""

    bend: Callable[[Layer], Layer]
    vocabulary: int = 8192
    width: int = 256
    neurons: int = 1024
    positions: int = 128

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """V, d, N, T."""
        return self.vocabulary, self.width, self.neurons, self.positions


def huge_neurons(layer: Layer) -> Layer:
    """Output rows thirty times as long: most edits are larger than the residual."""
    return replace(layer, w_out=layer.w_out * 30)


def one_hot(layer: Layer) -> Layer:
    """Logits eight times as far apart: nearly all probability is one token's."""
    return _with_logits(layer, 8.0)


def flat(layer: Layer) -> Layer:
    """Logits a twentieth as far apart: every token is about as likely as any other."""
    return _with_logits(layer, 0.05)


def near_zero_norms(layer: Layer) -> Layer:
    """Residuals of almost no length: the norm blows every edit up."""
    return replace(layer, residual=layer.residual * 1e-5)


def cancelled_residuals(layer: Layer) -> Layer:
    """At each position one neuron's ablation leaves a thousandth of the residual."""
    T, N = layer.activations.shape
    some = torch.arange(min(T, N))
    n, w = layer.activations.clone(), layer.w_out.clone()
    n[:, some] = 0
    n[some, some] = T  # so that the mean is 1, and a = 1 − T where it is active
    w[some] = layer.residual[some] * (0.999 / (T - 1))
    return replace(layer, w_out=w, activations=n)


HOSTILE = {
    "huge neurons": Hostile(huge_neurons),
    "one-hot predictions": Hostile(one_hot),
    "near-zero norms": Hostile(near_zero_norms),
    "cancelled residuals": Hostile(cancelled_residuals),
    "flat over 262,144 tokens": Hostile(flat, vocabulary=262_144, neurons=512, positions=256),
}


def _with_logits(layer: Layer, factor: float) -> Layer:
    head = layer.head

    def times(value: Tensor | None) -> Tensor | None:
        return None if value is None else value * factor

    bent = replace(head, unembedding=head.unembedding * factor, logit_bias=times(head.logit_bias))
    return replace(layer, head=bent)
