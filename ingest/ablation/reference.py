"""The effects of an ablation by their definition, in float64: what the fast path is checked against.

Nothing here is shared with the fast path: the residual is edited, normed, unembedded and scored. For that reason the
final norm, the smoothed unigram distribution and each effect are written here once more, on purpose, instead of using
`NormForm`, `Unigram` and `Formula`; an error in one of those shows as a difference from this.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, log_softmax

from rare_tokens.ingest.model.head import ROWS, Head, PostNorm

VALUES = 1 << 23  # logits held at a time: 64 MB


def reference_effects(
    head: Head,
    w_out: Tensor,
    reference: Tensor,
    residual: Tensor,
    activations: Tensor,
    targets: Tensor,
    pairs: Tensor,
    *,
    unigram_counts: Tensor | None = None,
    post_norm: PostNorm | None = None,
) -> dict[str, Tensor]:
    """Every effect for some (position, neuron) pairs, in float64 on the CPU (docs/definitions.md, "Neuron effect").

    Args:
        head: final norm and unembedding.
        w_out: N x d, the output projection's rows w_i.
        reference: N or B x N, the value each activation is replaced by.
        residual: B x d, the input of the final norm.
        activations: B x N.
        targets: B, token ids.
        pairs: P x 2, (position in the block, neuron).
        unigram_counts: V, how often each token occurs; without it ``kl`` and ``frequency`` are left out.
        post_norm: the norm between the MLP's output and the residual stream, where there is one.

    Returns:
        P float64 values in nats for each of ``loss``, ``direct``, ``entropy`` and, with counts, ``kl``, ``frequency``.
    """
    final = _FinalStep(head)
    unigram = None if unigram_counts is None else _log_unigram(unigram_counts)
    found = []
    for few in pairs.cpu().split(max(1, VALUES // final.unembedding.shape[0])):
        t, i = few[:, 0], few[:, 1]
        x = _float64(residual, t)
        n = activations[t.to(activations.device), i.to(activations.device)].cpu().double()
        replacing = (reference[i.to(reference.device)] if reference.ndim == 1 else reference[t, i]).cpu().double()
        edit = (replacing - n)[:, None] * _float64(w_out, i)
        if post_norm is not None:
            output = _mlp_output(post_norm, w_out, _float64(activations, t))
            edit = _normed(post_norm, output + edit) - _normed(post_norm, output)
        found.append(_effects(final, x, x + edit, targets.cpu()[t], unigram))
    return {name: torch.cat([one[name] for one in found]) for name in found[0]}


def reference_attribution(
    head: Head,
    w_out: Tensor,
    reference: Tensor,
    residual: Tensor,
    activations: Tensor,
    targets: Tensor,
    pairs: Tensor,
    *,
    post_norm: PostNorm | None = None,
) -> Tensor:
    """The attribution a·∂loss/∂n of some (position, neuron) pairs, P float64 in nats; arguments as `reference_effects`.

    Found by automatic differentiation, forward through norms, unembedding and softmax, so that no graph is kept.
    """
    final = _FinalStep(head)
    found = []
    for few in pairs.cpu().split(max(1, VALUES // final.unembedding.shape[0])):
        t, i = few[:, 0], few[:, 1]
        x, y = _float64(residual, t), targets.cpu()[t]
        n = activations[t.to(activations.device), i.to(activations.device)].cpu().double()
        step = (reference.cpu().double()[i] - n)[:, None] * _float64(w_out, i)
        if post_norm is not None:
            output = _mlp_output(post_norm, w_out, _float64(activations, t))
            step = torch.func.jvp(partial(_normed, post_norm), (output,), (step,))[1]
        change = torch.func.jvp(lambda x: log_softmax(final.logits(x), 1), (x,), (step,))[1]
        found.append(-change.gather(1, y[:, None])[:, 0])
    return torch.cat(found)


def _mlp_output(post_norm: PostNorm, w_out: Tensor, activations: Tensor) -> Tensor:
    """What the MLP gives to the norm after it, P x d in float64."""
    output = activations @ w_out.cpu().double()
    return output if post_norm.bias is None else output + post_norm.bias.cpu().double()


def _normed(post_norm: PostNorm, output: Tensor) -> Tensor:
    """The norm after the MLP, P x d in float64."""
    norm = post_norm.norm
    gain, bias = norm.gain.cpu().double(), 0.0 if norm.bias is None else norm.bias.cpu().double()
    if norm.centred:
        output = output - output.mean(1, keepdim=True)
    return gain * output / (output.square().mean(1, keepdim=True) + norm.eps).sqrt() + bias


class _FinalStep:
    """Final norm and unembedding in float64."""

    def __init__(self, head: Head) -> None:
        self.is_layer_norm, self.eps = head.norm.centred, head.norm.eps
        self.unembedding = head.unembedding
        self.gain = head.norm.gain.cpu().double()
        self.norm_bias = None if head.norm.bias is None else head.norm.bias.cpu().double()
        self.logit_bias = 0.0 if head.logit_bias is None else head.logit_bias.cpu().double()

    def logits(self, x: Tensor) -> Tensor:
        """P x d residuals to P x V logits."""
        if self.is_layer_norm:
            return self._unembed(layer_norm(x, x.shape[1:], self.gain, self.norm_bias, self.eps))
        normed = self.gain * x / (x.square().mean(1, keepdim=True) + self.eps).sqrt()
        return self._unembed(normed if self.norm_bias is None else normed + self.norm_bias)

    def logits_with_scale_of(self, scaled_as: Tensor, x: Tensor) -> Tensor:
        """Logits of `x` with the norm's scale frozen at that of `scaled_as`."""
        if self.is_layer_norm:
            scaled_as = scaled_as - scaled_as.mean(1, keepdim=True)
            x = x - x.mean(1, keepdim=True)
        normed = self.gain * x / (scaled_as.square().mean(1, keepdim=True) + self.eps).sqrt()
        return self._unembed(normed if self.norm_bias is None else normed + self.norm_bias)

    def _unembed(self, normed: Tensor) -> Tensor:
        # A few rows at a time: in float64 the largest unembeddings take many gigabytes
        logits = [normed @ rows.cpu().double().T for rows in self.unembedding.split(ROWS)]
        return torch.cat(logits, dim=1) + self.logit_bias


def _effects(
    final: _FinalStep, x: Tensor, edited: Tensor, targets: Tensor, log_unigram: Tensor | None
) -> dict[str, Tensor]:
    before, after = final.logits(torch.cat([x, edited])).split(len(x))
    log_p, log_q = log_softmax(before, 1), log_softmax(after, 1)

    def loss(log_probability: Tensor) -> Tensor:
        return -log_probability.gather(1, targets[:, None])[:, 0]

    direct = log_softmax(final.logits_with_scale_of(x, edited), 1)
    effects = {
        "loss": loss(log_q) - loss(log_p),
        "direct": loss(direct) - loss(log_p),
        "entropy": (log_p.exp() * log_p).sum(1) - (log_q.exp() * log_q).sum(1),
    }
    if log_unigram is not None:
        effects["kl"] = (log_unigram.exp() * (log_p - log_q)).sum(1)
        axis = log_unigram - log_unigram.mean()
        axis = axis / axis.norm()
        frozen = after - ((after - before) @ axis)[:, None] * axis
        effects["frequency"] = loss(log_softmax(frozen, 1)) - loss(log_p)
    return effects


def _log_unigram(counts: Tensor) -> Tensor:
    smoothed = counts.cpu().double() + 1
    return smoothed.log() - smoothed.sum().log()


def _float64(values: Tensor, chosen: Tensor) -> Tensor:
    return values[chosen.to(values.device)].cpu().double()
