"""When an interrupted run is resumed: only with the same request, code and packages."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rare_tokens.common.files import read_json, write_json
from rare_tokens.common.parts import MANIFEST, Manifest, read_manifest, write_manifest
from rare_tokens.ingest.run.shared_storage import Place


def resumable(folder: Path, manifest: Manifest) -> Manifest | None:
    """The manifest of an interrupted run that computes exactly the same, or None.

    Code and package versions count: a run is never put together from two versions.
    """
    there = read_manifest(folder)
    if there is None:
        return None
    same = ("identity", "tolerance", "effects", "code_version", "packages", "format")
    return there if all(getattr(there, name) == getattr(manifest, name) for name in same) else None


def agree(place: Place, folder: Path, manifest: Manifest) -> None:
    """Clear the folder if what it holds does not belong to the run at the place.

    Raises:
        UserError: the place cannot be read.
    """
    if place.is_at(folder):
        return
    with tempfile.TemporaryDirectory() as scratch:
        if MANIFEST in place.names():
            place.get(MANIFEST, Path(scratch) / MANIFEST)
        there = resumable(Path(scratch), manifest)
        if there is None or there != read_manifest(folder):
            shutil.rmtree(folder, ignore_errors=True)
        if there is not None:
            write_manifest(folder, there)


_PLAN = "plan.json"


def begin(folder: Path, plan: Mapping[str, Any], place: Place | None) -> None:
    """Make ready for units that are added to a run: keep those that follow the same plan, remove all others.

    Args:
        folder: of the parts on this machine; it holds the plan from now on.
        plan: everything that the units depend on, as JSON can hold it.
        place: where units leave their files; None: in the folder.

    Raises:
        UserError: the place cannot be used.
    """
    wanted = json.loads(json.dumps(plan))
    path = folder / _PLAN
    if not path.is_file() or read_json(path) != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(path, wanted)
    if place is None or place.is_at(folder):
        return
    if _PLAN in place.names():
        with place.fetched(_PLAN) as there:
            if read_json(there) == wanted:
                return
        place.remove()
    place.put(path, _PLAN)
