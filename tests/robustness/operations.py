"""The commands that write, and the warehouses that each of them starts from."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.robustness.processes import ERRORS

WAREHOUSE = "w.duckdb"


@dataclass(frozen=True)
class Operation:
    """A command that writes.

    Attributes:
        build: makes the folder that it starts from.
        command: runs it in the current folder; returns its exit code.
        stepwise: it commits in several transactions, so that relations go over one by one.
    """

    name: str
    build: Callable[[Path], None]
    command: Callable[[], int]
    stepwise: bool = False


def command_line(*arguments: str) -> Callable[[], int]:
    """A command as typed, in this process."""

    def call() -> int:
        from rare_tokens import cli
        from rare_tokens.commands.support.settings import run

        try:
            run(cli.cli, [*arguments, "--warehouse", WAREHOUSE, "--quiet"])
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 0
        return 0

    return call


def _ingest(*more: str) -> int:
    """Small parts, so that there are many moments to be disturbed at."""
    from rare_tokens.ingest.ablation.stages import capture, parts
    from rare_tokens.warehouse.publish import loading

    loading.FACTS_PER_STATEMENT = 1  # a file for each 64 neurons
    parts.PAIRS_PER_PART = 20_480
    capture.POSITIONS_PER_BATCH = 256
    options = ["--tokens", "1024", "--window", "64", "--device", "cpu"]
    return command_line("ingest", "--model", "neox", "--corpus", "corpus.jsonl", *options, *more)()


def _ingest_into_parquet() -> int:
    return _ingest("--store", "parquet")


def _publish() -> int:
    """What ends an ingest, here of a run that replaces one published before."""
    from rare_tokens import warehouse
    from rare_tokens.analyses.curve.power_law import power_law_line
    from rare_tokens.common.errors import RareTokensError
    from rare_tokens.common.parts import parts_root
    from rare_tokens.warehouse.publish import staging

    folder = parts_root(Path(WAREHOUSE)) / "run"
    try:
        if staging.parts.read_manifest(folder) is None and warehouse.status(Path(WAREHOUSE), "run") == "published":
            return 0
        warehouse.publish(Path(WAREHOUSE), folder, line=power_law_line, quiet=True)
    except RareTokensError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:  # the command line calls it the user's
        print(error, file=sys.stderr)
        return 2 if error.errno in ERRORS.values() else 1
    return 0


def _two_runs(folder: Path) -> None:
    from tests.support.warehouses import published

    published(folder / WAREHOUSE, "other", seed=9, neurons=64)
    published(folder / WAREHOUSE, "run", seed=1, positions=512, window=64, neurons=128)


def _for_ingest(folder: Path) -> None:
    from tests.support.tiny import SUPPORTED, save_folder, tiny_corpus
    from tests.support.warehouses import published

    save_folder(folder / "neox", SUPPORTED["gpt_neox"])
    tiny_corpus(folder / "corpus.jsonl", documents=200)
    published(folder / WAREHOUSE, "other", seed=9)


def _for_publish(folder: Path) -> None:
    from studies.synthetic.runs import make_parts
    from tests.support.warehouses import SMALL, parts_of

    _two_runs(folder)
    given = SMALL | {"positions": 512, "window": 64, "neurons": 128}
    make_parts(parts_of(folder / WAREHOUSE, "run"), run_id="run", seed=2, **given)


def _for_publish_into_parquet(folder: Path) -> None:
    """The run that is replaced has its files, which go once the new ones are there."""
    from rare_tokens import warehouse

    _for_publish(folder)
    warehouse.keep(folder / WAREHOUSE, "run", "parquet", quiet=True)


def _two_runs_in_parquet(folder: Path) -> None:
    from rare_tokens import warehouse

    _two_runs(folder)
    for run in ("run", "other"):
        warehouse.keep(folder / WAREHOUSE, run, "parquet", quiet=True)


def _for_attach(folder: Path) -> None:
    from rare_tokens import warehouse
    from tests.support.warehouses import published

    with tempfile.TemporaryDirectory() as there:
        published(Path(there) / WAREHOUSE, "run", seed=1, positions=512, window=64, neurons=128)
        warehouse.export(Path(there) / WAREHOUSE, folder / "out")
    published(folder / WAREHOUSE, "other", seed=9, neurons=64)


def _for_migrate(folder: Path) -> None:
    from tests.support.old_schema import make_old

    with tempfile.TemporaryDirectory() as there:
        _two_runs(Path(there))
        make_old(folder / WAREHOUSE, Path(there) / WAREHOUSE)


def _for_analyze(folder: Path) -> None:
    from tests.support.warehouses import published

    published(folder / WAREHOUSE, "run", seed=1)


def _for_vacuum(folder: Path) -> None:
    from rare_tokens import warehouse

    _two_runs(folder)
    warehouse.delete(folder / WAREHOUSE, "other")


OPERATIONS = [
    Operation("ingest", _for_ingest, _ingest),
    Operation("publish", _for_publish, _publish),
    Operation("analyze", _for_analyze, command_line("analyze"), stepwise=True),
    Operation("migrate", _for_migrate, command_line("migrate")),
    Operation("delete", _two_runs, command_line("delete", "run")),
    Operation("export", _two_runs, command_line("export", "out")),
    Operation("vacuum", _for_vacuum, command_line("vacuum")),
    Operation("ingest into Parquet", _for_ingest, _ingest_into_parquet),
    Operation("publish into Parquet", _for_publish_into_parquet, _publish),
    Operation("delete from Parquet", _two_runs_in_parquet, command_line("delete", "run")),
    Operation("attach to Parquet", _for_attach, command_line("attach", "out", "--store", "parquet")),
]
