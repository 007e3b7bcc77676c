"""Sums over the vocabulary under the unablated prediction, for all positions and neurons at once, as matrix products.

For position t with prediction p_t, and z_t = U x_t / σ0, m_i = U w_i, the change of loss needs sums over the
vocabulary such as Σ_v p_v m_v² for every (t, i). Sums with m to the first power are low rank, (Σ_v p_v z_v^k U_v)·w_i;
the others are products of a B x V and a V x N matrix, built piece by piece and never whole.

Throughout, `at` is a slice of the B positions, and a *piece* is K tokens of one tier of the vocabulary.
"""

import functools
import threading
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.ingest.ablation.folded_head import RARE, TOP, FoldedHead
from rare_tokens.ingest.ablation.row_threads import Stripes
from rare_tokens.ingest.ablation.sums import AlongSums, Sums

_POSITIONS = 2048  # whose z and weights all threads together hold at a time: long products
_TILE = 256  # of these go through the elementwise steps together, to stay in a processor's cache
_RESCALE = 30.0  # nats a logit may lie above its position's pivot before the weights are rescaled


def accumulate(
    folded: FoldedHead,
    normed: Tensor,
    w: Tensor,
    reduced: torch.dtype,
    *,
    log_p: bool = False,
    axis: Tensor | None = None,
    keep_z: bool = False,
) -> Sums:
    """All sums of B positions and N neurons, in one pass over the vocabulary.

    Args:
        folded: the folded head.
        normed: B x d, x / σ0.
        w: N x d, the (centred) output rows.
        reduced: dtype of the products that may be rounded (bfloat16, or float32 where that is no faster).
        log_p: also the sums along the log-probability.
        axis: V; also those along this axis.
        keep_z: keep all z, B x V, for the exact path.
    """
    B, (N, d), device = len(normed), w.shape, normed.device
    kept = folded.vocabulary if keep_z else 0
    sums = Sums.empty(B, N, d, device, log_p=log_p, axis=axis is not None, kept=kept)
    powers = Powers(w, folded.piece_size, reduced)
    done, before = 0, TOP
    with Stripes(device) as stripes:
        slices = stripes.split(B, _POSITIONS)
        longest = max(at.stop - at.start for at in slices)
        scratch = Scratch(longest, folded.piece_size, N, device)
        for ids, U, tier in folded.pieces():
            if before == TOP != tier:
                sums.top_m2.copy_(sums.common.m2)
                sums.top_m4.copy_(sums.common.m4)
            before = tier
            powers.see(U, tier, stripes)
            of_tier = sums.of_tier(tier)
            of_tier.m_range[0] = torch.minimum(of_tier.m_range[0], powers.range[0])
            of_tier.m_range[1] = torch.maximum(of_tier.m_range[1], powers.range[1])
            z = z_of_piece(sums.kept_z, B, done, len(ids))
            piece = Piece(ids, U, U.norm(dim=1), folded.bias_of(ids), tier, not done, z)
            stripes.map(functools.partial(_add, sums, normed, piece, powers, axis, scratch), slices)
            done += len(ids)
    return sums


def workspace(N: int, d: int, K: int) -> int:
    """Bytes that `accumulate` takes besides its sums, with pieces of K tokens."""
    return K * (18 * N + 12 * d) + _POSITIONS * (24 * K + 4 * N)


def z_of_piece(z: Tensor | None, B: int, done: int, K: int) -> Tensor | None:
    """The part of `Sums.kept_z` for the K tokens after the first `done`: B x K."""
    return None if z is None else z[B * done : B * (done + K)].view(B, K)


@dataclass(frozen=True)
class Piece:
    """K tokens of one tier."""

    ids: Tensor  # K
    U: Tensor  # K x d
    lengths: Tensor  # K: ‖U_v‖
    bias: Tensor | None  # K
    tier: int
    first: bool  # of the vocabulary
    z: Tensor | None  # B x K, to be filled in, where z is kept


class Scratch(threading.local):
    """Memory reused for every piece of the vocabulary: fresh pages cost as much as the arithmetic on them.

    Each thread has its own.
    """

    def __init__(self, b: int, K: int, N: int, device: torch.device) -> None:
        """Allow for at most b positions, K tokens and N neurons."""
        self._pool: dict[str, Tensor] = {}
        self._sizes, self._device = {"tokens": b * K, "neurons": b * N}, device

    def take(self, name: str, per: str, shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor b x K or b x N, as `per` says, whose values are whatever was there."""
        if name not in self._pool:
            self._pool[name] = torch.empty(self._sizes[per], dtype=dtype, device=self._device)
        return self._pool[name][: shape[0] * shape[1]].view(shape)


class Powers:
    """Powers of m for N neurons and a piece of K tokens, N x K, in the dtypes in which they are multiplied."""

    def __init__(self, w: Tensor, most: int, reduced: torch.dtype) -> None:
        """Make room for pieces of at most `most` tokens."""
        self._w = w
        dtypes = {
            "m2": torch.float32, "m3": torch.float32, "reduced_m2": reduced, "reduced_m3": reduced,
            "reduced_m4": reduced,
        }  # fmt: skip
        if reduced == torch.float32:
            del dtypes["reduced_m2"], dtypes["reduced_m3"]  # the same values
        self._room = {name: torch.empty(len(w) * most, dtype=dtype, device=w.device) for name, dtype in dtypes.items()}
        self.reduced = reduced
        self.largest_m2 = torch.empty(len(w), device=w.device)  # N
        self.range = torch.empty(2, len(w), device=w.device)  # smallest and largest m
        self.m2 = self.m3 = self.reduced_m2 = self.reduced_m3 = self.reduced_m4 = torch.empty(0)

    def see(self, U: Tensor, tier: int, stripes: Stripes) -> None:
        """Compute them for tokens of a tier whose rows of the unembedding are `U`, K x d.

        Top tokens get no `reduced_m3`, and rare ones no `reduced_m4`.
        """
        shape = (len(self._w), len(U))
        views = {name: room[: shape[0] * shape[1]].view(shape) for name, room in self._room.items()}
        self.m2, self.m3, self.reduced_m4 = views["m2"], views["m3"], views["reduced_m4"]
        self.reduced_m2, self.reduced_m3 = views.get("reduced_m2", self.m2), views.get("reduced_m3", self.m3)
        stripes.map(lambda neurons: self._see(neurons, U, tier), stripes.split(len(self._w), len(self._w)))

    def _see(self, stripe: slice, U: Tensor, tier: int) -> None:
        torch.mm(self._w[stripe], U.T, out=self.m3[stripe])
        for neurons in tiles(stripe, U.device):
            m, m2 = self.m3[neurons], self.m2[neurons]
            torch.aminmax(m, dim=1, out=(self.range[0, neurons], self.range[1, neurons]))
            torch.amax(torch.mul(m, m, out=m2), 1, out=self.largest_m2[neurons])
            m.mul_(m2)
            if self.reduced != m.dtype:
                self.reduced_m2[neurons].copy_(m2)
                if tier != TOP:
                    self.reduced_m3[neurons].copy_(m)
            if tier != RARE:
                self.reduced_m4[neurons].copy_(m2 * m2)


def tiles(stripe: slice, device: torch.device) -> list[slice]:
    """Split a slice of positions (or neurons) into small ones on a processor; leave it whole elsewhere."""
    size = _TILE if device.type == "cpu" else stripe.stop - stripe.start
    return [slice(start, min(start + size, stripe.stop)) for start in range(stripe.start, stripe.stop, size)]


@dataclass(frozen=True)
class Weighted:
    """K tokens weighted at b positions, b x K each."""

    z: Tensor  # counted from the position's origin
    logits: Tensor  # counted from its pivot
    e: Tensor  # exp(logits)
    ez: Tensor
    ezz: Tensor
    reduced_e: Tensor  # rounded
    reduced_ez: Tensor

    def __getitem__(self, at: slice) -> "Weighted":
        """Some of the positions."""
        values = (self.z, self.logits, self.e, self.ez, self.ezz, self.reduced_e, self.reduced_ez)
        return Weighted(*(value[at] for value in values))


def _add(
    sums: Sums, normed: Tensor, piece: Piece, powers: Powers, axis: Tensor | None, scratch: Scratch, at: slice
) -> None:
    """Add K tokens to the sums of the positions `at`."""
    shape = (at.stop - at.start, len(piece.ids))
    z, logits, e, ez, ezz = (scratch.take(name, "tokens", shape) for name in ("z", "logits", "e", "ez", "ezz"))
    reduced_e, reduced_ez = e, ez
    if powers.reduced != e.dtype:
        reduced_e, reduced_ez = (
            scratch.take(name, "tokens", shape, powers.reduced) for name in ("reduced_e", "reduced_ez")
        )
    weighted = Weighted(z if piece.z is None else piece.z[at], logits, e, ez, ezz, reduced_e, reduced_ez)
    torch.mm(normed[at], piece.U.T, out=weighted.z)
    for tile in tiles(at, e.device):
        few = weighted[tile.start - at.start : tile.stop - at.start]
        few.logits.copy_(few.z) if piece.bias is None else torch.add(few.z, piece.bias, out=few.logits)
        if piece.first:
            _start(sums, tile, few.z, few.logits)
        _keep_in_range(sums, tile, few.logits)
        _weigh(sums, tile, piece, few)
    _multiply(sums, at, piece, weighted, powers, scratch)
    if sums.along_log_p is not None:
        a = logits + (sums.pivot - sums.log_p_origin)[at, None]
        _add_along(sums.along_log_p, at, a, weighted, piece.U, powers.m2)
    if sums.along_axis is not None and axis is not None:
        _add_along(sums.along_axis, at, axis[piece.ids][None, :], weighted, piece.U, powers.m2)


def _start(sums: Sums, at: slice, z: Tensor, logits: Tensor) -> None:
    """Choose what the positions' z and logits are counted from, on the first piece of the vocabulary."""
    p = logits.softmax(1)
    sums.origin[at] = vecdot(p, z)
    sums.log_p_origin[at] = vecdot(p, logits)
    sums.pivot[at] = logits.amax(1)


def _keep_in_range(sums: Sums, at: slice, logits: Tensor) -> None:
    """Move the pivot up where a logit lies far above it, and all sums with it."""
    above = logits.amax(1) - sums.pivot[at]
    if bool((above > _RESCALE).any()):
        up = torch.where(above > _RESCALE, above, 0.0)
        sums.rescale(at, (-up).exp())
        sums.logit[at] -= up * sums.weight[at]
        sums.pivot[at] += up


def _weigh(sums: Sums, at: slice, piece: Piece, few: Weighted) -> None:
    """Weigh K tokens at b positions, and add to the sums without neurons; `z` and `logits` come in as they are."""
    of_tier = sums.of_tier(piece.tier)
    z, logits, e, ez, ezz = few.z, few.logits, few.e, few.ez, few.ezz
    smallest, largest = torch.aminmax(z.sub_(sums.origin[at, None]), dim=1)
    of_tier.z_range[0, at] = torch.minimum(of_tier.z_range[0, at], smallest)
    of_tier.z_range[1, at] = torch.maximum(of_tier.z_range[1, at], largest)
    torch.exp(logits.sub_(sums.pivot[at, None]), out=e)
    sums.logit[at] += vecdot(e, logits)
    sums.length[at] += e @ piece.lengths
    sums.squares[at] += vecdot(e, e)
    torch.mul(e, z, out=ez)
    torch.mul(ez, z, out=ezz)
    for k, total in enumerate((e.sum(1), ez.sum(1), ezz.sum(1), vecdot(ezz, z), vecdot(ezz, z * z))):
        of_tier.z_powers[k, at] += total
    if few.reduced_e is not e:
        few.reduced_e.copy_(e)
        few.reduced_ez.copy_(ez)


def _multiply(sums: Sums, at: slice, piece: Piece, weighted: Weighted, powers: Powers, scratch: Scratch) -> None:
    """Add the products of K tokens at b positions with the rows of U (K x d) and with the neurons' powers of m."""
    of_tier = sums.of_tier(piece.tier)
    e, reduced_e, U = weighted.e, weighted.reduced_e, piece.U
    of_tier.row[at].addmm_(e, U)
    of_tier.z_row[at].addmm_(weighted.ez, U)
    if piece.tier == RARE:
        m2 = _product(reduced_e, powers.reduced_m2, scratch)
        of_tier.m2[at] += m2
        of_tier.m4[at].addcmul_(m2, powers.largest_m2)
    else:
        of_tier.m2[at].addmm_(e, powers.m2.T)  # in float32: the second moment is the one that counts
        of_tier.m4[at] += _product(reduced_e, powers.reduced_m4, scratch)
        sums.zz_row[at].addmm_(weighted.ezz, U)
    if piece.tier == TOP:
        of_tier.m3[at].addmm_(e, powers.m3.T)
    else:
        of_tier.m3[at] += _product(reduced_e, powers.reduced_m3, scratch)
    sums.zm2[at] += _product(weighted.reduced_ez, powers.reduced_m2, scratch)


def _product(left: Tensor, right: Tensor, scratch: Scratch) -> Tensor:
    """left · rightᵀ, b x N; the next product of the same thread overwrites it."""
    if left.device.type == "cuda" and left.dtype != torch.float32:
        return torch.mm(left, right.T, out_dtype=torch.float32)
    return torch.mm(left, right.T, out=scratch.take("product", "neurons", (len(left), len(right)), left.dtype))


def _add_along(along: AlongSums, at: slice, a: Tensor, weighted: Weighted, U: Tensor, m2: Tensor) -> None:
    """Add K tokens at b positions to the sums along a: b x K (or 1 x K); U is K x d, m2 N x K."""
    e, z = weighted.e, weighted.z
    ea = e * a
    eaa = ea * a
    eaz = ea * z
    for k, (left, right) in enumerate(((ea, None), (eaz, None), (eaz, z), (eaa, None), (eaa, z), (eaa, a))):
        along.scalar[k, at] += left.sum(1) if right is None else (left * right).sum(1)
    along.scalar[6, at] += eaa.mul(a).mul_(a).sum(1)
    along.row[at].addmm_(ea, U)
    along.z_row[at].addmm_(eaz, U)
    along.a_row[at].addmm_(eaa, U)
    along.m2[at].addmm_(ea, m2.T)
    along.range[0, at] = torch.minimum(along.range[0, at], a.amin(1))
    along.range[1, at] = torch.maximum(along.range[1, at], a.amax(1))
