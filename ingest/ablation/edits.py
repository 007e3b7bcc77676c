"""What ablating each neuron of a layer does to the residual stream, and so to the logits.

With a = n̄_i − n_{t,i} the edit adds a·w_i to the MLP's output μ_t. In most models that output is added to the residual
stream x_t as it is. Where a norm follows the MLP (Gemma 3, OLMo 2 and 3), with scale r before the edit, r' after it and
gain g, the stream gains

    (r/r' − 1) P + (a/r') g∘w_i           P = g∘μ/r, what the MLP added

so that μ's logits q = U P/σ0 are one more function of the token, with the factor (r/r' − 1) σ0/σ1.
"""

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.changes import Change, Factors
from rare_tokens.ingest.model.head import PostNorm
from rare_tokens.ingest.model.norms import NormForm


class LayerEdits:
    """The edits of all N neurons, at any positions."""

    def __init__(
        self, final: NormForm, w_out: Tensor, reference: Tensor, post: PostNorm | None, device: torch.device
    ) -> None:
        """Centre the output rows w_out (N x d) for the `final` norm; `reference` holds n̄ (N)."""
        self._final, self._post, self._device = final, post, device
        self._w_out, self._exact_reference = w_out, reference
        raw = w_out.cpu().double()
        if post is not None:
            raw = post.norm.centre(raw)
            self._raw, self._raw_norm = (value.float().to(device) for value in (raw, raw.square().sum(1).sqrt()))
            raw = raw * post.norm.gain.cpu().double()
        w = final.centre(raw)
        self.w = w.float().to(device)  # N x d: the rows whose logits are m
        self.w_norm = w.square().sum(1).sqrt().float().to(device)  # N
        self._reference = reference.float().to(device)

    def at(self, residual: Tensor, activations: Tensor) -> "BlockEdits":
        """The edits at B positions: residual B x d, activations B x N.

        Raises:
            UserError: a residual (or an MLP's output) has no variance and its norm adds none.
        """
        x = self._final.centre(residual.cpu().double())
        scale = self._final.scale_of_centred(x)
        _require_variance(scale, "residual stream", "final norm")
        if self._post is None:
            return BlockEdits(self, activations, (x / scale)[None], scale, None)
        mlp = self._mlp_output(activations.cpu().double())
        mlp_scale = self._post.norm.scale_of_centred(mlp)
        _require_variance(mlp_scale, "MLP's output", "norm after it")
        added = self._final.centre(mlp / mlp_scale * self._post.norm.gain.cpu().double())
        normed_mlp = (mlp / mlp_scale).float().to(self._device)
        return BlockEdits(self, activations, torch.stack([x / scale, added / scale]), scale, (normed_mlp, mlp_scale))

    def _mlp_output(self, activations: Tensor) -> Tensor:
        """μ centred for the norm after it, … x d float64, from activations (… x N)."""
        assert self._post is not None
        output = activations @ self._w_out.cpu().double()
        if self._post.bias is not None:
            output += self._post.bias.cpu().double()
        return self._post.norm.centre(output)

    def edited(self, residual: Tensor, activations: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream before and after P edits, P x d each in float64, centred for the final norm.

        `residual` is P x d and `activations` P x N at the pairs' positions; `i` are their neurons.
        """
        x, n, w = residual.cpu().double(), activations.cpu().double(), self._w_out.cpu()[i.cpu()].double()
        a = self._exact_reference.cpu()[i.cpu()].double() - n.gather(1, i.cpu()[:, None])[:, 0]
        if self._post is None:
            return self._final.centre(x), self._final.centre(x + a[:, None] * w)
        form = self._post.norm
        before = self._mlp_output(n)
        after = before + a[:, None] * form.centre(w)
        scaled = [mlp / form.scale_of_centred(mlp) * form.gain.cpu().double() for mlp in (before, after)]
        return self._final.centre(x), self._final.centre(x + scaled[1] - scaled[0])


class BlockEdits:
    """The edits at B positions."""

    def __init__(
        self,
        layer: LayerEdits,
        activations: Tensor,
        rows: Tensor,
        scale: Tensor,
        post: tuple[Tensor, Tensor] | None,
    ) -> None:
        """`rows` and `scale` are float64 on the CPU; `post`: the MLP's output over its norm's scale, and that scale."""
        self._layer, self._activations = layer, activations
        device = layer._device
        self.exact_rows = rows  # F x B x d
        self.rows = rows.float().to(device)  # F x B x d: z_f = U rows_f
        self.lengths = self.rows.norm(dim=2)  # F x B
        self._scale = scale.float().to(device)  # B x 1, σ0
        self._post = None if post is None else (post[0], post[1].float().to(device))

    def factors(self, at: slice) -> Factors:
        """u and c of the positions `at` and all neurons, from σ1² = σ0² + e: e/σ0² by terms that do not cancel."""
        layer = self._layer
        a = layer._reference - self._activations[at].to(layer._device, torch.float32)
        x, width = self.rows[0, at], self.rows.shape[2]
        if self._post is None:
            b = a / self._scale[at]
            growth = b * (2 * (x @ layer.w.T) + b * layer.w_norm.square()) / width
            ratio, shrink = _ratio_and_shrink(growth)
            return Factors(Change(shrink[None], b / ratio), Change(torch.zeros_like(shrink)[None], b), ratio)
        mlp, mlp_scale = self._post[0][at], self._post[1][at]
        b = a / mlp_scale
        mlp_growth = b * (2 * (mlp @ layer._raw.T) + b * layer._raw_norm.square()) / width
        mlp_ratio, mlp_shrink = _ratio_and_shrink(mlp_growth)
        b = b / mlp_ratio / self._scale[at]
        added = self.rows[1, at]
        growth = mlp_shrink * (2 * vecdot(x, added)[:, None] + mlp_shrink * vecdot(added, added)[:, None])
        growth += b * (2 * (x @ layer.w.T) + 2 * mlp_shrink * (added @ layer.w.T) + b * layer.w_norm.square())
        ratio, shrink = _ratio_and_shrink(growth / width)
        direct = Change(torch.stack([torch.zeros_like(shrink), mlp_shrink]), b)
        change = Change(torch.stack([shrink, mlp_shrink / ratio]), b / ratio)
        return Factors(change, direct, torch.minimum(ratio, mlp_ratio))


def _ratio_and_shrink(growth: Tensor) -> tuple[Tensor, Tensor]:
    """σ1/σ0 and σ0/σ1 − 1 from σ1²/σ0² − 1."""
    ratio = (1 + growth).clamp_(min=0).sqrt()
    return ratio, -growth / (ratio * (1 + ratio))


def _require_variance(scale: Tensor, what: str, norm: str) -> None:
    if bool((scale == 0).any()):
        raise UserError(
            f"The {what} at position {int((scale == 0).nonzero()[0, 0])} of the block has no variance and "
            f"the {norm}'s eps is 0, so its logits are undefined."
        )
