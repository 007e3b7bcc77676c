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

_POSITIONS = 2048  # whose z and weights are held at a time: long products
_TILE = 256  # of them pass by pass, so that they stay in a processor's cache
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
    z: Tensor | None  # B·V: z less the origin, block after block of the vocabulary, B x K each; if kept

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


class Room:
    """Memory that every block of the vocabulary uses again: fresh pages cost as much as the arithmetic on them."""

    def __init__(self, b: int, N: int, K: int, low: torch.dtype, device: torch.device) -> None:
        """For at most b positions and K tokens."""
        self._pool: dict[str, Tensor] = {}
        self._sizes = {"neurons": N * K, "positions": b * K, "product": b * N}
        self.low, self.device = low, device

    def take(self, name: str, size: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of two dimensions whose values are whatever was there."""
        if name not in self._pool:
            self._pool[name] = torch.empty(self._sizes[size], dtype=dtype, device=self.device)
        return self._pool[name][: shape[0] * shape[1]].view(shape)


@dataclass(frozen=True)
class Powers:
    """One block of K tokens seen by the N neurons: powers of m, N x K, and in which dtype they are multiplied."""

    m2: Tensor
    low_m2: Tensor
    m3: Tensor  # of the top tokens in float32
    low_m4: Tensor | None  # but of rare tokens
    largest: Tensor  # N: largest m²

    @staticmethod
    def of(m: Tensor, kind: int, room: Room) -> "Powers":
        """Powers of `m`, which is overwritten, for tokens of the tier `kind`."""

        def rounded(name: str, values: Tensor) -> Tensor:
            if room.low == values.dtype:
                return values
            return room.take(name, "neurons", m.shape, room.low).copy_(values)

        m2 = torch.mul(m, m, out=room.take("m2", "neurons", m.shape))
        m3 = m.mul_(m2)
        low_m4 = None
        if kind != RARE:
            low_m4 = torch.mul(m2, m2, out=room.take("m4", "neurons", m.shape))
            low_m4 = rounded("low_m4", low_m4)
        return Powers(m2, rounded("low_m2", m2), m3 if kind == TOP else rounded("low_m3", m3), low_m4, m2.amax(1))


def accumulate(
    folded: FoldedHead,
    normed: Tensor,
    w: Tensor,
    low: torch.dtype,
    *,
    surprise: bool = False,
    axis: Tensor | None = None,
    keep_z: bool = False,
) -> Moments:
    """One pass over the vocabulary.

    Args:
        folded: the folded head.
        normed: B x d, x / σ0.
        w: N x d, the (centred) output rows.
        low: dtype of the products that may be rounded (`torch.bfloat16`, or `torch.float32` where that is no faster).
        surprise: also the sums along the log-probability. axis: V, also those along this axis.
        keep_z: keep all z, B x V, for the exact path.
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
        torch.empty(B * folded.vocabulary, device=device) if keep_z else None,
    )
    room = Room(min(B, _POSITIONS), N, folded.rows, low, device)
    done = 0
    before = TOP
    for tokens, U, kind in folded.blocks():
        if before == TOP != kind:
            top_m2.copy_(common.m2)
            top_m4.copy_(common.m4)
        before = kind
        m = torch.mm(w, U.T, out=room.take("m", "neurons", (N, len(tokens))))
        tier = rare if kind == RARE else common
        tier.m_range[0] = torch.minimum(tier.m_range[0], m.amin(1))
        tier.m_range[1] = torch.maximum(tier.m_range[1], m.amax(1))
        powers = Powers.of(m, kind, room)
        lengths = U.norm(dim=1)
        for start in range(0, B, _POSITIONS):
            rows = slice(start, min(start + _POSITIONS, B))
            shape = (rows.stop - start, len(tokens))
            logits, e, ez, ezz = (room.take(name, "positions", shape) for name in ("logits", "e", "ez", "ezz"))
            kept = z_block(sums.z, B, done, len(tokens))
            z = room.take("z", "positions", shape) if kept is None else kept[rows]
            for first_row in range(start, rows.stop, _TILE):
                tile = slice(first_row, min(first_row + _TILE, rows.stop))
                here = slice(tile.start - start, tile.stop - start)
                few = Weighted(*(value[here] for value in (z, logits, e, ez, ezz)))
                torch.mm(normed[tile], U.T, out=few.z)
                folded.add_bias(tokens, few.z, out=few.logits)
                if not done:
                    _start(sums, tile, few.z, few.logits)
                _keep_in_range(sums, tile, few.logits)
                _weigh(sums, tile, kind, few, lengths)
            _add(sums, rows, kind, Weighted(z, logits, e, ez, ezz), U, powers, room)
            if sums.surprise is not None:
                a = logits + (reference - log_origin)[rows, None]
                sums.surprise.add(rows, a, e, z, U, powers.m2)
            if sums.axis is not None and axis is not None:
                sums.axis.add(rows, axis[tokens][None, :], e, z, U, powers.m2)
        done += len(tokens)
    return sums


def workspace(N: int, d: int, K: int) -> int:
    """Bytes that `accumulate` takes beside its sums, with blocks of K tokens."""
    return K * (18 * N + 12 * d) + _POSITIONS * (24 * K + 4 * N)


def z_block(z: Tensor | None, B: int, done: int, K: int) -> Tensor | None:
    """The part of `Moments.z` for K tokens after the first `done`: B x K."""
    return None if z is None else z[B * done : B * (done + K)].view(B, K)


@dataclass(frozen=True)
class Weighted:
    """b positions and K tokens, b x K each."""

    z: Tensor  # counted from the position's origin
    logits: Tensor  # counted from its reference
    e: Tensor  # exp(logits)
    ez: Tensor
    ezz: Tensor


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


def _weigh(sums: Moments, rows: slice, kind: int, few: Weighted, lengths: Tensor) -> None:
    """Weights of K tokens at b positions, and the sums that take no neuron; `z` and `logits` are given as they are."""
    tier = sums.rare if kind == RARE else sums.common
    z, logits, e, ez, ezz = few.z, few.logits, few.e, few.ez, few.ezz
    low, high = torch.aminmax(z.sub_(sums.origin[rows, None]), dim=1)
    tier.z_range[0, rows] = torch.minimum(tier.z_range[0, rows], low)
    tier.z_range[1, rows] = torch.maximum(tier.z_range[1, rows], high)
    torch.exp(logits.sub_(sums.reference[rows, None]), out=e)
    sums.logit[rows] += vecdot(e, logits)
    sums.row[rows] += e @ lengths
    sums.squares[rows] += vecdot(e, e)
    torch.mul(e, z, out=ez)
    torch.mul(ez, z, out=ezz)
    for k, power in enumerate((e.sum(1), ez.sum(1), ezz.sum(1), vecdot(ezz, z), vecdot(ezz, z * z))):
        tier.z[k, rows] += power


def _add(sums: Moments, rows: slice, kind: int, few: Weighted, U: Tensor, powers: Powers, room: Room) -> None:
    """Add the products of K tokens at b positions with the rows of U (K x d) and with the neurons' powers of m."""
    tier = sums.rare if kind == RARE else sums.common
    e, ez = few.e, few.ez
    tier.u1[rows].addmm_(e, U)
    tier.zu[rows].addmm_(ez, U)
    low_e = e if room.low == e.dtype else room.take("low_e", "positions", e.shape, room.low).copy_(e)
    if powers.low_m4 is None:
        m2 = _product(low_e, powers.low_m2, room)
        tier.m2[rows] += m2
        tier.m4[rows].addcmul_(m2, powers.largest)
    else:
        tier.m2[rows].addmm_(e, powers.m2.T)  # in float32: the second moment is the one that counts
        tier.m4[rows] += _product(low_e, powers.low_m4, room)
        sums.zzu[rows].addmm_(few.ezz, U)
    if kind == TOP:
        tier.m3[rows].addmm_(e, powers.m3.T)
    else:
        tier.m3[rows] += _product(low_e, powers.m3, room)
    low_ez = ez if room.low == ez.dtype else room.take("low_ez", "positions", ez.shape, room.low).copy_(ez)
    sums.zm2[rows] += _product(low_ez, powers.low_m2, room)


def _product(left: Tensor, right: Tensor, room: Room) -> Tensor:
    """left · rightᵀ, b x N; the next product overwrites it."""
    if left.device.type == "cuda" and left.dtype != torch.float32:
        return torch.mm(left, right.T, out_dtype=torch.float32)
    return torch.mm(left, right.T, out=room.take("product", "product", (len(left), len(right)), left.dtype))
