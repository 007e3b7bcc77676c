"""The line between rare and common tokens, in words: what it parts, and what crosses it when it is moved."""

from dataclasses import dataclass
from math import floor
from typing import Any

import polars as pl

LINE: dict[str, Any] = {
    "place": pl.Float64,  # percentile of the token types, by types or by occurrences
    "count": pl.UInt64,  # how often each of them was counted
    "token_group": pl.String,  # rare, common; NULL: neither
    "types": pl.Int64,
    "positions": pl.Int64,  # of the run, where one of these types is to be predicted
}


@dataclass(frozen=True)
class Tokens:
    """Some token types.

    Attributes:
        fewest: smallest count among them; None if there are none.
        most: largest count among them; None if there are none.
        positions: positions of the run where one of them is to be predicted.
    """

    types: int
    positions: int
    fewest: int | None
    most: int | None

    def counted(self) -> str:
        """How often they were counted, in words."""
        if self.most is None:
            return "not counted"
        if self.most == self.fewest:
            return "counted once" if self.most == 1 else f"counted {self.most:,} times"
        return f"counted {self.fewest:,} to {self.most:,} times"

    def __str__(self) -> str:
        """How many they are, and at how many positions."""
        types = "1 type" if self.types == 1 else f"{self.types:,} types"
        return f"{types} at {self.positions:,} position{'' if self.positions == 1 else 's'}"


@dataclass(frozen=True)
class Line:
    """A line at a percentile; tokens with the same count share one percentile, so many percentiles draw the same line.

    Attributes:
        below: the types below the line with the largest count: those next to it.
        above: the types above the line with the smallest count.
        first: smallest whole percentile that draws this line.
        last: largest whole percentile that draws it.
        down: what no longer lies below the line at `first` − 1; None: no percentile of at least 1 is lower.
        up: what lies below the line too at `last` + 1; None: no percentile of at most 99 is higher.
    """

    percentile: int
    groups: dict[str, Tokens]
    below: Tokens
    above: Tokens
    first: int
    last: int
    down: Tokens | None
    up: Tokens | None

    def in_words(self) -> str:
        """What the line parts and what would cross it, as Markdown."""
        rare, common, neither = (self.groups[name] for name in ("rare", "common", "neither"))
        if not self.below.types and not self.above.types:
            parts = "No token has a count."
        elif not self.below.types:
            parts = f"No token type lies below it; the rarest are {self.above.counted()}."
        elif not self.above.types:
            parts = f"No token type lies above it; the most frequent are {self.below.counted()}."
        else:
            parts = f"It parts tokens {self.below.counted()} from those {self.above.counted()}."
        same = "" if self.first == self.last else f" Each percentile from {self.first} to {self.last} draws this line."
        left = f"; in neither group: {neither}" if neither.types else ""
        moved = []
        if self.down is not None:
            moved.append(f"at {self.first - 1}, {self.down} ({self.down.counted()}) no longer lie below it")
        if self.up is not None:
            moved.append(f"at {self.last + 1}, {self.up} ({self.up.counted()}) lie below it too")
        would = "; ".join(moved)
        return (
            f"{parts}{same} **Rare:** {rare}. **Common:** {common}{left}."
            f"{' Moved further: ' + would + '.' if would else ''}"
        )


def line_at(steps: pl.DataFrame, percentile: int) -> Line:
    """The line at a percentile.

    Args:
        steps: `LINE`: the token types by percentile, count and group at this line.
        percentile: from 1 to 99.
    """
    place = pl.col("place")
    below, above = steps.filter(place < percentile), steps.filter(place >= percentile)
    highest, lowest = _number(below["place"].max()), _number(above["place"].min())
    # A token is rare if its place is < the percentile: from just above the place below to the place above.
    first = 1 if highest is None else floor(highest) + 1
    last = 99 if lowest is None else min(99, floor(lowest))
    return Line(
        percentile=percentile,
        groups={
            name: _tokens(steps.filter(pl.col("token_group").fill_null("neither") == name))
            for name in ("rare", "common", "neither")
        },
        below=_tokens(below.filter(place == (0.0 if highest is None else highest))),
        above=_tokens(above.filter(place == (0.0 if lowest is None else lowest))),
        first=first,
        last=last,
        down=_tokens(below.filter(place >= first - 1)) if first > 1 else None,
        up=_tokens(above.filter(place < last + 1)) if last < 99 and lowest is not None else None,
    )


def _tokens(steps: pl.DataFrame) -> Tokens:
    fewest, most = _number(steps["count"].min()), _number(steps["count"].max())
    return Tokens(
        types=int(steps["types"].sum()),
        positions=int(steps["positions"].sum()),
        fewest=None if fewest is None else int(fewest),
        most=None if most is None else int(most),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
