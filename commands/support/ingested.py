"""How the runs of one ingest came out: which there are, and which of them failed."""

from dataclasses import dataclass, field

from rare_tokens.common.errors import QualityError, RareTokensError, UserError
from rare_tokens.common.program import command
from rare_tokens.common.text import plural

LONGEST_REASON = 300  # characters of a reason within the message about several


@dataclass
class Ingested:
    """The runs that were asked for, in their order, which of them are new, and what went wrong with which."""

    run_ids: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)  # published by this command
    failures: dict[str, RareTokensError] = field(default_factory=dict)

    def fail(self, run_id: str, error: RareTokensError) -> None:
        """Note what went wrong with a run; without the frames of the error, which may hold a model."""
        self.failures[run_id] = (QualityError if isinstance(error, QualityError) else UserError)(str(error))

    def require_all(self) -> None:
        """Refuse where a run failed.

        Raises:
            QualityError: one was refused by its checks.
            UserError: one could not be loaded or computed, and none was refused.
        """
        if not self.failures:
            return
        run_id, error = next(iter(self.failures.items()))
        reason = str(error)
        reason = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
        first = "It" if len(self.failures) == 1 else "The first"
        is_refused = any(isinstance(one, QualityError) for one in self.failures.values())
        raise (QualityError if is_refused else UserError)(
            f"{len(self.failures)} of {plural(len(self.run_ids), 'run')} failed. {first} is {run_id}: {reason} "
            f"`{command('runs --json')}` has every reason; the same command tries them again."
        )
