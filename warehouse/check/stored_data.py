"""The command `check`: tests every expectation about runs again with Great Expectations, and stores the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from rare_tokens.common import parts
from rare_tokens.common.errors import UserError
from rare_tokens.common.program import command
from rare_tokens.warehouse.check import expectations
from rare_tokens.warehouse.connection import reading, writing
from rare_tokens.warehouse.publish import audit, staging
from rare_tokens.warehouse.publish.audit import Verdict
from rare_tokens.warehouse.runs import find
from rare_tokens.warehouse.store import parquet_facts, run_records

CHECK = "check"


@dataclass(frozen=True)
class Checked:
    """A run and the result of each of its expectations.

    Attributes:
        held: per verdict, whether Great Expectations says that it holds.
    """

    run_id: str
    status: str
    verdicts: tuple[Verdict, ...]
    held: tuple[bool, ...]

    @property
    def failed(self) -> list[Verdict]:
        """What does not hold."""
        return [verdict for verdict, held in zip(self.verdicts, self.held, strict=True) if not held]

    def summary(self) -> dict[str, Any]:
        """One row to read: how many expectations, how many fail."""
        suites = ", ".join(sorted({verdict.suite for verdict in self.verdicts}))
        counts = {"expectations": len(self.verdicts), "failed": len(self.failed)}
        return {"run_id": self.run_id, "status": self.status, "suites": suites} | counts

    def explained(self) -> list[dict[str, Any]]:
        """One row per expectation."""
        return [
            {
                "run_id": self.run_id,
                "relation": verdict.relation,
                "expectation": verdict.expectation,
                "observed": verdict.observed,
                "expected": verdict.expected,
                "success": held,
            }
            for verdict, held in zip(self.verdicts, self.held, strict=True)
        ]


def check(path: Path, wanted: Sequence[str], folder: Path, *, wait: float = 0.0) -> tuple[list[Checked], Path]:
    """Check runs: published ones as stored, refused and staged ones by their parts.

    The results become the runs' rows in `quality_result`; Great Expectations' pages go to `folder`.

    Args:
        path: the warehouse.
        wanted: runs, or the starts of their ids; empty: all that can be checked.
        folder: for Great Expectations' context and pages.
        wait: seconds to wait for a process that has the warehouse open.

    Returns:
        The runs, and the first page.

    Raises:
        UserError: there is no such run, it has neither facts nor finished parts, or one of its Parquet files is missing
            or not byte for byte what was written.
        QualityError: a part of a run is missing or unreadable.
        LockedError: another process has the warehouse open.
    """
    with reading(path, wait=wait) as con:
        statuses = _statuses(con, path, wanted)
        observed = {run_id: _observe(con, path, run_id, status) for run_id, status in statuses.items()}
        digests = {run_id: run_records.column(con, run_id, "parts_digest") for run_id in observed}
    held, page = expectations.judge(observed, folder)
    checked = [
        Checked(
            run_id,
            statuses[run_id],
            tuple(verdicts),
            tuple(held[run_id, verdict.suite, verdict.relation, verdict.expectation] for verdict in verdicts),
        )
        for run_id, verdicts in observed.items()
    ]
    with writing(path, wait=wait) as con:
        con.execute("begin")
        for run in checked:
            key = run_records.run_key(con, run.run_id)
            if key is not None and run_records.column(con, run.run_id, "parts_digest") == digests[run.run_id]:
                audit.record_results(con, key, run.verdicts, CHECK, run.held)
        con.execute("commit")
    return checked, page


def _statuses(con: duckdb.DuckDBPyConnection, path: Path, wanted: Sequence[str]) -> dict[str, str]:
    """The runs to check and what can be checked of each: `published`, or its parts (`rejected`, `staged`)."""
    known = dict(con.execute("select run_id, status from store.run order by created_at, run_id").fetchall())
    named = [find(con, run) for run in wanted] or list(known)
    statuses = {}
    for run_id in named:
        is_staged = (parts.parts_root(path) / run_id / parts.SUMMARY).is_file()
        if known[run_id] == "published" or is_staged:
            statuses[run_id] = "staged" if known[run_id] == "running" else known[run_id]
        elif wanted:
            if twin_of := run_records.column(con, run_id, "twin_of"):
                raise UserError(f"Run {run_id} is a twin of {twin_of} and holds nothing itself. Check that one.")
            raise UserError(f"Run {run_id} is {known[run_id]} and has no finished parts: there is nothing to check.")
    if not statuses:
        raise UserError(f"{path} holds no run to check. `{command('ingest --model gpt2')}` makes one.")
    return statuses


def _observe(con: duckdb.DuckDBPyConnection, path: Path, run_id: str, status: str) -> list[Verdict]:
    if status == "published":
        parquet_facts.verify(con, path, run_id)
        views = (audit.part_verdicts, audit.mart_verdicts, audit.group_verdicts, audit.attention_verdicts)
        return [verdict for view in views for verdict in view(con, run_id)]
    verdicts = audit.audit_parts(staging.staged_run(parts.parts_root(path) / run_id))
    # Its marts were rolled back when it was refused; what was found about them then still holds.
    return verdicts + [verdict for verdict in audit.recorded(con, run_id) if verdict.suite != audit.PARTS]
