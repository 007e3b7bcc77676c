"""What a card's picture of activations needs: how densely rare and common targets lie along them."""

import math
from typing import Any

Row = dict[str, Any]
DECADES = 4  # of density, from the highest downward; what is thinner is not drawn


def densities(bins: list[Row]) -> Row | None:
    """Heights between 0 and 1 of the bins for positions with a rare target, and for all others.

    Each group's density is its share of positions per unit of activation, so that a thousand rare and twenty thousand
    other positions compare. Heights are logarithmic over `DECADES` decades below the highest density: most neurons are
    near 0 nearly everywhere. None without positions.

    Args:
        bins: `neuron_activation` of one neuron, in order: bins of equal width.
    """
    groups = {"rare": [row["rare"] for row in bins], "others": [row["positions"] - row["rare"] for row in bins]}
    shares = {
        name: [count / sum(counts) if sum(counts) else 0.0 for count in counts] for name, counts in groups.items()
    }
    top = max((share for found in shares.values() for share in found), default=0.0)
    if not top:
        return None
    return {
        "low": bins[0]["low"],
        "high": bins[-1]["high"],
        **{name: [_height(share, top) for share in found] for name, found in shares.items()},
        "positions": {name: sum(counts) for name, counts in groups.items()},
        "zero": _share_below_zero(bins),
    }


def _height(share: float, top: float) -> float:
    return max(0.0, 1 + math.log10(share / top) / DECADES) if share else 0.0


def _share_below_zero(bins: list[Row]) -> float | None:
    """Where 0 lies between the ends, as a share of the width; None if it does not."""
    low, high = bins[0]["low"], bins[-1]["high"]
    return -low / (high - low) if low < 0 < high else None
