"""The exact path on a processor: every pair's sums over the vocabulary by one compiled pass (`kernel`)."""

import numpy as np
import torch
from torch import Tensor

from rare_tokens.ingest.ablation.formulas.paths import ExactChange
from rare_tokens.ingest.ablation.layer.changes import Pairs
from rare_tokens.ingest.ablation.layer.folded_head import FoldedHead
from rare_tokens.ingest.ablation.layer.unablated import Directions, Positions
from rare_tokens.ingest.ablation.numerics.row_threads import Stripes
from rare_tokens.ingest.ablation.vocabulary.pieces import PieceOfBlock, pieces_of_block

_TOKENS = 512  # at a time: so many of m for some 2,000 neurons stay in a processor's cache
_NEURONS = 2048
_LOG2_E = 1.4426950408889634


def fused_sums(
    folded: FoldedHead,
    positions: Positions,
    w: Tensor,
    pairs: Pairs,
    changes: dict[str, ExactChange],
    directions: Directions | None,
) -> dict[str, Tensor]:
    """The sums of each change (`ExactChange.sums` x P), as `exact.torch_sums`."""
    todo = [_Listed(change, pairs, positions, rare_too=rare) for change in changes.values() for rare in (False, True)]
    block = _Block(folded, positions, w, directions)
    with Stripes(w.device) as stripes:
        for piece in pieces_of_block(folded, positions):
            for start in range(0, len(piece.ids), _TOKENS):
                tokens = slice(start, min(start + _TOKENS, len(piece.ids)))
                block.see(piece, tokens, stripes)
                for listed in todo:
                    if len(listed.t) and (listed.rare_too or not piece.is_rare):
                        block.add(listed, piece, tokens, stripes)
    sums = {name: torch.zeros(change.sums, len(pairs)) for name, change in changes.items()}
    for listed, total in zip(todo, (total for total in sums.values() for _ in (False, True)), strict=True):
        total[:, listed.places] = torch.from_numpy(listed.sums).float()
    return sums


class _Listed:
    """The pairs of a change that need the rare tokens too, or those that do not, in the order of computation."""

    def __init__(self, change: ExactChange, pairs: Pairs, positions: Positions, *, rare_too: bool) -> None:
        self.change, self.rare_too = change, rare_too
        chosen = (pairs.is_in_full == rare_too).nonzero()[:, 0]
        t, i = pairs.t[chosen].numpy(), pairs.i[chosen].numpy()
        # m of few neurons is read at a time, and z of each position once for these
        order = torch.from_numpy(np.lexsort((i, t, i // _NEURONS)))
        self.places = chosen[order]
        t_long = pairs.t[self.places].long()
        self.t, self.i = pairs.t[self.places].numpy(), pairs.i[self.places].numpy()
        u = torch.zeros(3, len(chosen))
        shift = change.target[self.places].clone()
        for f, u_f in enumerate(change.u):
            u[f] = u_f[self.places]
            shift -= u[f] * positions.origin[f, t_long]
        if change.axis is not None:
            u[2] = change.axis[self.places]
        self.u, self.c, self.y = ((value * _LOG2_E).numpy() for value in (u, change.c[self.places], shift))
        self.sums = np.zeros((change.sums, len(chosen)))


class _Block:
    """What the compiled pass reads besides pairs."""

    def __init__(self, folded: FoldedHead, positions: Positions, w: Tensor, directions: Directions | None) -> None:
        self._folded, self._w = folded, w
        self._axis = None if directions is None else directions.axis
        self._base = (positions.log_normaliser - positions.origin[0]).numpy()
        self._entropy = positions.entropy.numpy()
        self._has_mlp = len(positions.rows) > 1
        self._room = w.new_empty(len(w) * _TOKENS)
        self._m = self._room.numpy()

    def see(self, piece: PieceOfBlock, tokens: slice, stripes: Stripes) -> None:
        """Make m of some tokens of a piece."""
        U = piece.U[tokens]
        m = self._room[: len(self._w) * len(U)].view(-1, len(U))
        stripes.map(lambda neurons: torch.mm(self._w[neurons], U.T, out=m[neurons]), stripes.split(len(m), len(m)))
        self._m = m.numpy()

    def add(self, listed: _Listed, piece: PieceOfBlock, tokens: slice, stripes: Stripes) -> None:
        """Add the same tokens to the sums of the pairs."""
        change, ids = listed.change, piece.ids[tokens]
        from rare_tokens.ingest.ablation.vocabulary import kernel  # loads the compiler

        run = kernel.compiled(self._has_mlp, change.axis is not None, change.has_entropy)
        bias = self._folded.bias_of(ids)
        on_tokens = (torch.zeros(len(ids)) if bias is None else bias).numpy()
        axis = (torch.zeros(0) if self._axis is None else self._axis[ids]).numpy()
        z, targets = piece.z.numpy(), (piece.targets - tokens.start).int().numpy()

        def add(few: slice) -> None:
            run(
                z, tokens.start, on_tokens, self._base, self._entropy, targets, self._m, axis,
                listed.t, listed.i, listed.u, listed.c, listed.y, few.start, few.stop, listed.sums,
            )  # fmt: skip

        stripes.map(add, stripes.split(len(listed.t), len(listed.t)))
