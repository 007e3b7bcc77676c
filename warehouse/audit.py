"""The first audit: what must hold of a run's parts before anything of them is loaded."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from common.errors import QualityError
from warehouse import migrations, records, staging
from warehouse.connection import WRITE_CONFIG, reason

# Staged parts under the names and with the key columns of the public relations.
_KEYS = {
    "dim_document": "run.run_id",
    "dim_token": "run.tokenizer_id",
    "token_frequency": "run.tokenizer_id, run.frequency_source_id",
    "dim_position": "run.run_id",
    "dim_neuron": "run.run_id, run.layer",
    "neuron_weight": "run.run_id, run.layer",
    "neuron_token": "run.run_id, run.layer",
    "fct_effect": "run.run_id, run.layer",
}
# Errors of the engine that are not about what it reads.
_NOT_THE_PARTS = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ParserException,
    duckdb.OutOfMemoryException,
)


@dataclass(frozen=True)
class Failure:
    """An expectation that a run does not keep to.

    Attributes:
        failures: how many rows, neurons or values do not.
        is_integrity: no reason given lets the run through.
    """

    relation: str
    expectation: str
    failures: int
    is_integrity: bool

    def __str__(self) -> str:
        """One clause of a message."""
        return f"{self.relation} {self.expectation}: {self.failures} do not"


def audit_parts(staged: staging.Staged) -> list[Failure]:
    """Check a run's parts through the audit views of the warehouse, in memory; returns what fails.

    Raises:
        QualityError: a part is missing, unreadable, or has other columns than the contract says.
    """
    staging.check_files(staged)
    with duckdb.connect(config=WRITE_CONFIG) as con:
        migrations.migrate(con, Path(":memory:"), commented=False)
        records.record(con, records.described(staged.manifest, staged.summary) | {"status": "published"})
        staging.attach(con, staged)
        for relation, keys in _KEYS.items():
            parts_and_run = f"staging.{relation} as part, dim_run as run"
            con.execute(f"create or replace view {relation} as select {keys}, part.* from {parts_and_run}")
        try:
            return failures(con, staged.manifest.run_id)
        except _NOT_THE_PARTS:
            raise
        except duckdb.Error as error:
            message = f"A part of run {staged.manifest.run_id} cannot be read: {reason(error)}. Ingest it with --again."
            raise QualityError(message) from error


def failures(con: duckdb.DuckDBPyConnection, run_id: str) -> list[Failure]:
    """What of the first audit fails for a run, worst first."""
    rows = con.execute(
        "select relation, expectation, failures, is_integrity from audit_verdict"
        " where run_id = $run_id and failures > 0 order by is_integrity desc, failures desc, relation, expectation",
        {"run_id": run_id},
    ).fetchall()
    return [Failure(*row) for row in rows]
