"""Moments of the unablated prediction, for all positions and neurons at once: the matrix products of SPEC 2.1.

For position t with prediction p_t, and z_t = U x_t / σ0, m_i = U w_i, the change of loss needs sums over the
vocabulary such as Σ_v p_v m_v² for every (t, i). Sums with m to the first power are low rank, (Σ_v p_v z_v^k U_v)·w_i;
the others are products of a B x V and a V x N matrix, built block by block of the vocabulary and never whole.
"""

import functools
import threading
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.ingest.ablation.folded_head import RARE, TOP, FoldedHead
from rare_tokens.ingest.ablation.row_threads import Stripes

_POSITIONS = 2048  # whose z and weights are held at a time, by all threads: long products
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


class Room(threading.local):
    """Memory that every block of the vocabulary uses again: fresh pages cost as much as the arithmetic on them.

    Each thread that asks has its own.
    """

    def __init__(self, b: int, K: int, N: int, device: torch.device) -> None:
        """For at most b positions, K tokens and N neurons."""
        self._pool: dict[str, Tensor] = {}
        self._sizes, self._device = {"tokens": b * K, "neurons": b * N}, device

    def take(self, name: str, size: str, shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor b x K or b x N, as `size` says, whose values are whatever was there."""
        if name not in self._pool:
            self._pool[name] = torch.empty(self._sizes[size], dtype=dtype, device=self._device)
        return self._pool[name][: shape[0] * shape[1]].view(shape)


@dataclass(frozen=True)
class Block:
    """K tokens of one tier."""

    tokens: Tensor  # K
    U: Tensor  # K x d
    lengths: Tensor  # K: ‖U_v‖
    bias: Tensor | None  # K
    kind: int
    first: bool  # of the vocabulary
    z: Tensor | None  # B x K, to be filled in, where z is kept


class Powers:
    """A block of K tokens seen by the N neurons: powers of m, N x K, in the dtype that they are multiplied in."""

    def __init__(self, w: Tensor, rows: int, low: torch.dtype) -> None:
        """Make room for blocks of at most `rows` tokens."""
        self._w = w
        dtypes = {"m2": torch.float32, "m3": torch.float32, "low_m2": low, "low_m3": low, "low_m4": low}
        if low == torch.float32:
            del dtypes["low_m2"], dtypes["low_m3"]  # the same values
        self._room = {name: torch.empty(len(w) * rows, dtype=dtype, device=w.device) for name, dtype in dtypes.items()}
        self.low = low
        self.largest = torch.empty(len(w), device=w.device)  # N: largest m²
        self.range = torch.empty(2, len(w), device=w.device)  # smallest and largest m
        self.m2 = self.m3 = self.low_m2 = self.low_m3 = self.low_m4 = torch.empty(0)

    def see(self, U: Tensor, kind: int, stripes: Stripes) -> None:
        """Compute them for tokens of the tier `kind` whose rows of the unembedding are `U`, K x d.

        Of top tokens there is no `low_m3`, and of rare ones no `low_m4`.
        """
        shape = (len(self._w), len(U))
        views = {name: room[: shape[0] * shape[1]].view(shape) for name, room in self._room.items()}
        self.m2, self.m3, self.low_m4 = views["m2"], views["m3"], views["low_m4"]
        self.low_m2, self.low_m3 = views.get("low_m2", self.m2), views.get("low_m3", self.m3)
        stripes.map(lambda rows: self._see(rows, U, kind), stripes.split(len(self._w), len(self._w)))

    def _see(self, stripe: slice, U: Tensor, kind: int) -> None:
        torch.mm(self._w[stripe], U.T, out=self.m3[stripe])
        for rows in tiles(stripe, U.device):
            m, m2 = self.m3[rows], self.m2[rows]
            torch.aminmax(m, dim=1, out=(self.range[0, rows], self.range[1, rows]))
            torch.amax(torch.mul(m, m, out=m2), 1, out=self.largest[rows])
            m.mul_(m2)
            if self.low != m.dtype:
                self.low_m2[rows].copy_(m2)
                if kind != TOP:
                    self.low_m3[rows].copy_(m)
            if kind != RARE:
                self.low_m4[rows].copy_(m2 * m2)


def tiles(rows: slice, device: torch.device) -> list[slice]:
    """The same rows, on a processor a few at a time."""
    size = _TILE if device.type == "cpu" else rows.stop - rows.start
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


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
    powers = Powers(w, folded.rows, low)
    done, before = 0, TOP
    with Stripes(device) as stripes:
        slices = stripes.split(B, _POSITIONS)
        room = Room(max(rows.stop - rows.start for rows in slices), folded.rows, N, device)
        for tokens, U, kind in folded.blocks():
            if before == TOP != kind:
                top_m2.copy_(common.m2)
                top_m4.copy_(common.m4)
            before = kind
            powers.see(U, kind, stripes)
            tier = rare if kind == RARE else common
            tier.m_range[0] = torch.minimum(tier.m_range[0], powers.range[0])
            tier.m_range[1] = torch.maximum(tier.m_range[1], powers.range[1])
            kept = z_block(sums.z, B, done, len(tokens))
            block = Block(tokens, U, U.norm(dim=1), folded.bias_of(tokens), kind, not done, kept)
            stripes.map(functools.partial(_add, sums, normed, block, powers, axis, room), slices)
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
    low_e: Tensor  # rounded
    low_ez: Tensor

    def __getitem__(self, rows: slice) -> "Weighted":
        """Some of the positions."""
        values = (self.z, self.logits, self.e, self.ez, self.ezz, self.low_e, self.low_ez)
        return Weighted(*(value[rows] for value in values))


def _add(
    sums: Moments, normed: Tensor, block: Block, powers: Powers, axis: Tensor | None, room: Room, rows: slice
) -> None:
    """Add K tokens to the sums of the positions `rows`."""
    shape = (rows.stop - rows.start, len(block.tokens))
    z, logits, e, ez, ezz = (room.take(name, "tokens", shape) for name in ("z", "logits", "e", "ez", "ezz"))
    low_e, low_ez = e, ez
    if powers.low != e.dtype:
        low_e, low_ez = (room.take(name, "tokens", shape, powers.low) for name in ("low_e", "low_ez"))
    weighted = Weighted(z if block.z is None else block.z[rows], logits, e, ez, ezz, low_e, low_ez)
    torch.mm(normed[rows], block.U.T, out=weighted.z)
    for tile in tiles(rows, e.device):
        few = weighted[tile.start - rows.start : tile.stop - rows.start]
        few.logits.copy_(few.z) if block.bias is None else torch.add(few.z, block.bias, out=few.logits)
        if block.first:
            _start(sums, tile, few.z, few.logits)
        _keep_in_range(sums, tile, few.logits)
        _weigh(sums, tile, block, few)
    _multiply(sums, rows, block, weighted, powers, room)
    if sums.surprise is not None:
        a = logits + (sums.reference - sums.log_origin)[rows, None]
        sums.surprise.add(rows, a, e, weighted.z, block.U, powers.m2)
    if sums.axis is not None and axis is not None:
        sums.axis.add(rows, axis[block.tokens][None, :], e, weighted.z, block.U, powers.m2)


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


def _weigh(sums: Moments, rows: slice, block: Block, few: Weighted) -> None:
    """Weights of K tokens at b positions, and the sums that take no neuron; `z` and `logits` are given as they are."""
    tier = sums.rare if block.kind == RARE else sums.common
    z, logits, e, ez, ezz = few.z, few.logits, few.e, few.ez, few.ezz
    low, high = torch.aminmax(z.sub_(sums.origin[rows, None]), dim=1)
    tier.z_range[0, rows] = torch.minimum(tier.z_range[0, rows], low)
    tier.z_range[1, rows] = torch.maximum(tier.z_range[1, rows], high)
    torch.exp(logits.sub_(sums.reference[rows, None]), out=e)
    sums.logit[rows] += vecdot(e, logits)
    sums.row[rows] += e @ block.lengths
    sums.squares[rows] += vecdot(e, e)
    torch.mul(e, z, out=ez)
    torch.mul(ez, z, out=ezz)
    for k, power in enumerate((e.sum(1), ez.sum(1), ezz.sum(1), vecdot(ezz, z), vecdot(ezz, z * z))):
        tier.z[k, rows] += power
    if few.low_e is not e:
        few.low_e.copy_(e)
        few.low_ez.copy_(ez)


def _multiply(sums: Moments, rows: slice, block: Block, weighted: Weighted, powers: Powers, room: Room) -> None:
    """Add the products of K tokens at b positions with the rows of U (K x d) and with the neurons' powers of m."""
    tier = sums.rare if block.kind == RARE else sums.common
    e, low_e, U = weighted.e, weighted.low_e, block.U
    tier.u1[rows].addmm_(e, U)
    tier.zu[rows].addmm_(weighted.ez, U)
    if block.kind == RARE:
        m2 = _product(low_e, powers.low_m2, room)
        tier.m2[rows] += m2
        tier.m4[rows].addcmul_(m2, powers.largest)
    else:
        tier.m2[rows].addmm_(e, powers.m2.T)  # in float32: the second moment is the one that counts
        tier.m4[rows] += _product(low_e, powers.low_m4, room)
        sums.zzu[rows].addmm_(weighted.ezz, U)
    if block.kind == TOP:
        tier.m3[rows].addmm_(e, powers.m3.T)
    else:
        tier.m3[rows] += _product(low_e, powers.low_m3, room)
    sums.zm2[rows] += _product(weighted.low_ez, powers.low_m2, room)


def _product(left: Tensor, right: Tensor, room: Room) -> Tensor:
    """left · rightᵀ, b x N; the next product of the same thread overwrites it."""
    if left.device.type == "cuda" and left.dtype != torch.float32:
        return torch.mm(left, right.T, out_dtype=torch.float32)
    return torch.mm(left, right.T, out=room.take("product", "neurons", (len(left), len(right)), left.dtype))
