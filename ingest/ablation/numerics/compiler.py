"""Loops compiled for this processor when first used, and kept on disk for the next process where there is room.

`kernel` and `kernel64`, which load the compiler, are loaded only when a loop is run.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

# What sums over tokens may do to the order of operations. Infinities stay what they are.
REORDERED = frozenset({"reassoc", "contract", "nsz", "arcp"})


@functools.cache
def is_available() -> bool:
    """Whether loops can be compiled here; where they cannot, torch does the same, more slowly."""
    return importlib.util.find_spec("numba") is not None


def jit(signature: str, fastmath: frozenset[str] = frozenset()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function for arguments of these types (numba's notation), without Python's lock.

    `fastmath` says what may be done to the order of operations.
    """
    import numba

    def compiled(function: Callable[..., None], *, cache: bool) -> Any:
        return numba.njit(signature, nogil=True, error_model="numpy", fastmath=set(fastmath), cache=cache)(function)

    def compile_it(function: Callable[..., None]) -> Callable[..., None]:
        found: Callable[..., None]
        try:
            found = compiled(function, cache=True)
        except (OSError, RuntimeError):  # nowhere to keep it, or no room
            found = compiled(function, cache=False)
        return found

    return compile_it
