"""Who computes the units of a run and where the parts go: the options of `ingest`, and starting the executor."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rare_tokens.commands.support.settings import Settings
from rare_tokens.common.errors import UserError
from rare_tokens.common.progress import working

if TYPE_CHECKING:
    from rare_tokens.ingest.run.executors import Executor
    from rare_tokens.ingest.run.shared_storage import Place


@dataclass(frozen=True)
class Spreading:
    """Who computes the units of a run, and where the parts go (None: beside the warehouse)."""

    executor: str = "local"
    address: str | None = None
    workers: int | None = None
    parts: str | None = None

    def __post_init__(self) -> None:
        """Refuse options that would have no effect."""
        for name, value in (("--ray-address", self.address), ("--workers", self.workers)):
            if value is not None and self.executor != "ray":
                raise UserError(f"{name} {value} is about Ray's workers. Give --executor ray too, or leave it out.")

    @contextmanager
    def started(self, settings: Settings) -> "Iterator[Executor]":
        """The executor while the block runs; its workers are checked before anything is written.

        Raises:
            UserError: Ray is not installed or does not answer, its workers differ, or the place cannot be used.
        """
        from rare_tokens.ingest.run.executors import LocalExecutor
        from rare_tokens.ingest.run.pipeline import versions
        from rare_tokens.ingest.run.shared_storage import Place

        if self.executor == "local":
            if self.parts is not None:
                with Place(self.parts).probed():
                    pass
            yield LocalExecutor(quiet=settings.quiet)
            return
        from rare_tokens.ingest.run.ray import RayExecutor

        with working("Join the workers", quiet=settings.quiet):
            executor = RayExecutor(self.address, self.workers, quiet=settings.quiet)
        try:
            with working("Ask the workers what they have", quiet=settings.quiet):
                executor.check(versions(), Place(self.parts or settings.warehouse.absolute().parent))
            yield executor
        finally:
            executor.close()

    def place(self, folder: Path) -> "Place | None":
        """Where units leave the parts of a run, given its folder beside the warehouse.

        None if only this process makes parts, in that folder.
        """
        from rare_tokens.ingest.run.shared_storage import Place

        if self.parts is not None:
            return Place(self.parts) / folder.name
        return Place(folder) if self.executor == "ray" else None


HERE = Spreading()
