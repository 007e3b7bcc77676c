"""Sums over the vocabulary under the unablated prediction, for all positions and neurons at once, as matrix products.

For position t with prediction p_t, functions z_f of the token, and m_i = U w_i, the change of loss needs sums over the
vocabulary such as Σ_v p_v m_v² for every (t, i). Sums with m to the first power are low rank, (Σ_v p_v z_v U_v)·w_i;
Σ_v p_v m_v² is the product of a B x V and a V x N matrix, built piece by piece and never whole.

Throughout, `at` is a slice of the B positions, and a *piece* is K tokens of one tier of the vocabulary.
"""

import functools
import threading
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from rare_tokens.ingest.ablation.layer.folded_head import RARE, FoldedHead
from rare_tokens.ingest.ablation.numerics.row_threads import Stripes
from rare_tokens.ingest.ablation.series.sums import AlongSums, Sums, widen

_POSITIONS = 2048  # whose z and weights all threads together hold at a time: long products
_TILE = 256  # of these go through the elementwise steps together, to stay in a processor's cache
_LEAST = -60.0  # nats below the pivot at which a logit counts: subnormal numbers are slow, and these add nothing
_RESCALE = 30.0  # nats a logit may lie above its position's pivot before the weights are rescaled


def accumulate(
    folded: FoldedHead,
    rows: Tensor,
    w: Tensor,
    reduced: torch.dtype,
    *,
    axis: Tensor | None = None,
    log_p: bool = False,
    keep_z: bool = False,
) -> Sums:
    """All sums of B positions and N neurons, in one pass over the vocabulary.

    Args:
        folded: the folded head.
        rows: F x B x d, with z_f = U rows_f; the first, x / σ0, gives the logits.
        w: N x d, the (centred) output rows.
        reduced: dtype of the products that may be rounded (bfloat16, or float32 where that is no faster).
        axis: V; a further function of the token, the last one, the same for all positions.
        log_p: also the sums along the log-probability.
        keep_z: keep all z of `rows`, F x B x V, for the exact path.
    """
    F, B, d = rows.shape
    functions, kept = F + (axis is not None), F * B * folded.vocabulary if keep_z else 0
    sums = Sums.empty(functions, B, len(w), d, rows.device, log_p=log_p, kept=kept)
    squares = Squares(w, folded.piece_size, reduced)
    done = 0
    with Stripes(rows.device) as stripes:
        slices = stripes.split(B, _POSITIONS)
        longest = max(at.stop - at.start for at in slices)
        scratch = Scratch(longest, folded.piece_size, len(w), rows.device)
        for ids, U, tier in folded.pieces():
            squares.see(U, tier, stripes)
            widen(sums.of_tier(tier).m_range, *squares.range)
            on_axis = None if axis is None else axis[ids]
            z = z_of_piece(sums.kept_z, F, B, done, len(ids))
            piece = Piece(U, U.norm(dim=1), folded.bias_of(ids), on_axis, tier, not done, z)
            stripes.map(functools.partial(_add, sums, rows, piece, squares, scratch), slices)
            done += len(ids)
    return sums


def workspace(F: int, N: int, d: int, K: int) -> int:
    """Bytes that `accumulate` takes besides its sums, with pieces of K tokens and F functions."""
    return K * (6 * N + 12 * d) + _POSITIONS * ((12 + 8 * F) * K + 4 * N)


def z_of_piece(z: Tensor | None, F: int, B: int, done: int, K: int) -> Tensor | None:
    """The part of `Sums.kept_z` for the K tokens after the first `done`: F x B x K."""
    return None if z is None else z[F * B * done : F * B * (done + K)].view(F, B, K)


@dataclass(frozen=True)
class Piece:
    """K tokens of one tier."""

    U: Tensor  # K x d
    lengths: Tensor  # K: ‖U_v‖
    bias: Tensor | None  # K
    axis: Tensor | None  # K, where the axis is one of the functions
    tier: int
    first: bool  # of the vocabulary
    z: Tensor | None  # F x B x K, to be filled in, where z is kept


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


class Squares:
    """m² of N neurons and a piece of K tokens, N x K, in the dtype in which it is multiplied, and m's extremes."""

    def __init__(self, w: Tensor, most: int, reduced: torch.dtype) -> None:
        """Make room for pieces of at most `most` tokens."""
        self._w, self.reduced = w, reduced
        self._room = torch.empty(len(w) * most, device=w.device)
        self._reduced_room = None if reduced == torch.float32 else torch.empty_like(self._room, dtype=reduced)
        self.range = torch.empty(2, len(w), device=w.device)  # smallest and largest m
        self.m2 = self.float32_m2 = torch.empty(0)

    def see(self, U: Tensor, tier: int, stripes: Stripes) -> None:
        """Compute them for tokens of a tier whose rows of the unembedding are `U`, K x d; rare ones' are rounded."""
        shape = (len(self._w), len(U))
        m2 = self._room[: shape[0] * shape[1]].view(shape)
        rounded = None
        if tier == RARE and self._reduced_room is not None:
            rounded = self._reduced_room[: shape[0] * shape[1]].view(shape)
        self.m2, self.float32_m2 = m2 if rounded is None else rounded, m2

        def see(stripe: slice) -> None:
            torch.mm(self._w[stripe], U.T, out=m2[stripe])
            for neurons in tiles(stripe, U.device):
                m = m2[neurons]
                torch.aminmax(m, dim=1, out=(self.range[0, neurons], self.range[1, neurons]))
                m.mul_(m)
                if rounded is not None:
                    rounded[neurons].copy_(m)

        stripes.map(see, stripes.split(len(self._w), len(self._w)))


def tiles(stripe: slice, device: torch.device) -> list[slice]:
    """Split a slice of positions (or neurons) into small ones on a processor; leave it whole elsewhere."""
    size = _TILE if device.type == "cpu" else stripe.stop - stripe.start
    return [slice(start, min(start + size, stripe.stop)) for start in range(stripe.start, stripe.stop, size)]


@dataclass(frozen=True)
class Weighted:
    """K tokens weighted at b positions, b x K each."""

    z: list[Tensor]  # F of them, counted from the position's origin
    logits: Tensor  # counted from its pivot
    e: Tensor  # exp(logits)
    ez: list[Tensor]

    def __getitem__(self, at: slice) -> "Weighted":
        """Some of the positions."""
        return Weighted([z[at] for z in self.z], self.logits[at], self.e[at], [ez[at] for ez in self.ez])


def _add(sums: Sums, rows: Tensor, piece: Piece, squares: Squares, scratch: Scratch, at: slice) -> None:
    """Add K tokens to the sums of the positions `at`."""
    shape = (at.stop - at.start, len(piece.U))
    F, functions = len(rows), len(sums.origin)
    logits, e = (scratch.take(name, "tokens", shape) for name in ("logits", "e"))
    kept = [] if piece.z is None else list(piece.z[:, at])
    z = kept + [scratch.take(f"z{f}", "tokens", shape) for f in range(len(kept), functions)]
    weighted = Weighted(z, logits, e, [scratch.take(f"ez{f}", "tokens", shape) for f in range(functions)])
    for f in range(F):
        torch.mm(rows[f, at], piece.U.T, out=z[f])
    for tile in tiles(at, e.device):
        few = weighted[tile.start - at.start : tile.stop - at.start]
        if piece.axis is not None:
            few.z[F].copy_(piece.axis.expand_as(few.z[F]))
        few.logits.copy_(few.z[0]) if piece.bias is None else torch.add(few.z[0], piece.bias, out=few.logits)
        if piece.first:
            _start(sums, tile, few)
        _keep_in_range(sums, tile, few.logits)
        _weigh(sums, tile, piece, few)
    _multiply(sums, at, piece, weighted, squares, scratch)
    if sums.along_log_p is not None:
        a = logits + (sums.pivot - sums.log_p_origin)[at, None]
        _add_along(sums.along_log_p, at, a, weighted, piece.U, squares.float32_m2)


def _start(sums: Sums, at: slice, few: Weighted) -> None:
    """Choose what the positions' z and logits are counted from, on the first piece of the vocabulary."""
    p = few.logits.softmax(1)
    for f, z in enumerate(few.z):
        sums.origin[f, at] = vecdot(p, z)
    sums.log_p_origin[at] = vecdot(p, few.logits)
    sums.pivot[at] = few.logits.amax(1)


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
    of_tier, e = sums.of_tier(piece.tier), few.e
    torch.exp(few.logits.sub_(sums.pivot[at, None]).clamp_(min=_LEAST), out=e)
    sums.logit[at] += vecdot(e, few.logits)
    sums.length[at] += e @ piece.lengths
    sums.squares[at] += vecdot(e, e)
    of_tier.mass[at] += e.sum(1)
    for f, (z, ez) in enumerate(zip(few.z, few.ez, strict=True)):
        widen(of_tier.z_range[:, f, at], *torch.aminmax(z.sub_(sums.origin[f, at, None]), dim=1))
        torch.mul(e, z, out=ez)
        of_tier.z[f, at] += ez.sum(1)
        for g in range(f + 1):
            of_tier.zz[f, g, at] += vecdot(ez, few.z[g])
            of_tier.zz[g, f, at] = of_tier.zz[f, g, at]


def _multiply(sums: Sums, at: slice, piece: Piece, weighted: Weighted, squares: Squares, scratch: Scratch) -> None:
    """Add the products of K tokens at b positions with the rows of U (K x d) and with the neurons' m²."""
    of_tier = sums.of_tier(piece.tier)
    of_tier.row[at].addmm_(weighted.e, piece.U)
    for f, ez in enumerate(weighted.ez):
        of_tier.z_row[f, at].addmm_(ez, piece.U)
    if squares.m2.dtype == torch.float32:
        of_tier.m2[at].addmm_(weighted.e, squares.m2.T)
    else:
        of_tier.m2[at] += _reduced_product(weighted.e, squares.m2, scratch)


def _reduced_product(e: Tensor, m2: Tensor, scratch: Scratch) -> Tensor:
    """e · m2ᵀ, b x N, with e rounded to the dtype of m2; the next product of the same thread overwrites it."""
    rounded = scratch.take("reduced_e", "tokens", (len(e), e.shape[1]), m2.dtype).copy_(e)
    if e.device.type == "cuda":
        return torch.mm(rounded, m2.T, out_dtype=torch.float32)
    return torch.mm(rounded, m2.T, out=scratch.take("product", "neurons", (len(e), len(m2)), m2.dtype))


def _add_along(along: AlongSums, at: slice, a: Tensor, weighted: Weighted, U: Tensor, m2: Tensor) -> None:
    """Add K tokens at b positions to the sums along a, b x K; U is K x d, m2 N x K."""
    ea = weighted.e * a
    along.a[at] += ea.sum(1)
    along.aa[at] += vecdot(ea, a)
    along.row[at].addmm_(ea, U)
    along.m2[at].addmm_(ea, m2.T)
    for f, z in enumerate(weighted.z):
        eaz = ea * z
        along.az[f, at] += eaz.sum(1)
        along.z_row[f, at].addmm_(eaz, U)
        for g in range(f + 1):
            along.azz[f, g, at] += vecdot(eaz, weighted.z[g])
            along.azz[g, f, at] = along.azz[f, g, at]
    widen(along.range[:, at], a.amin(1), a.amax(1))
