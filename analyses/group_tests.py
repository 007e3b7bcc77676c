"""Which statistic of which relation is tested, and the tests of a run in one frame: relation `group_test` (SPEC 11)."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import GROUP_TEST, group_tests


@dataclass(frozen=True)
class Tested:
    """A statistic that tested groups are compared with their random groups in.

    Attributes:
        relation: a result relation.
        statistic: its column.
        keys: the columns that tell its rows apart besides group and draw.
        interval: the columns of the statistic's interval.
    """

    relation: str
    statistic: str
    keys: tuple[str, ...]
    interval: tuple[str, str] | None = None


TESTED = (
    Tested("activation_correlation", "mean_correlation", ("comparison",), ("low", "high")),
    Tested("cosine_similarity", "mean_cosine", ("space", "comparison"), ("low", "high")),
    Tested("effective_dimension", "interpolated_dimension", ("standardised", "threshold")),
    Tested(
        "effective_dimension",
        "participation_percent",
        ("standardised", "threshold"),
        ("participation_percent_low", "participation_percent_high"),
    ),
    Tested("neuron_cluster", "clusters", ("threshold",)),
    Tested("mutual_information", "mean_information", ("estimator", "comparison")),
    Tested("graph_modularity", "modularity", ("method", "communities_asked")),
    Tested(
        "graph_modularity",
        "signed_modularity",
        ("method", "communities_asked"),
        ("signed_modularity_low", "signed_modularity_high"),
    ),
    Tested("weight_spectrum", "alpha", ("matrix", "standardised", "rule"), ("alpha_low", "alpha_high")),
)


def group_test(results: Mapping[str, pl.DataFrame], level: float = 0.05) -> pl.DataFrame:
    """The primary test of every tested group, for every statistic in `TESTED`: relation `group_test`.

    The Mann–Whitney tests that papers print beside them come from `pair_tests.pair_tests` and `graph.run_tests`.

    Args:
        results: name of a relation and its rows, of one run, preset and positions; a relation may be absent.
        level: that each test, and its correction over the groups, must be able to reach.

    Returns:
        `GROUP_TEST`; corrected over the groups for each statistic and setting.
    """
    frames = [
        group_tests(
            results[tested.relation], tested.statistic, analysis=tested.relation, keys=tested.keys,
            interval=tested.interval, level=level,
        )
        for tested in TESTED
        if tested.relation in results
    ]  # fmt: skip
    return pl.concat([table([], GROUP_TEST), *frames])
