"""How often each token occurs, as the effects and measures of Stolfo et al. (2024) use it: add-one smoothed."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Unigram:
    """The add-one smoothed unigram distribution."""

    probability: Tensor  # V
    axis: Tensor  # V: its logarithm, centred over the vocabulary, of length 1 (0 where all tokens are alike)

    @staticmethod
    def of(counts: Tensor) -> "Unigram":
        """In float64 on the CPU, from V counts."""
        smoothed = counts.cpu().double() + 1
        probability = smoothed / smoothed.sum()
        axis = probability.log() - probability.log().mean()
        return Unigram(probability, (axis / axis.norm()) if bool(axis.any()) else axis)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Unigram":
        """The same on a device, in a dtype."""
        return Unigram(self.probability.to(device, dtype), self.axis.to(device, dtype))


def log_unigram(counts: Tensor) -> Tensor:
    """log of the same distribution, V, float64, on the counts' device."""
    smoothed = counts.double() + 1
    return smoothed.log() - smoothed.sum().log()
