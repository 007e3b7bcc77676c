"""What defines an analysis: what it asks for, what it fills, and which of its statistics are tested.

A module that fills a relation exports its own `ANALYSIS`; `registry` lists them. This module is their common form.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import polars as pl

ACTIVATIONS = "activations"  # not a relation: T × N values and the window of each position
EFFECTS = "effects"  # not a relation: |Δ| of all neurons at all positions, block of neurons after block
GROUP_KEY: dict[str, Any] = {"preset": pl.String, "token_group": pl.String}  # columns of every stored result

Schema = Mapping[str, Any]  # columns of a frame and their Polars types


@dataclass(frozen=True)
class Source:
    """What an analysis asks for about the run that is analysed.

    Attributes:
        relation: a public relation, a macro of a run alone, `ACTIVATIONS` or `EFFECTS`.
        preset: only the rows, or positions, of this preset; None: all of them.
        token_group: likewise.
        columns: only these; empty: all.
        group_names: only the rows of these groups of neurons; empty: of all.
    """

    relation: str
    preset: str | None = None
    token_group: str | None = None
    columns: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()


Ask = Callable[[Source], Any]  # a frame with rows in a fixed order; arrays for what is no relation
Results = dict[str, pl.DataFrame]
Compute = Callable[[Ask, Mapping[str, Any], Executor | None], Results]


@dataclass(frozen=True)
class Tested:
    """A statistic in which tested groups are compared with their random groups (docs/definitions.md, "Tests").

    Attributes:
        statistic: a column of the relation that its analysis is named after.
        keys: the columns that tell the relation's rows apart besides group and draw.
        interval: the columns of the statistic's interval.
    """

    statistic: str
    keys: tuple[str, ...]
    interval: tuple[str, str] | None = None


# Tests that a paper prints besides the primary ones: rows of `group_test` from an `Ask`, a preset, positions (`rare`,
# `common` or `all`) and the rows stored for these.
PrintedTests = Callable[[Ask, str, str, pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Analysis:
    """One step of `analyze`.

    Attributes:
        name: the name it is stored and listed under.
        relations: those it fills, with each one's columns besides the run's.
        reads: the relations it asks for; an analysis that fills one of them runs first.
        compute: the relations of one run, from an `Ask`, the parameters and processes to share work among.
        parameters: given to `compute`, and stored; if they change, it computes anew.
        shares_work: whether it gains from processes.
        tested: statistics of the relation of its name that `group_test` tests.
        printed_tests: what a paper tests in it, in the paper's way.
    """

    name: str
    relations: Mapping[str, Schema]
    reads: tuple[str, ...]
    compute: Compute
    parameters: Mapping[str, Any] = field(default_factory=dict)
    shares_work: bool = False
    tested: tuple[Tested, ...] = ()
    printed_tests: PrintedTests | None = None


@dataclass(frozen=True)
class SetAnalysis:
    """A step of `analyze` over sets of runs: the checkpoints of a series, the references of a measurement.

    It is computed for a set once all its runs with effects have what it reads, and anew if the set or its parameters
    change.

    Attributes:
        name: the name it is stored and listed under, with each of the runs.
        doing: what is shown while it is computed.
        relations: those it fills, with each one's columns, `run_id` among them.
        reads: the relations it asks for, for every run with effects.
        sets: the sets among all runs (rows of `dim_run`), each in order.
        parameters: what the stored rows depend on, from a set.
        compute: the relations of all runs of a set, from an `Ask` by run_id for each with effects, and the set.
    """

    name: str
    doing: str
    relations: Mapping[str, Schema]
    reads: tuple[str, ...]
    sets: Callable[[pl.DataFrame], list[pl.DataFrame]]
    parameters: Callable[[pl.DataFrame], Mapping[str, Any]]
    compute: Callable[[Mapping[str, Ask], pl.DataFrame], Results]


def members(runs: pl.DataFrame) -> list[list[str]]:
    """Which runs (rows of `dim_run`) a set has, and when each was published: a part of a `SetAnalysis`'s parameters."""
    return [list(row) for row in runs.select("run_id", pl.col("published_at").cast(pl.String)).rows()]


def keyed(frame: pl.DataFrame, preset: str, token_group: str) -> pl.DataFrame:
    """The frame with the columns of `GROUP_KEY`, the same in every row."""
    return frame.with_columns(preset=pl.lit(preset), token_group=pl.lit(token_group))


def unkeyed(stored: pl.DataFrame) -> pl.DataFrame:
    """Stored rows of one run, preset and token group, without the columns they share."""
    return stored.drop("run_id", "layer", *GROUP_KEY)
