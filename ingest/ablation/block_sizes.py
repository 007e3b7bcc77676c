"""How large the blocks of positions and the pieces of the vocabulary are, and what memory they take."""

from dataclasses import dataclass

from rare_tokens.ingest.ablation.formulas.effects import needs_axis, needs_log_p
from rare_tokens.ingest.ablation.series.moments import workspace

CHUNK = 64  # positions whose series are summed at a time
EXACT_PAIRS = 1 << 20  # pairs left over by the series that are computed over the whole vocabulary at a time
_PAIR = 160  # bytes per such pair
MOST_POSITIONS = 8192  # in a block
MEMORY = 2 << 30  # bytes that a block may take besides its inputs and results


def piece_size(V: int, d: int, N: int) -> int:
    """Tokens per piece of the vocabulary. The shape alone fixes it, so sums do not depend on the memory."""
    return max(128, min(V, 2048, (1 << 29) // (16 * N + 12 * d)))


@dataclass(frozen=True)
class BlockBytes:
    """Bytes that a block of positions takes: `fixed`, `each` per position, and `z` per position where z is kept."""

    neurons: int
    fixed: int
    each: int
    z: int

    @staticmethod
    def of(N: int, d: int, V: int, K: int, effects: tuple[str, ...], functions: int = 1) -> "BlockBytes":
        """Where a piece of the vocabulary has K tokens, and `functions` of the token belong to a position."""
        F = functions + needs_axis(effects)
        sums = 2 * (N + (1 + F) * d) + (N + (1 + F) * d) * needs_log_p(effects)
        each = 4 * (sums + len(effects) * N + 3 * functions * d + functions * K)
        pairs = EXACT_PAIRS + CHUNK * N
        fixed = workspace(F, N, d, K) + 4 * CHUNK * 40 * N + _PAIR * pairs
        return BlockBytes(N, fixed, each, 4 * V * functions)

    def preferred_positions(self, positions: int, memory: int = MEMORY) -> int:
        """How many of `positions` positions to take at a time: as many as the memory allows.

        W Uᵀ is built for every block, so larger blocks cost less per position. Smaller ones may leave room to keep z,
        which then is not built again for the pairs over the whole vocabulary. In units of z's products, W Uᵀ costs N
        per block, twice.
        """
        bare, keeping = (
            max(CHUNK, min(positions, MOST_POSITIONS, (memory - self.fixed) // size))
            for size in (self.each, self.each + self.z)
        )
        fitting = keeping if 2 * self.neurons * (1 / keeping - 1 / bare) < 1 else bare
        return -(-positions // -(-positions // fitting))

    def keeps_z(self, positions: int, memory: int = MEMORY) -> bool:
        """Whether a block of so many positions leaves room for all of its z."""
        return self.fixed + positions * (self.each + self.z) <= memory
