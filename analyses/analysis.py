"""What an analysis is: what it asks for, and what it fills."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import polars as pl

ACTIVATIONS = "activations"  # not a relation: T × N values and the window of each position


@dataclass(frozen=True)
class Source:
    """What an analysis asks for, of the run that is analysed.

    Attributes:
        relation: a public relation, or `ACTIVATIONS`.
        preset: only the rows, or positions, of this preset; None: all of them.
        token_group: likewise.
        columns: only these; none: all.
    """

    relation: str
    preset: str | None = None
    token_group: str | None = None
    columns: tuple[str, ...] = ()


Ask = Callable[[Source], Any]  # a frame, its rows in an order that repeats; for ACTIVATIONS the arrays (T, N) and (T,)
Results = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Analysis:
    """One step of `analyze`.

    Attributes:
        name: what it is stored and listed under.
        relations: those it fills.
        reads: the relations it asks for; where one of them is filled by another analysis, that comes first.
        compute: from an `Ask`, the parameters and processes to share work among, the relations of one run.
        parameters: given to `compute`, and stored: other ones make it compute anew.
        shares_work: whether it gains from processes.
    """

    name: str
    relations: tuple[str, ...]
    reads: tuple[str, ...]
    compute: Callable[[Ask, Mapping[str, Any], Executor | None], Results]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    shares_work: bool = False
