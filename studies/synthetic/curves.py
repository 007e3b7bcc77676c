"""Synthetic curves of influence with a known truth, for tests and for the simulation study of the benchmark."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rare_tokens.analyses.result_table import FloatArray

Noise = Literal["draws", "draws+error", "error"]


@dataclass(frozen=True)
class Truth:
    """How a curve is made: −κ ln r up to ln r = `tail_at`, then a tail; the first `plateau` neurons raised by `step`.

    `noise` is `draws` (neurons are independent draws from that distribution), `draws+error` (these, measured with a
    log-normal error of their own and sorted again, like real influence) or `error` (a fixed curve, measured likewise).
    """

    n: int
    kappa: float
    plateau: int = 0
    step: float = 0.0
    noise: Noise = "draws"
    tail: Literal["loglog", "linear"] = "loglog"
    tail_at: float = 5.0
    error: float = 0.05  # median relative standard error of a neuron's influence

    def slopes(self) -> FloatArray:
        """Minus the slope in ln r after each rank, shape (n − 1,)."""
        x, end = np.log(np.arange(1, self.n)), np.log(self.n + 1)
        tail = (end - self.tail_at) / (end - x) if self.tail == "loglog" else np.full(self.n - 1, 3.0)
        return self.kappa * np.where(x > self.tail_at, tail, 1.0)

    def curve(self) -> FloatArray:
        """The curve without noise, shape (n,)."""
        x, end = np.log(np.arange(1, self.n + 1)), np.log(self.n + 1)
        after = np.maximum(x, self.tail_at)
        steep = (end - self.tail_at) * np.log((end - self.tail_at) / (end - after))
        tail = steep if self.tail == "loglog" else 3 * (after - self.tail_at)
        return np.asarray(-self.kappa * (np.minimum(x, self.tail_at) + tail)) + self.step * (
            x < np.log(self.plateau + 1)
        )

    def draw(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray | None]:
        """Log influence in descending order and its standard error in that order (None without), shape (n,) each."""
        curve = self.curve()
        if self.noise != "error":
            gaps = self.slopes() * rng.standard_exponential(self.n - 1) / np.arange(1, self.n)
            curve = np.append(np.cumsum(gaps[::-1])[::-1], 0.0)
            curve[: self.plateau] += self.step
        if self.noise == "draws":
            return curve, None
        error = self.error * np.exp(0.4 * rng.standard_normal(self.n))
        curve = curve + error * rng.standard_normal(self.n)
        order = np.argsort(-curve)
        return curve[order], error[order]
