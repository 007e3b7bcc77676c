"""How many tokens must be counted: where the elbow falls and what rests on one or two occurrences, by size of source.

Sources of several sizes are drawn from published counts (independent tokens; a real text of that size, in which words
come in bursts, is rather worse). Run as ``python -m studies.small_sources FILE.npy...``.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIZES = (25_000, 100_000, 500_000, 1_000_000, 5_000_000, 20_000_000)  # tokens
DRAWS = 5


def measured(counts: NDArray[np.int64]) -> dict[str, float]:
    """What a source with these counts gives if its own tokens are the targets; shares between 0 and 1.

    Returns:
        Rank of the elbow, `left_out` (share of the tokens at the elbow), `once` (share of the types that occur once),
        and by preset the share of its rare targets that were counted once or twice (NaN without one). Every token
        counts as a word.
    """
    ordered = np.sort(counts[counts > 0])[::-1]
    values, ties = np.unique(ordered, return_counts=True)
    place = np.searchsorted(values, ordered)
    types = 100 * ((np.cumsum(ties) - ties) / (len(ordered) - 1))[place]
    occurrences = 100 * ((np.cumsum(ties * values) - ties * values) / (ordered.sum() - 1))[place]
    x, y = np.log(np.arange(1, len(ordered) + 1)), np.log(ordered)
    elbow = int(np.abs(y - y[0] - (y[-1] - y[0]) * x / x[-1]).argmax())
    at_elbow = np.abs(types - types[elbow]) <= 1
    rare = {"es": types < 50, "nc": occurrences < 50, "ds": (types < 15) & ~at_elbow}
    found = {"rank": elbow + 1, "left_out": ordered[at_elbow].sum() / ordered.sum(), "once": (ordered == 1).mean()}
    for preset, chosen in rare.items():
        of_all = ordered[chosen].sum()
        found[preset] = float(ordered[chosen & (ordered <= 2)].sum() / of_all) if of_all else np.nan
    return found


def main() -> None:
    """Print a row per source and size: the ranks of the elbow in every draw, and means over the draws."""
    for path in map(Path, sys.argv[1:]):
        counts = np.load(path)
        for size in (size for size in SIZES if size <= counts.sum()):
            draws = [
                measured(np.random.default_rng(seed).multinomial(size, counts / counts.sum())) for seed in range(DRAWS)
            ]
            ranks = sorted({int(draw["rank"]) for draw in draws})
            means = {name: np.nanmean([draw[name] for draw in draws]) for name in draws[0] if name != "rank"}
            shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
            print(f"{path.stem}  {size:>10,} tokens  {shown}  elbow {ranks}")


if __name__ == "__main__":
    main()
