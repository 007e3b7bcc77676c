"""Moments of the unablated prediction, for all positions and neurons at once: the matrix products of SPEC 2.1.

For position t with prediction p_t, and z_t = U x_t / σ0, m_i = U w_i, the change of loss needs sums over the
vocabulary such as Σ_v p_v m_v² for every (t, i). Sums with m to the first power are low rank, (Σ_v p_v z_v^k U_v)·w_i;
the others are products of a B x V and a V x N matrix, built block by block of the vocabulary and never whole.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from ingest.head import RARE, TOP, FoldedHead

_POSITIONS = 1024  # whose z and weights are held at a time
_RESCALE = 30.0  # nats a logit may lie above its position's reference before the weights are rescaled


@dataclass
class Tier:
    """Sums over some of the vocabulary with weights e_v ∝ p_v; z is counted from the position's `origin`."""

    z: Tensor  # 5 x B: Σ e z^k, k = 0 … 4
    u1: Tensor  # B x d: Σ e U
    zu: Tensor  # B x d: Σ e z U
    m2: Tensor  # B x N: Σ e m²
    m3: Tensor  # B x N: Σ e m³
    m4: Tensor  # B x N: Σ e m⁴ over the common tokens; over the rare ones a bound from above
    z_range: Tensor  # 2 x B: smallest and largest z
    m_range: Tensor  # 2 x N: smallest and largest m

    @staticmethod
    def empty(B: int, N: int, d: int, device: torch.device) -> "Tier":
        """No vocabulary yet."""
        extremes = torch.tensor([torch.inf, -torch.inf], device=device)[:, None]
        m2, m3, m4 = (torch.zeros(B, N, device=device) for _ in range(3))
        return Tier(
            torch.zeros(5, B, device=device),
            torch.zeros(B, d, device=device),
            torch.zeros(B, d, device=device),
            m2,
            m3,
            m4,
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

    def add(self, rows: slice, a: Tensor, e: Tensor, z: Tensor, U: Tensor, mm: Tensor) -> None:
        """Add K tokens at b positions: a, e and z b x K (a may be 1 x K), U K x d, mm = m² N x K."""
        ea = e * a
        eaa = ea * a
        eaz = ea * z
        for k, (left, right) in enumerate(((ea, None), (eaz, None), (eaz, z), (eaa, None), (eaa, z), (eaa, a))):
            self.scalar[k, rows] += left.sum(1) if right is None else (left * right).sum(1)
        self.scalar[6, rows] += eaa.mul(a).mul_(a).sum(1)
        self.u[rows].addmm_(ea, U)
        self.zu[rows].addmm_(eaz, U)
        self.au[rows].addmm_(eaa, U)
        self.m2[rows].addmm_(ea, mm.T)
        self.range[0, rows] = torch.minimum(self.range[0, rows], a.amin(1))
        self.range[1, rows] = torch.maximum(self.range[1, rows], a.amax(1))


@dataclass
class Moments:
    """All sums of a block of B positions; divide by `weight` for expectations."""

    common: Tier
    rare: Tier
    top_m2: Tensor  # B x N: Σ e m² over the top tokens
    top_m4: Tensor  # B x N: Σ e m⁴ over the top tokens
    zm2: Tensor  # B x N: Σ e z m²
    zzu: Tensor  # B x d: Σ e z² U over the common tokens
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

    def rescale(self, rows: slice, factor: Tensor) -> None:
        """Multiply all weights e of the positions `rows` by their factors."""
        along = [one for one in (self.surprise, self.axis) if one is not None]
        self.squares[rows] *= factor
        for value in (self.common.z, self.rare.z, self.logit, self.row, self.squares, *(one.scalar for one in along)):
            value[..., rows] *= factor
        sums = [value for tier in (self.common, self.rare) for value in (tier.u1, tier.zu, tier.m2, tier.m3, tier.m4)]
        sums += [value for one in along for value in (one.u, one.zu, one.au, one.m2)]
        for value in (*sums, self.top_m2, self.top_m4, self.zm2, self.zzu):
            value[rows] *= factor[:, None]


@dataclass(frozen=True)
class Powers:
    """One block of K tokens seen by the N neurons: powers of m, N x K, and in which dtype they are multiplied."""

    m2: Tensor
    low_m2: Tensor
    m3: Tensor  # of the top tokens in float32
    low_m4: Tensor | None  # but of rare tokens
    largest: Tensor  # N: largest m²

    @staticmethod
    def of(m: Tensor, kind: int, low: torch.dtype) -> "Powers":
        """Powers of `m`, for tokens of the tier `kind`."""
        m2 = m.square()
        m3 = m.mul_(m2)
        low_m4 = None if kind == RARE else m2.square().to(low)
        return Powers(m2, m2.to(low), m3 if kind == TOP else m3.to(low), low_m4, m2.amax(1))


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
    B, device = len(normed), normed.device
    N, d = w.shape
    common, rare = Tier.empty(B, N, d, device), Tier.empty(B, N, d, device)
    top_m2, top_m4, zm2 = (torch.zeros(B, N, device=device) for _ in range(3))
    zzu = torch.zeros(B, d, device=device)
    origin, reference, logit, row, squares, log_origin = torch.zeros(6, B, device=device).unbind(0)
    sums = Moments(
        common,
        rare,
        top_m2,
        top_m4,
        zm2,
        zzu,
        origin,
        reference,
        logit,
        row,
        squares,
        Along.empty(B, N, d, device) if surprise else None,
        Along.empty(B, N, d, device) if axis is not None else None,
        log_origin,
    )
    first = True
    before = TOP
    for tokens, U, kind in folded.blocks():
        if before == TOP != kind:
            top_m2.copy_(common.m2)
            top_m4.copy_(common.m4)
        before = kind
        m = w @ U.T
        tier = rare if kind == RARE else common
        tier.m_range[0] = torch.minimum(tier.m_range[0], m.amin(1))
        tier.m_range[1] = torch.maximum(tier.m_range[1], m.amax(1))
        powers = Powers.of(m, kind, low)
        lengths = U.norm(dim=1)
        for start in range(0, B, _POSITIONS):
            rows = slice(start, min(start + _POSITIONS, B))
            z = normed[rows] @ U.T
            logits = folded.add_bias(tokens, z)
            if first:
                _start(sums, rows, z, logits)
            _keep_in_range(sums, rows, logits)
            z = z.sub_(origin[rows, None]) if logits is not z else z - origin[rows, None]
            e = _add(sums, rows, kind, z, logits, U, lengths, powers)
            if sums.surprise is not None:
                sums.surprise.add(rows, logits - log_origin[rows, None], e, z, U, powers.m2)
            if sums.axis is not None and axis is not None:
                sums.axis.add(rows, axis[tokens][None, :], e, z, U, powers.m2)
        first = False
    return sums


def _start(sums: Moments, rows: slice, z: Tensor, logits: Tensor) -> None:
    """Choose what the positions' z and logits are counted from, by their first block of tokens."""
    p = logits.softmax(1)
    sums.origin[rows] = vecdot(p, z)
    sums.log_origin[rows] = vecdot(p, logits)
    sums.reference[rows] = logits.amax(1)


def _keep_in_range(sums: Moments, rows: slice, logits: Tensor) -> None:
    top = logits.amax(1) - sums.reference[rows]
    if bool((top > _RESCALE).any()):
        up = torch.where(top > _RESCALE, top, 0.0)
        sums.rescale(rows, (-up).exp())
        sums.logit[rows] -= up * sums.weight[rows]
        sums.reference[rows] += up


def _add(
    sums: Moments, rows: slice, kind: int, z: Tensor, logits: Tensor, U: Tensor, lengths: Tensor, powers: Powers
) -> Tensor:
    """Add K tokens at b positions, z and logits b x K, U K x d; the weights e, b x K."""
    tier = sums.rare if kind == RARE else sums.common
    tier.z_range[0, rows] = torch.minimum(tier.z_range[0, rows], z.amin(1))
    tier.z_range[1, rows] = torch.maximum(tier.z_range[1, rows], z.amax(1))
    logits = logits - sums.reference[rows, None]
    e = logits.exp()
    sums.logit[rows] += vecdot(e, logits)
    sums.row[rows] += e @ lengths
    sums.squares[rows] += vecdot(e, e)
    tier.z[0, rows] += e.sum(1)
    tier.u1[rows].addmm_(e, U)
    low_e = e.to(powers.low_m2.dtype)
    if powers.low_m4 is None:
        m2 = _product(low_e, powers.low_m2.T)
        tier.m2[rows] += m2
        tier.m4[rows].addcmul_(m2, powers.largest)
    else:
        tier.m2[rows].addmm_(e, powers.m2.T)  # in float32: the second moment is the one that counts
        tier.m4[rows] += _product(low_e, powers.low_m4.T)
    if kind == TOP:
        tier.m3[rows].addmm_(e, powers.m3.T)
    else:
        m3 = _product(low_e, powers.m3.T)
        tier.m3[rows] += m3
    ez = torch.mul(e, z, out=logits)
    tier.z[1, rows] += ez.sum(1)
    tier.zu[rows].addmm_(ez, U)
    sums.zm2[rows] += _product(ez.to(low_e.dtype), powers.low_m2.T)
    for k in (2, 3, 4):
        ez *= z
        tier.z[k, rows] += ez.sum(1)
        if k == 2 and kind != RARE:
            sums.zzu[rows].addmm_(ez, U)
    return e


def _product(left: Tensor, right: Tensor) -> Tensor:
    if left.device.type == "cuda" and left.dtype != torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left @ right
