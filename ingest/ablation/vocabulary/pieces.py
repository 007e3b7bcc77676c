"""The vocabulary piece by piece, with the functions of the token at the positions of a block."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rare_tokens.ingest.ablation.layer.folded_head import RARE, FoldedHead
from rare_tokens.ingest.ablation.layer.unablated import Positions
from rare_tokens.ingest.ablation.series.moments import z_of_piece


@dataclass(frozen=True)
class PieceOfBlock:
    """K tokens at B positions."""

    ids: Tensor  # K
    U: Tensor  # K x d
    is_rare: bool
    targets: Tensor  # B: the targets' places among the K tokens, where they are there; else below 0, or K or more
    z: Tensor  # F x B x K, counted from the positions' origin; overwritten by the next piece unless it is kept


def pieces_of_block(folded: FoldedHead, positions: Positions) -> Iterator[PieceOfBlock]:
    """All pieces in order. z comes from the first pass where that kept it; else it is made again."""
    F, B, _ = positions.rows.shape
    done, room = 0, None
    places = torch.empty_like(folded.order)
    places[folded.order] = torch.arange(len(places), device=places.device)
    targets = places[positions.targets]
    for ids, U, tier in folded.pieces():
        z = z_of_piece(positions.kept_z, F, B, done, len(ids))
        if z is None:
            room = U.new_empty(F * B * folded.piece_size) if room is None else room
            z = room[: F * B * len(ids)].view(F, B, len(ids))
            for f, rows in enumerate(positions.rows):
                torch.mm(rows, U.T, out=z[f]).sub_(positions.origin[f, :, None])
        yield PieceOfBlock(ids, U, tier == RARE, targets - done, z)
        done += len(ids)
