"""The attribution on the dense path: the derivative of an effect by how far its neuron moves, at the unablated model.

An effect's edit scope says which derivative it is (a = reference − activation):

    window     neuron i moves at every position of the window:  Σ_{s≤t} a_{s,i} ∂loss_t/∂n_{s,i}
    position   it moves at t alone:                             a_{t,i} ∂loss_t/∂n_{t,i}

So the gradient of each position's own loss is needed. One backward pass from the sum of all losses gives Σ_{t≥s}
∂loss_t/∂n_s, which is neither; only in the last layer, where no position reaches another's loss, is it both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rare_tokens.ingest.ablation.formulas.paths import Prediction
from rare_tokens.ingest.dense.replay import Replay
from rare_tokens.ingest.model.structure import hooked


@dataclass(frozen=True)
class Attribution:
    """Attributions of all N neurons at the positions of a window that is recorded.

    Attributes:
        replay: runs the model again from the MLP's output on.
        unembedding: of the same model; what follows it takes each position by itself.
        w: N × d, the output projection's rows.
        is_last: whether the layer is the last.
        at_once: whether a neuron is replaced at every position of the window.
    """

    replay: Replay
    unembedding: nn.Module
    w: Tensor
    is_last: bool
    at_once: bool

    def of(self, shift: Tensor, targets: Tensor) -> Tensor:
        """T × N, nats, at the window's last T positions.

        Args:
            shift: window × N, what each activation moves by.
            targets: T token ids.
        """
        with torch.inference_mode(False):
            shift, targets = shift.clone(), targets.clone()  # what was made for inference cannot be differentiated
            first = len(shift) - len(targets)
            if self.at_once and not self.is_last:
                gradients = enumerate(self._over_window(len(shift), targets), first + 1)
                return torch.stack([(shift[:end] * (gradient[:end] @ self.w.T)).sum(0) for end, gradient in gradients])
            own = self._in_one_pass(len(shift), targets) if self.is_last else self._at_positions(first, targets)
            return shift[first:] * (own @ self.w.T)

    def _in_one_pass(self, length: int, targets: Tensor) -> Tensor:
        """∂loss_t/∂μ_t by the MLP's output μ (T × d), where the loss at t depends on no other position's."""
        still = self._still(1, length)
        logits = self.replay.logits(still)[0, -len(targets) :]
        (gradient,) = torch.autograd.grad(Prediction(logits, targets).loss.sum(), still)
        return gradient[0, -len(targets) :]

    def _over_window(self, length: int, targets: Tensor) -> Iterator[Tensor]:
        """∂loss_t/∂μ at every position of the window, window × d, for one t after the other.

        One forward pass and one backward pass through the unembedding serve all t; the layers below it take a backward
        pass for each.
        """
        still, kept = self._still(1, length), []
        with hooked((self.unembedding, "before", lambda _module, args: kept.append(args[0]))):
            logits = self.replay.logits(still)[0, -len(targets) :]
        (hidden,) = kept
        (above,) = torch.autograd.grad(Prediction(logits, targets).loss.sum(), hidden, retain_graph=True)
        rows = above.view(length, -1)
        for t in range(length - len(targets), length):
            here = torch.zeros_like(rows)
            here[t] = rows[t]
            (gradient,) = torch.autograd.grad(hidden, still, here.view_as(hidden), retain_graph=True)
            yield gradient[0]

    def _at_positions(self, first: int, targets: Tensor) -> Tensor:
        """∂loss_t/∂μ_t, T × d, where positions before t stay as they are: each t is run by itself."""
        found = []
        for place in range(len(targets)):
            still = self._still(1)
            logits = self.replay.logits_at(first + place, still)
            (gradient,) = torch.autograd.grad(Prediction(logits, targets[place : place + 1]).loss.sum(), still)
            found.append(gradient)
        return torch.cat(found)

    def _still(self, *shape: int) -> Tensor:
        """An edit of nothing (… × d), to be differentiated by."""
        return torch.zeros(*shape, self.w.shape[1], dtype=self.w.dtype, device=self.w.device, requires_grad=True)
