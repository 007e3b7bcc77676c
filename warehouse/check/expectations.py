"""Great Expectations judges what the audit views observed: its suites, results and pages (Data Docs).

One suite per kind of check and relation, one expectation per column, one row per run. Great Expectations reads small
pandas frames of what SQL counted and measured: it does not work on DuckDB through SQLAlchemy, and scanning millions of
facts is the engine's work anyway. It takes 3 s to import, so only `check` does.
"""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rare_tokens.warehouse.publish.audit import Verdict

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "gx"  # its file context, in the given folder
Observed = Mapping[str, Sequence[Verdict]]


def judge(observed: Observed, folder: Path) -> tuple[dict[tuple[str, str, str, str], bool], Path]:
    """Let Great Expectations compare what was observed about runs with its expectations.

    Args:
        observed: run_id → what was observed about the run.
        folder: for its context (suites, results) and pages; may hold those of an earlier check.

    Returns:
        Whether each (run_id, suite, relation, expectation) holds, and the first page.
    """
    with _quiet():
        import great_expectations as gx

        context = gx.get_context(mode="file", project_root_dir=folder)
        context.variables.progress_bars = {"globally": False}
        source = context.data_sources.add_or_update_pandas("audit views")
        held: dict[tuple[str, str, str, str], bool] = {}
        for (suite, relation), verdicts in _by_suite(observed).items():
            name = f"{suite}_{relation}"
            batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("runs")
            expectations = context.suites.add_or_update(gx.ExpectationSuite(name, expectations=_expectations(verdicts)))
            definition = context.validation_definitions.add_or_update(
                gx.ValidationDefinition(name=name, data=batch, suite=expectations)
            )
            failing = _failing(definition.run(batch_parameters={"dataframe": _frame(verdicts)}, result_format=_FORMAT))
            held |= {
                (run_id, suite, relation, verdict.expectation): (run_id, verdict.expectation) not in failing
                for run_id, verdict in verdicts
            }
        (page,) = context.build_data_docs().values()
    return held, Path(page.removeprefix("file://"))


# Unlike a list of values, the index tells which run it is.
_FORMAT = {"result_format": "COMPLETE", "unexpected_index_column_names": ["run_id"]}


def _by_suite(observed: Observed) -> dict[tuple[str, str], list[tuple[str, Verdict]]]:
    suites: dict[tuple[str, str], list[tuple[str, Verdict]]] = {}
    for run_id, verdicts in observed.items():
        for verdict in verdicts:
            suites.setdefault((verdict.suite, verdict.relation), []).append((run_id, verdict))
    return suites


def _expectations(verdicts: list[tuple[str, Verdict]]) -> list[Any]:
    """One expectation per column; a run to which it does not apply has no value there."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeBetween(
            column=verdict.expectation,
            min_value=verdict.least,
            max_value=verdict.most,
            severity="critical" if verdict.is_integrity else "warning",
            notes=f"{verdict.relation} {verdict.expectation}.",
        )
        for verdict in {item.expectation: item for _, item in verdicts}.values()
    ]


def _frame(verdicts: list[tuple[str, Verdict]]) -> "pd.DataFrame":
    """One row per run, one column per expectation."""
    import pandas as pd

    rows: dict[str, dict[str, Any]] = {}
    for run_id, verdict in verdicts:
        rows.setdefault(run_id, {"run_id": run_id})[verdict.expectation] = verdict.observed
    return pd.DataFrame(list(rows.values()))


def _failing(result: Any) -> set[tuple[str, str]]:
    """The (run_id, expectation) that do not hold."""
    failing = set()
    for found in result.results:
        if found.exception_info.get("raised_exception"):
            raise RuntimeError(f"Great Expectations failed on {found.expectation_config}: {found.exception_info}")
        column = found.expectation_config.kwargs["column"]
        failing |= {(row["run_id"], column) for row in found.result.get("unexpected_index_list") or []}
    return failing


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence telemetry, progress bars and advice."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    level = logging.getLogger("great_expectations").level
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("great_expectations").setLevel(level)
