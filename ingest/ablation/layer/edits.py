"""What ablating each neuron of a layer does to the residual stream, and so to the logits.

With a = n*_{t,i} − n_{t,i}, n* the reference, the edit adds a·w_i to the MLP's output μ_t. In most models that output
is added to the residual stream x_t as it is. Where a norm follows the MLP (Gemma 3, OLMo 2 and 3), with scale r before
the edit, r' after it and gain g, the stream gains

    (r/r' − 1) P + (a/r') g∘w_i           P = g∘μ/r, what the MLP added

so that μ's logits q = U P/σ0 are one more function of the token, with the factor (r/r' − 1) σ0/σ1.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.ablation.layer.changes import Change, Factors
from rare_tokens.ingest.model.head import PostNorm
from rare_tokens.ingest.model.norms import NormForm


class LayerEdits:
    """The edits of all N neurons, at any positions."""

    def __init__(self, final: NormForm, w_out: Tensor, post: PostNorm | None, device: torch.device) -> None:
        """Centre the output rows w_out (N x d) for the `final` norm."""
        self._final, self.post, self._device = final, post, device
        self._w_out = w_out
        raw = w_out.cpu().double()
        if post is not None:
            raw = post.norm.centre(raw)
            self._raw, self._raw_norm = (value.float().to(device) for value in (raw, raw.square().sum(1).sqrt()))
            raw = raw * post.norm.gain.cpu().double()
        w = final.centre(raw)
        self.w = w.float().to(device)  # N x d: the rows whose logits are m
        self.w_norm = w.square().sum(1).sqrt().float().to(device)  # N

    def of(self, neurons: Tensor) -> "LayerEdits":
        """Those of some neurons alone; only where no norm follows the MLP, whose scale is that of all of them."""
        assert self.post is None
        return LayerEdits(self._final, self._w_out[neurons.to(self._w_out.device)], None, self._device)

    def at(self, residual: Tensor, activations: Tensor, reference: Tensor) -> "BlockEdits":
        """The edits at B positions: residual B x d, activations B x N, reference N or B x N.

        Raises:
            UserError: a residual (or an MLP's output) has no variance and its norm adds none.
        """
        x = self._final.centre(residual.cpu().double())
        scale = self._final.scale_of_centred(x)
        _require_variance(scale, "residual stream", "final norm")
        if self.post is None:
            return BlockEdits(self, activations, reference, (x / scale)[None], scale, None)
        mlp = self.mlp_output(activations.cpu().double())
        mlp_scale = self.post.norm.scale_of_centred(mlp)
        _require_variance(mlp_scale, "MLP's output", "norm after it")
        added = self._final.centre(mlp / mlp_scale * self.post.norm.gain.cpu().double())
        normed_mlp = (mlp / mlp_scale).float().to(self._device)
        rows = torch.stack([x / scale, added / scale])
        return BlockEdits(self, activations, reference, rows, scale, (normed_mlp, mlp_scale))

    def mlp_output(self, activations: Tensor) -> Tensor:
        """μ centred for the norm after it, … x d float64, from activations (… x N)."""
        assert self.post is not None
        output = activations @ self._w_out.cpu().double()
        if self.post.bias is not None:
            output += self.post.bias.cpu().double()
        return self.post.norm.centre(output)

    def exact_rows(self, i: Tensor) -> tuple[Tensor, Tensor]:
        """Output rows of P neurons in float64, P x d each: before a norm after the MLP, and as their logits are m."""
        raw = self._w_out.cpu()[i].double()
        if self.post is None:
            return raw, self._final.centre(raw)
        raw = self.post.norm.centre(raw)
        return raw, self._final.centre(raw * self.post.norm.gain.cpu().double())

    def edited(self, residual: Tensor, activations: Tensor, a: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream before and after P edits, P x d each in float64, centred for the final norm.

        `residual` is P x d and `activations` P x N at the pairs' positions; `i` are their neurons, `a` (float64) their
        edits.
        """
        x = residual.cpu().double()
        raw, _ = self.exact_rows(i)
        if self.post is None:
            return self._final.centre(x), self._final.centre(x + a[:, None] * raw)
        form = self.post.norm
        before = self.mlp_output(activations.cpu().double())
        after = before + a[:, None] * raw
        scaled = [mlp / form.scale_of_centred(mlp) * form.gain.cpu().double() for mlp in (before, after)]
        return self._final.centre(x), self._final.centre(x + scaled[1] - scaled[0])


class BlockEdits:
    """The edits at B positions."""

    def __init__(
        self,
        layer: LayerEdits,
        activations: Tensor,
        reference: Tensor,
        rows: Tensor,
        scale: Tensor,
        post: tuple[Tensor, Tensor] | None,
    ) -> None:
        """`rows` and `scale` are float64 on the CPU; `post`: the MLP's output over its norm's scale, and that scale."""
        self._layer, self._activations, self._reference = layer, activations, reference
        device = layer._device
        self.exact_rows, self.exact_scale = rows, scale  # F x B x d, B x 1
        self.rows = rows.float().to(device)  # F x B x d: z_f = U rows_f
        self.lengths = self.rows.norm(dim=2)  # F x B
        self._scale = scale.float().to(device)  # B x 1, σ0
        self._post = None if post is None else (post[0], post[1].float().to(device))

    def towards(self, reference: Tensor) -> "BlockEdits":
        """The edits at the same positions with another reference, N or B x N."""
        other = copy.copy(self)
        other._reference = reference
        return other

    def factors(self, at: slice) -> Factors:
        """u and c of the positions `at` and all neurons, b x N in float32."""
        layer = self._layer
        reference = self._reference if self._reference.ndim == 1 else self._reference[at]
        reference, n = (value.to(layer._device, torch.float32) for value in (reference, self._activations[at]))
        a = reference - n
        x, width = self.rows[0, at], self.rows.shape[2]
        post = None
        if self._post is not None:
            mlp, mlp_scale = self._post[0][at], self._post[1][at]
            added = self.rows[1, at]
            post = _Post(
                mlp_scale,
                mlp @ layer._raw.T,
                layer._raw_norm.square(),
                vecdot(x, added)[:, None],
                vecdot(added, added)[:, None],
                added @ layer.w.T,
            )
        return _factors(a, self._scale[at], x @ layer.w.T, layer.w_norm.square(), width, post)

    def exact(self, t: Tensor, i: Tensor) -> Tensor:
        """a = n* − n of P pairs (position, neuron) in float64, on the CPU."""
        reference = self._reference[i] if self._reference.ndim == 1 else self._reference[t, i]
        return reference.cpu().double() - self._activations[t, i].cpu().double()

    def edited(self, residual: Tensor, t: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        """As `LayerEdits.edited`, of P pairs at these positions, whose residual is B x d."""
        return self._layer.edited(residual[t], self._activations[t], self.exact(t, i), i)

    def exact_factors(self, t: Tensor, i: Tensor) -> tuple[Factors, Tensor]:
        """The same of P pairs (position, neuron) in float64, and the rows (P x d) whose logits are m; on the CPU."""
        layer = self._layer
        raw, w = layer.exact_rows(i)
        a = self.exact(t, i)
        x = self.exact_rows[0, t]
        scale = self.exact_scale[t, 0]
        post = None
        if layer.post is not None:
            mlp = layer.mlp_output(self._activations[t].cpu().double())
            mlp_scale = layer.post.norm.scale_of_centred(mlp)
            added = self.exact_rows[1, t]
            post = _Post(
                mlp_scale[:, 0],
                vecdot(mlp / mlp_scale, raw),
                raw.square().sum(1),
                vecdot(x, added),
                vecdot(added, added),
                vecdot(added, w),
            )
        return _factors(a, scale, vecdot(x, w), w.square().sum(1), w.shape[1], post), w


@dataclass(frozen=True)
class _Post:
    """What a norm after the MLP needs of positions and neurons; shapes that broadcast to those of the pairs."""

    scale: Tensor  # r
    mlp_w: Tensor  # (μ/r)·w
    ww: Tensor  # ‖w‖²
    x_added: Tensor  # x·P / σ0²
    added_added: Tensor  # ‖P‖² / σ0²
    added_w: Tensor  # P·(g∘w) / σ0


def _factors(a: Tensor, scale: Tensor, xw: Tensor, ww: Tensor, width: int, post: _Post | None) -> Factors:
    """u and c from σ1² = σ0² + e, e/σ0² by terms that do not cancel, and their first order in a; in any dtype.

    Args:
        a: n* − n.
        scale: σ0.
        xw: x·w / σ0.
        ww: ‖w‖², of the rows whose logits are m.
        width: d.
        post: where a norm follows the MLP.
    """
    if post is None:
        b = a / scale
        ratio, shrink = _ratio_and_shrink(b * (2 * xw + b * ww) / width)
        direct = Change(torch.zeros_like(shrink)[None], b)
        return Factors(Change(shrink[None], b / ratio), direct, Change((b * xw / -width)[None], b), ratio)
    b = a / post.scale
    mlp_slope, slope = b * post.mlp_w / -width, b / scale
    linear = Change(torch.stack([(mlp_slope * post.x_added + slope * xw) / -width, mlp_slope]), slope)
    mlp_ratio, mlp_shrink = _ratio_and_shrink(b * (2 * post.mlp_w + b * post.ww) / width)
    b = b / mlp_ratio / scale
    growth = mlp_shrink * (2 * post.x_added + mlp_shrink * post.added_added)
    growth += b * (2 * xw + 2 * mlp_shrink * post.added_w + b * ww)
    ratio, shrink = _ratio_and_shrink(growth / width)
    direct = Change(torch.stack([torch.zeros_like(shrink), mlp_shrink]), b)
    change = Change(torch.stack([shrink, mlp_shrink / ratio]), b / ratio)
    return Factors(change, direct, linear, torch.minimum(ratio, mlp_ratio))


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
