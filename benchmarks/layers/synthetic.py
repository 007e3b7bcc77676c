"""A real layer in other shapes: the same predictions and edits, with more tokens, neurons or dimensions.

A layer whose directions are drawn at random has lighter tails than a trained one, whatever its scale: no neuron then
moves one token far, no prediction is as flat or as sharp as real ones are. So nothing is drawn here but copies:

- *positions* are real ones, evenly spaced in the order of their entropy, so that few of them stand for all;
- *neurons* are real ones; beyond the first copy each is turned a little, and keeps its activations;
- *tokens* are real ones; further ones are copies of those beyond the likeliest 2,048, and share their probability
  (by a logit bias), so a larger vocabulary has a longer tail. A smaller one keeps the likeliest;
- *dimensions*: everything is turned by one random rotation into the wider space and scaled so that norm, logits, u and
  c stay. A narrower one keeps the directions that matter most to unembedding, residuals and output rows.

The norm becomes an RMSNorm without gain. The rank stays that of the real layer, which dense products do not notice.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.layers.layers import Layer
from rare_tokens.ingest.model.head import Head
from rare_tokens.ingest.model.norms import NormForm

COPIED_FROM = 2048  # likeliest tokens that are not copied: their probabilities stay what they are
_TURN = 0.2  # of a copied neuron, radians
_POSITIONS = 256  # unembedded at a time


@dataclass(frozen=True)
class Pattern:
    """A real layer and what it predicts: what layers of other shapes are made from."""

    layer: Layer
    likeliest: Tensor  # V token ids by their mean probability
    by_entropy: Tensor  # T positions by the entropy of their prediction

    @staticmethod
    def of(layer: Layer) -> "Pattern":
        """Unembed all positions of a layer once."""
        total = torch.zeros(len(layer.head.unembedding))
        entropy = []
        for part in layer.residual.split(_POSITIONS):
            log_p = _logits(layer.head, part).log_softmax(1)
            total += log_p.exp().sum(0)
            entropy.append(-(log_p.exp() * log_p).sum(1))
        return Pattern(layer, total.argsort(descending=True, stable=True), torch.cat(entropy).argsort(stable=True))

    def shaped(self, vocabulary: int, width: int, neurons: int, positions: int, seed: int = 0) -> Layer:
        """A layer of V x d x N at T positions with the real one's predictions and edits (module docstring)."""
        generator = torch.Generator().manual_seed(seed)
        real, head = self.layer, self.layer.head
        old_t = self._positions(positions, generator)
        old_i = torch.randperm(len(real.w_out), generator=generator).repeat(-(-neurons // len(real.w_out)))[:neurons]
        order, bias = self._tokens(vocabulary)
        U = head.unembedding.float()[order] * head.norm.gain.float()
        if head.norm.bias is not None:
            bias = bias + head.unembedding.float()[order] @ head.norm.bias.float()
        if head.logit_bias is not None:
            bias = bias + head.logit_bias.float()[order]
        x, w = head.norm.centre(real.residual.float()[old_t]), head.norm.centre(real.w_out.float()[old_i])
        w[len(real.w_out) :] = _turned(w[len(real.w_out) :], generator)
        turn = _rotation(U, x, w, width, generator)
        scale = (width / U.shape[1]) ** 0.5
        form = NormForm(False, torch.ones(width), None, head.norm.eps)
        made = Head((U @ turn) / scale, bias if bool(bias.any()) else None, form)
        residual = (x @ turn) * scale
        targets = _targets(real.targets[old_t], order, len(head.unembedding), made, residual)
        return Layer(made, (w @ turn) * scale, residual, real.activations[old_t][:, old_i], targets)

    def _positions(self, wanted: int, generator: torch.Generator) -> Tensor:
        """`wanted` real positions, evenly spaced by entropy, in random order."""
        places = (torch.arange(wanted) + 0.5) / wanted * len(self.by_entropy)
        return self.by_entropy[places.long()][torch.randperm(wanted, generator=generator)]

    def _tokens(self, vocabulary: int) -> tuple[Tensor, Tensor]:
        """The real token that each of V is, and the bias by which copies share its probability."""
        V = len(self.likeliest)
        if vocabulary <= V:
            return self.likeliest[:vocabulary], torch.zeros(vocabulary)
        copied = self.likeliest[min(COPIED_FROM, V // 2) :]
        further = copied.repeat(-(-(vocabulary - V) // len(copied)))[: vocabulary - V]
        order = torch.cat([self.likeliest, further])
        return order, -torch.bincount(order, minlength=V)[order].float().log()


def _logits(head: Head, residual: Tensor) -> Tensor:
    logits = head.norm(residual.float()) @ head.unembedding.float().T
    return logits if head.logit_bias is None else logits + head.logit_bias


def _turned(w: Tensor, generator: torch.Generator) -> Tensor:
    """Rows turned by `_TURN` into random directions; their lengths stay."""
    aside = torch.randn(w.shape, generator=generator)
    aside *= w.norm(dim=1, keepdim=True) / aside.norm(dim=1, keepdim=True)
    turn = torch.tensor(_TURN)
    return turn.cos() * w + turn.sin() * aside


def _rotation(U: Tensor, x: Tensor, w: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """d x `width`: a random rotation into a wider space, or onto the directions that matter most."""
    d = U.shape[1]
    random = torch.linalg.qr(torch.randn(max(width, d), min(width, d), generator=generator)).Q
    if width >= d:
        return random.T
    size = torch.zeros(d, d)
    for rows in (U, x, w):
        unit = rows / rows.norm(dim=1).square().mean().sqrt()
        size += unit.T @ unit / len(rows)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    return torch.linalg.eigh(size).eigenvectors[:, -width:] @ turn


def _targets(real: Tensor, order: Tensor, vocabulary: int, head: Head, residual: Tensor) -> Tensor:
    """The T real targets of a `vocabulary`; where `order` lacks one, what the position predicts."""
    place = torch.full((vocabulary,), -1)
    place[order.flip(0)] = torch.arange(len(order)).flip(0)  # the first of several copies
    targets = place[real]
    for some in (targets < 0).nonzero()[:, 0].split(_POSITIONS):
        targets[some] = _logits(head, residual[some]).argmax(1)
    return targets
