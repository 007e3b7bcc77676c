"""The tests of a run in one frame: relation `group_test` (docs/definitions.md, "Tests of significance").

The analyses themselves say which of their statistics are tested (`Analysis.tested`).
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import polars as pl

from rare_tokens.analyses.analysis import ACTIVATIONS, GROUP_KEY, Analysis, Ask, Results, Source, keyed, unkeyed
from rare_tokens.analyses.coordination.of_groups import GROUPED, is_matched
from rare_tokens.analyses.curve.effect_cells import MATCHED, RARE
from rare_tokens.analyses.result_table import table
from rare_tokens.analyses.statistics import GROUP_TEST, group_tests


def group_test(results: Mapping[str, pl.DataFrame], analyses: Iterable[Analysis], level: float = 0.05) -> pl.DataFrame:
    """The primary test of every tested group, for every statistic that an analysis declares.

    Args:
        results: rows by relation, for one run, preset and positions; a relation may be absent.
        analyses: in the order of the tests.
        level: the level that each test, corrected over the groups, must be able to reach.

    Returns:
        `GROUP_TEST`; corrected over the groups for each statistic and setting.
    """
    frames = [
        group_tests(
            results[analysis.name], tested.statistic, analysis=analysis.name, keys=tested.keys,
            interval=tested.interval, level=level,
        )
        for analysis in analyses
        for tested in analysis.tested
        if analysis.name in results
    ]  # fmt: skip
    return pl.concat([table([], GROUP_TEST), *frames])


def over(analyses: Sequence[Analysis]) -> Analysis:
    """The analysis `group_test` over what these analyses store."""
    tested = [analysis for analysis in analyses if analysis.tested]

    def compute(ask: Ask, parameters: Mapping[str, Any], _pool: Executor | None) -> Results:
        parts = [keyed(table([], GROUP_TEST), "", "")]
        for preset in [MATCHED] if is_matched(ask) else parameters["presets"]:
            for positions in parameters["token_groups"]:
                tests = _tests(ask, tested, preset, positions, parameters["level"])
                parts += [keyed(frame, preset, positions) for frame in tests]
        return {"group_test": pl.concat(parts)}

    return Analysis(
        "group_test",
        {"group_test": GROUP_TEST | GROUP_KEY},
        (*(analysis.name for analysis in tested), *GROUPED, ACTIVATIONS, "neuron_weight"),
        compute,
        {"presets": ["es", "nc"], "token_groups": [RARE], "level": 0.05},
    )


def _tests(ask: Ask, analyses: Sequence[Analysis], preset: str, positions: str, level: float) -> list[pl.DataFrame]:
    """The tests for one preset and positions, from what is stored: the primary ones, then those that papers print."""
    found = {analysis.name: unkeyed(ask(Source(analysis.name, preset, positions))) for analysis in analyses}
    found = {name: frame for name, frame in found.items() if len(frame)}
    printed = [
        analysis.printed_tests(ask, preset, positions, found[analysis.name])
        for analysis in analyses
        if analysis.printed_tests is not None and analysis.name in found
    ]
    return [group_test(found, analyses, level), *printed]
