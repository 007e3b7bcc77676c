"""The audits: what must hold for a run's parts before anything is loaded, and for what publishing computes from them.

Expectations are written once, in `sql/audit`: small views count and measure, `audit_verdict` (parts) and
`audit_mart_verdict` (marts, drift) compare what was observed with bounds. Publishing follows that verdict; the command
`check` lets Great Expectations judge the same observations (`warehouse.check.expectations`) and write its pages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import duckdb

from rare_tokens.common.errors import QualityError
from rare_tokens.warehouse.connection import WRITE_CONFIG, connect, reason
from rare_tokens.warehouse.publish import staging
from rare_tokens.warehouse.schema import migrations
from rare_tokens.warehouse.store import run_records

# Staged parts, under the names and with the key columns of the public relations.
_KEYS = {
    "dim_document": "run.run_id",
    "dim_token": "run.tokenizer_id",
    "token_frequency": "run.tokenizer_id, run.frequency_source_id",
    "dim_position": "run.run_id",
    "position_context": "run.run_id",
    "dim_neuron": "run.run_id, run.layer",
    "neuron_weight": "run.run_id, run.layer",
    "neuron_token": "run.run_id, run.layer",
    "fct_effect": "run.run_id, run.layer",
}
# Errors of the engine that are not about the data it reads.
_NOT_THE_PARTS = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.OutOfMemoryException,
)
PUBLISH = "publish"
PARTS = "parts"
GROUPS = "groups"
ATTENTION = "attention"


@dataclass(frozen=True)
class Verdict:
    """An expectation about a run, compared with what was observed.

    Attributes:
        suite: `parts`, `marts`, `drift`, `groups` or `attention`.
        observed: how much violates it, or the value that must lie within the bounds.
        least: smallest `observed` that is right; None: no bound.
        most: largest that is right.
        failures: how many rows, neurons or values violate it; 0 if it holds.
        is_integrity: whether no reason can let the run through.
    """

    suite: str
    relation: str
    expectation: str
    observed: float
    least: float | None
    most: float | None
    failures: int
    is_integrity: bool

    @property
    def expected(self) -> str:
        """The bounds in words, as in `quality_result`."""
        if self.least == self.most:
            return f"{self.least:g}"
        if self.least is None:
            return f"up to {self.most:g}"
        return f"from {self.least:g}" if self.most is None else f"{self.least:g} to {self.most:g}"

    def __str__(self) -> str:
        """One clause of a message."""
        if self.least == self.most:
            return f"{self.relation} {self.expectation}: {self.failures} do not"
        return f"{self.relation} {self.expectation}: it is {self.observed:g}"


def audit_parts(staged: staging.Staged) -> list[Verdict]:
    """Check a run's parts through the audit views of the warehouse, in memory.

    Raises:
        QualityError: a part is missing or unreadable, or its columns are not those of the contract.
    """
    staging.check_files(staged)
    run_id = staged.manifest.run_id
    with connect(config=WRITE_CONFIG) as con:
        migrations.make_views(con, "audit_verdict", "dim_run")
        try:
            run_records.record(con, run_records.described(staged.manifest, staged.summary) | {"status": "published"})
            staging.attach(con, staged)
            for relation, keys in _KEYS.items():
                parts_and_run = f"staging.{relation} as part, dim_run as run"
                con.execute(f"create or replace view {relation} as select {keys}, part.* from {parts_and_run}")
            return part_verdicts(con, run_id)
        except _NOT_THE_PARTS:
            raise
        except duckdb.Error as error:
            message = f"A part of run {run_id} cannot be read: {reason(error)}. Ingest it with --again."
            raise QualityError(message) from error
        except ValueError as error:  # a time or text in the manifest cannot be read
            raise QualityError(f"The manifest of run {run_id} is damaged ({error}). Ingest it with --again.") from error


def part_verdicts(con: duckdb.DuckDBPyConnection, run_id: str) -> list[Verdict]:
    """A run's first audit, of its parts or of what was loaded from them."""
    return _verdicts(con, "audit_verdict", run_id)


def mart_verdicts(con: duckdb.DuckDBPyConnection, run_id: str) -> list[Verdict]:
    """A run's second audit: its marts, and its drift from the training step before."""
    return _verdicts(con, "audit_mart_verdict", run_id)


def group_verdicts(con: duckdb.DuckDBPyConnection, run_id: str) -> list[Verdict]:
    """The audit of groups added to a run; empty if it has none."""
    return _verdicts(con, "audit_group_verdict", run_id)


def attention_verdicts(con: duckdb.DuckDBPyConnection, run_id: str) -> list[Verdict]:
    """The audit of attention added to a run; empty if it has none."""
    return _verdicts(con, "audit_attention_verdict", run_id)


def failed(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Those that do not hold, worst first."""
    found = [verdict for verdict in verdicts if verdict.failures]
    return sorted(found, key=lambda item: (not item.is_integrity, -item.failures, item.relation, item.expectation))


def note(verdicts: Iterable[Verdict], run_id: str, anyway: str | None, where: str) -> str | None:
    """The note for a run that is published although checks fail; None if all hold.

    Args:
        verdicts: the run's.
        run_id: the run.
        anyway: reason to publish it all the same.
        where: what a refusal says about the run's parts.

    Raises:
        QualityError: checks fail, and no reason is given or none can help.
    """
    failures = failed(verdicts)
    if not failures:
        return None
    what = "; ".join(str(failure) for failure in failures)
    if anyway is not None and not any(failure.is_integrity for failure in failures):
        return f"published anyway ({anyway}) although {what}"
    raise RefusedError(f"Run {run_id} was refused: {what}. {where}", list(verdicts))


class RefusedError(QualityError):
    """A run whose checks failed; carries what was observed."""

    def __init__(self, message: str, verdicts: list[Verdict]) -> None:
        super().__init__(message)
        self.verdicts = verdicts


def record_results(
    con: duckdb.DuckDBPyConnection,
    key: int,
    verdicts: Sequence[Verdict],
    checked_by: str = PUBLISH,
    held: Sequence[bool] | None = None,
    suite: str | None = None,
) -> None:
    """Replace a run's rows of `quality_result`.

    Args:
        con: the warehouse, open to write.
        key: the run's.
        verdicts: the run's.
        checked_by: who judged.
        held: that judgement of each; None: the verdicts themselves.
        suite: replace the rows of this suite only.
    """
    con.execute(
        "delete from store.quality_result where run_key = $key and suite = coalesce($suite, suite)",
        {"key": key, "suite": suite},
    )
    statement = (
        "insert into store.quality_result values"
        " ($key, $suite, $relation, $expectation, $observed, $least, $most, $is_integrity, $success, $by, $now)"
    )
    successes = [not verdict.failures for verdict in verdicts] if held is None else held
    for verdict, success in zip(verdicts, successes, strict=True):
        values = {name: value for name, value in asdict(verdict).items() if name != "failures"}
        con.execute(statement, values | {"key": key, "success": success, "by": checked_by, "now": run_records.now()})


def recorded(con: duckdb.DuckDBPyConnection, run_id: str) -> list[Verdict]:
    """What was last found about a run."""
    rows = con.execute(
        "select suite, relation, expectation, observed, least, most, (not success)::ubigint, is_integrity"
        " from store.quality_result join store.run using (run_key) where run_id = $run_id order by all",
        {"run_id": run_id},
    ).fetchall()
    return [Verdict(*row) for row in rows]


def _verdicts(con: duckdb.DuckDBPyConnection, view: str, run_id: str) -> list[Verdict]:
    columns = ", ".join(item.name for item in fields(Verdict))
    rows = con.execute(
        f"select {columns} from {view} where run_id = $run_id order by suite, relation, expectation",
        {"run_id": run_id},
    ).fetchall()
    return [Verdict(*row) for row in rows]
