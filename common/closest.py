"""The known name that a mistyped one is closest to, for messages."""

from collections.abc import Iterable
from difflib import SequenceMatcher

_ALIKE = 0.6


def closest(given: str, known: Iterable[str], *, starts: bool = False) -> str | None:
    """The known name most like `given`; None if none is like it.

    Args:
        starts: `given` may also be like the start of a name, as runs are named.
    """

    def alike(name: str) -> float:
        ratio = SequenceMatcher(None, given.casefold(), name.casefold()).ratio()
        start = name.casefold()[: len(given)]
        return max(ratio, SequenceMatcher(None, given.casefold(), start).ratio() if starts else 0.0)

    best = max(known, key=alike, default=None)
    return best if best is not None and alike(best) >= _ALIKE else None


def hint(given: str, known: Iterable[str], *, starts: bool = False) -> str:
    """` The closest is NAME.`, or nothing if no name is like `given`: to be put after a message's first sentence."""
    name = closest(given, known, starts=starts)
    return f" The closest is {name}." if name else ""
