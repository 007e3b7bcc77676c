"""Who computes the units of a run, and where they leave their parts: what `ingest` is told, and what it starts."""

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
    """Who computes the units of a run, and where they leave their parts; None: beside the warehouse."""

    executor: str = "local"
    address: str | None = None
    workers: int | None = None
    parts: str | None = None

    def __post_init__(self) -> None:
        """Refuse options that would do nothing."""
        for name, value in (("--ray-address", self.address), ("--workers", self.workers)):
            if value is not None and self.executor != "ray":
                raise UserError(f"{name} {value} is about Ray's workers. Give --executor ray too, or leave it out.")

    @contextmanager
    def started(self, settings: Settings) -> "Iterator[Executor]":
        """The executor for the block, its workers asked what they have before anything is written.

        Raises:
            UserError: there is no Ray, it does not answer, or its workers differ; the place cannot be used.
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
        """Where the units of a run leave their parts, given its folder beside the warehouse; None: only this process
        makes any, and in that folder.
        """
        from rare_tokens.ingest.run.shared_storage import Place

        if self.parts is not None:
            return Place(self.parts) / folder.name
        return Place(folder) if self.executor == "ray" else None


HERE = Spreading()
