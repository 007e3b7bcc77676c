"""What a run takes of the disk: said by a dry run, looked at before anything is written."""

import shutil
from pathlib import Path

from rare_tokens.common.errors import UserError

# Measured (docs/growth.md): activation and effect are 8 bytes, neuron, position and unfilled blocks 0.7, `agg_effect`
# and the other marts the rest; each further effect is a float.
BYTES_A_PAIR_STORED, BYTES_AN_EFFECT = 10.6, 4


def bytes_needed(positions: int, neurons: int, width: int, effects: int) -> int:
    """What a run's parts need at most: captured arrays and the facts' part."""
    return positions * (width + neurons) * 4 + positions * neurons * 4 * (1 + effects)


def bytes_stored(pairs: int, effects: int) -> int:
    """What a published run takes in the warehouse."""
    return int(pairs * (BYTES_A_PAIR_STORED + BYTES_AN_EFFECT * (effects - 1)))


def require_space(
    folder: Path, positions: int, neurons: int, width: int, effects: int, *, twice_captured: bool = False
) -> None:
    """Refuse a run for which the disk of its parts, and of the warehouse beside them, has no room.

    `twice_captured`: workers leave the captured rows on the same disk, from where they are gathered.

    Raises:
        UserError: with what it needs and what is free.
    """
    folder.mkdir(parents=True, exist_ok=True)
    needed = bytes_needed(positions, neurons, width, effects) + bytes_stored(positions * neurons, effects)
    needed += positions * (width + neurons) * 4 * twice_captured
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The run needs about {needed / 1e9:.1f} GB of disk until it is published, and {free / 1e9:.1f} GB are "
            "free. Use fewer --tokens, or put --warehouse on a larger disk."
        )
