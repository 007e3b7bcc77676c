"""Moments of the unablated prediction, for all positions and neurons at once: the matrix products of SPEC 2.1.

For position t with prediction p_t, and z_t = U x_t / σ0, m_i = U w_i, the change of loss needs sums over the
vocabulary such as Σ_v p_v m_v² for every (t, i). Sums with m to the first power are low rank, (Σ_v p_v z_v^k U_v)·w_i;
the others are products of a B x V and a V x N matrix, built block by block of the vocabulary and never whole.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from ingest.head import FoldedHead

_RESCALE = 30.0  # nats a logit may lie above its position's reference before the weights are rescaled


@dataclass
class Tier:
    """Sums over some of the vocabulary with weights e_v ∝ p_v; z is counted from the position's `origin`."""

    z: Tensor  # 5 x B: Σ e z^k, k = 0 … 4
    u1: Tensor  # B x d: Σ e U
    m2: Tensor  # B x N: Σ e m²
    m3: Tensor  # B x N: Σ e m³
    z_range: Tensor  # 2 x B: smallest and largest z
    m_range: Tensor  # 2 x N: smallest and largest m

    @staticmethod
    def empty(B: int, N: int, d: int, device: torch.device) -> "Tier":
        """No vocabulary yet."""
        extremes = torch.tensor([torch.inf, -torch.inf], device=device)[:, None]
        return Tier(
            torch.zeros(5, B, device=device),
            torch.zeros(B, d, device=device),
            torch.zeros(B, N, device=device),
            torch.zeros(B, N, device=device),
            extremes.repeat(1, B),
            extremes.repeat(1, N),
        )


@dataclass
class Along:
    """Sums that involve a further function a_v of the token: the log-probability, or the log-unigram axis."""

    scalar: Tensor  # 7 x B: Σ e (a, a z, a z², a², a² z, a³, a⁴)
    u: Tensor  # B x d: Σ e a U
    zu: Tensor  # B x d: Σ e a z U
    au: Tensor  # B x d: Σ e a² U
    m2: Tensor  # B x N: Σ e a m²
    range: Tensor  # 2 x B: smallest and largest a

    @staticmethod
    def empty(B: int, N: int, d: int, device: torch.device) -> "Along":
        """No vocabulary yet."""
        u, zu, au = torch.zeros(3, B, d, device=device).unbind(0)
        extremes = torch.tensor([torch.inf, -torch.inf], device=device)[:, None].repeat(1, B)
        return Along(torch.zeros(7, B, device=device), u, zu, au, torch.zeros(B, N, device=device), extremes)

    def add(self, a: Tensor, e: Tensor, z: Tensor, U: Tensor, mm: Tensor) -> None:
        """Add one block of K tokens: a, e and z B x K (a may be 1 x K), U K x d, mm = m² N x K."""
        ea = e * a
        eaa = ea * a
        eaz = ea * z
        for k, (left, right) in enumerate(((ea, None), (eaz, None), (eaz, z), (eaa, None), (eaa, z), (eaa, a))):
            self.scalar[k] += left.sum(1) if right is None else (left * right).sum(1)
        self.scalar[6] += eaa.mul(a).mul_(a).sum(1)
        self.u.addmm_(ea, U)
        self.zu.addmm_(eaz, U)
        self.au.addmm_(eaa, U)
        self.m2.addmm_(ea, mm.T)
        self.range[0] = torch.minimum(self.range[0], a.amin(1))
        self.range[1] = torch.maximum(self.range[1], a.amax(1))


@dataclass
class Moments:
    """All sums of a block of B positions; divide by `weight` for expectations."""

    common: Tier
    rare: Tier
    common_m4: Tensor  # B x N: Σ e m⁴ over the common tokens
    zm2: Tensor  # B x N: Σ e z m²
    zu: Tensor  # B x d: Σ e z U
    zzu: Tensor  # B x d: Σ e z² U
    origin: Tensor  # B: what z is counted from
    reference: Tensor  # B: e_v = exp(logit_v − reference)
    logit: Tensor  # B: Σ e logit, of logits counted from the reference
    row: Tensor  # B: Σ e ‖U_v‖
    squares: Tensor  # B: Σ e²
    surprise: Along | None  # a = logit less `log_origin`
    axis: Along | None  # a = log-unigram axis
    log_origin: Tensor  # B

    @property
    def weight(self) -> Tensor:
        """B: Σ_v e_v."""
        return self.common.z[0] + self.rare.z[0]

    def rescale(self, factor: Tensor) -> None:
        """Multiply all weights e of each position by its factor."""
        along = [one for one in (self.surprise, self.axis) if one is not None]
        self.squares *= factor
        for value in (self.common.z, self.rare.z, self.logit, self.row, self.squares, *(one.scalar for one in along)):
            value *= factor
        rows = [value for tier in (self.common, self.rare) for value in (tier.u1, tier.m2, tier.m3)]
        rows += [value for one in along for value in (one.u, one.zu, one.au, one.m2)]
        for value in (*rows, self.common_m4, self.zm2, self.zu, self.zzu):
            value *= factor[:, None]


def accumulate(
    folded: FoldedHead,
    normed: Tensor,
    w: Tensor,
    low: torch.dtype,
    *,
    surprise: bool = False,
    axis: Tensor | None = None,
) -> Moments:
    """One pass over the vocabulary.

    Args:
        folded: the folded head.
        normed: B x d, x / σ0.
        w: N x d, the (centred) output rows.
        low: dtype of the products that may be rounded (`torch.bfloat16`, or `torch.float32` where that is no faster).
        surprise: also the sums along the log-probability. axis: V, also those along this axis.
    """
    N, d = w.shape
    sums: Moments | None = None
    for tokens, U, common in folded.blocks():
        z = normed @ U.T
        logits = folded.add_bias(tokens, z)
        if sums is None:
            sums = _start(z, logits, N, d, surprise, axis is not None)
        top = logits.amax(1) - sums.reference
        if bool((top > _RESCALE).any()):
            up = torch.where(top > _RESCALE, top, 0.0)
            sums.rescale((-up).exp())
            sums.logit -= up * sums.weight
            sums.reference += up
        m = w @ U.T
        z = z - sums.origin[:, None]
        e = _add(sums, common, z, logits, U, m, low)
        if sums.surprise is not None:
            sums.surprise.add(logits - sums.log_origin[:, None], e, z, U, m.square())
        if sums.axis is not None and axis is not None:
            sums.axis.add(axis[tokens][None, :], e, z, U, m.square())
    assert sums is not None
    return sums


def _start(z: Tensor, logits: Tensor, N: int, d: int, surprise: bool, axis: bool) -> Moments:
    B, device = len(z), z.device
    p = logits.softmax(1)
    common, rare = Tier.empty(B, N, d, device), Tier.empty(B, N, d, device)
    return Moments(
        common=common,
        rare=rare,
        common_m4=torch.zeros(B, N, device=device),
        zm2=torch.zeros(B, N, device=device),
        zu=torch.zeros(B, d, device=device),
        zzu=torch.zeros(B, d, device=device),
        origin=vecdot(p, z),
        reference=logits.amax(1),
        logit=torch.zeros(B, device=device),
        row=torch.zeros(B, device=device),
        squares=torch.zeros(B, device=device),
        surprise=Along.empty(B, N, d, device) if surprise else None,
        axis=Along.empty(B, N, d, device) if axis else None,
        log_origin=vecdot(p, logits),
    )


def _add(sums: Moments, common: bool, z: Tensor, logits: Tensor, U: Tensor, m: Tensor, low: torch.dtype) -> Tensor:
    """Add one block of K tokens, z and logits B x K, U K x d, m N x K; its weights e, B x K."""
    tier = sums.common if common else sums.rare
    for extremes, values in ((tier.z_range, z), (tier.m_range, m)):
        extremes[0] = torch.minimum(extremes[0], values.amin(1))
        extremes[1] = torch.maximum(extremes[1], values.amax(1))
    logits = logits - sums.reference[:, None]
    e = logits.exp()
    sums.logit += vecdot(e, logits)
    sums.row.addmv_(e, U.norm(dim=1))
    sums.squares += vecdot(e, e)
    tier.z[0] += e.sum(1)
    tier.u1.addmm_(e, U)
    mm = m.square()
    low_e, low_mm = e.to(low), mm.to(low)
    tier.m2.addmm_(e, mm.T)  # in float32: the second moment is the one that counts
    if common:
        sums.common_m4 += _product(low_e, mm.square().to(low).T)
    ez = e * z
    tier.z[1] += ez.sum(1)
    sums.zu.addmm_(ez, U)
    sums.zm2 += _product(ez.to(low), low_mm.T)
    tier.m3 += _product(low_e, mm.mul_(m).to(low).T)
    for k in (2, 3, 4):
        ez *= z
        tier.z[k] += ez.sum(1)
        if k == 2:
            sums.zzu.addmm_(ez, U)
    return e


def _product(left: Tensor, right: Tensor) -> Tensor:
    if left.device.type == "cuda" and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left @ right
