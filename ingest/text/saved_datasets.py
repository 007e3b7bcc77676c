"""Folders that `datasets` wrote: by `save_to_disk`, and its cache. Which of their Arrow files make a corpus.

`save_to_disk` writes `state.json`, which lists the files, or for several splits `dataset_dict.json` and a folder each.
The cache holds the splits side by side, as `dataset_info.json` lists them. Both may hold files named `cache-…` of
computations on the data: those are no part of it.
"""

import json
import re
from pathlib import Path
from typing import Any

from rare_tokens.common.errors import UserError

_SPLIT = re.compile(r"\w+(\.\w+)*")  # what `datasets` takes for a name of a split


def require_one_split(folder: Path) -> None:
    """Refuse a folder that `DatasetDict.save_to_disk` wrote with several splits, or that caches several.

    Raises:
        UserError: it holds several splits; the message names what to give instead.
    """
    splits = _read(folder / "dataset_dict.json").get("splits")
    there = [name for name in _names(splits) if (folder / name).is_dir()]
    if len(there) > 1:
        raise UserError(
            f"The corpus folder {folder} holds the splits {', '.join(there)}, each in a folder of its own. "
            f"Name one: --corpus {folder / there[0]}."
        )
    if (folder / "state.json").is_file():
        return
    splits = _read(folder / "dataset_info.json").get("splits")
    cached = _names(list(splits) if isinstance(splits, dict) else [])
    files = {name: found[0] for name in cached if (found := _of_split(folder, name))}
    if len(files) > 1:
        raise UserError(
            f"The corpus folder {folder} caches the splits {', '.join(files)} side by side. Name the files of one, "
            f"for example --corpus {next(iter(files.values()))}."
        )


def is_part_of_it(file: Path) -> bool:
    """Whether an Arrow file is one of those that its folder lists, if the folder lists any; no computation's.

    Raises:
        UserError: the folder's list names a file that is lacking, or rows chosen by an index.
    """
    state = _read(file.parent / "state.json")
    files = state.get("_data_files")
    listed = [str(one.get("filename")) for one in files if isinstance(one, dict)] if isinstance(files, list) else []
    if not listed:
        return not file.name.startswith(("cache-", "tmp"))
    if state.get("_indices_data_files"):
        raise UserError(
            f"The data set in {file.parent} is a choice of rows by an index. Save it again: flatten_indices(), "
            "then save_to_disk()."
        )
    if absent := next((name for name in listed if not (file.parent / name).is_file()), None):
        raise UserError(f"The data set in {file.parent} lacks its file {absent}; copy the whole folder again.")
    return file.name in listed


def _of_split(folder: Path, split: str) -> list[Path]:
    found = [*folder.glob(f"*-{split}.arrow"), *folder.glob(f"*-{split}-*-of-*.arrow")]
    return sorted(file for file in found if not file.name.startswith("cache-"))


def _names(values: Any) -> list[str]:
    """The names of splits in a list that was read."""
    given = values if isinstance(values, list) else []
    return [one for one in given if isinstance(one, str) and _SPLIT.fullmatch(one)]


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file of `datasets` says; nothing where it is absent or of another kind."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
