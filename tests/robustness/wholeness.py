"""What a warehouse holds, and whether what is left after a disturbance is whole."""

from pathlib import Path
from typing import Any

from tests.robustness.operations import WAREHOUSE, Operation

ON_DISK = "files of facts"  # a kill may leave some that no run lists, until the next command
TIMES = ("created_at", "seconds", "stage_seconds", "published_at", "checked_at")
# The command found nothing left to do: the run is gone, the export is there.
DONE_ALREADY = {
    "delete": "There is no run",
    "delete from Parquet": "There is no run",
    "export": "already exists",
}


def snapshot(folder: Path) -> dict[str, Any]:
    """Every public relation, rows in order, times left out; and every file of an export."""
    import polars as pl

    from tests.support.warehouses import contents

    held = contents(folder / WAREHOUSE)
    listed = set(held["fact_file"]["path"])
    for name, frame in held.items():
        # A file's name has the hash of a manifest in it, with its times.
        kept = frame.drop((*TIMES, "path") if name == "fact_file" else TIMES, strict=False)
        held[name] = kept.sort("run_id") if name == "dim_run" else kept
    facts = folder / f"{WAREHOUSE}.facts"
    there = {file.relative_to(facts).as_posix() for file in facts.rglob("*") if file.is_file()}
    held[ON_DISK] = pl.DataFrame({"unlisted": [len(there - listed)], "missing": [len(listed - there)]})
    for file in sorted((folder / "out").rglob("*.parquet")):
        name = str(file.relative_to(folder))
        frame = pl.read_parquet(file, hive_partitioning=False).drop(TIMES, strict=False)
        held[name] = frame.sort([column for column, kind in frame.schema.items() if not kind.is_nested()])
    return held


def differing(left: dict[str, Any], right: dict[str, Any]) -> set[str]:
    """The relations and files that are not the same."""
    return {
        name for name in left.keys() | right.keys() if not (name in left and name in right and _same(left, right, name))
    }


def _same(left: dict[str, Any], right: dict[str, Any], name: str) -> bool:
    return bool(left[name].equals(right[name]))


def check_whole(folder: Path, operation: Operation, before: dict[str, Any], after: dict[str, Any]) -> str:
    """Which state a disturbed warehouse is in.

    Raises:
        AssertionError: in neither, or it does not open.
    """
    from rare_tokens import warehouse

    path = folder / WAREHOUSE
    if operation.name == "migrate" and not _is_migrated(path):
        return "before"
    found = snapshot(folder)
    assert not warehouse.runs(path).is_empty()
    # What a run that is under way, or was refused for its broken parts, may change.
    bookkeeping = {"dim_run", "quality_result", ON_DISK}
    assert found[ON_DISK]["missing"].item() == 0
    # A view over what several steps store has no state of its own; the tables that it reads are looked at themselves.
    ignored = bookkeeping | {"measured_value"} if operation.stepwise else bookkeeping
    from_before, from_after = differing(found, before) - ignored, differing(found, after) - ignored
    if not from_before:
        return "before" if from_after else "both"
    if not from_after:
        return "after"
    mixed = from_before & from_after if operation.stepwise else from_before | from_after
    assert operation.stepwise, f"not before: {sorted(from_before)[:5]}; not after: {sorted(from_after)[:5]}"
    assert not mixed, f"half of {sorted(mixed)}"
    return "between"


def _is_migrated(path: Path) -> bool:
    from rare_tokens import warehouse
    from rare_tokens.common.errors import UserError

    try:
        warehouse.runs(path)
    except UserError as error:
        if "rare-tokens migrate" in str(error):
            return False
        raise
    return True


def leftovers(folder: Path) -> list[str]:
    """Files that a finished command should not leave.

    A .wal belongs to the warehouse and the next writer takes it in; a .lock names a process that is gone: no claim.
    """
    known = {
        WAREHOUSE,
        f"{WAREHOUSE}.wal",
        f"{WAREHOUSE}.parts",
        f"{WAREHOUSE}.facts",
        "neox",
        "corpus.jsonl",
        "out",
        "tmp",
    }
    found = [path.name for path in folder.iterdir() if path.name not in known]
    return found + [path.name for path in (folder / f"{WAREHOUSE}.parts").glob("*") if path.suffix != ".lock"]
