"""The files that a path stands for: one, or those of a folder and its subfolders that belong to a corpus."""

from pathlib import Path

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import is_utf8
from rare_tokens.ingest.text.file_content import SUFFIXES, named_kind
from rare_tokens.ingest.text.saved_datasets import is_part_of_it, require_one_split

# Files that lie beside a corpus and are not part of it. One of them named itself is read all the same.
NOTES = {"authors", "changelog", "citation", "copying", "credits", "licence", "license", "notice", "readme", "source"}
NOTES |= {"sources", "config", "dataset_dict", "dataset_info", "dataset_infos", "manifest", "metadata", "state"}


def corpus_files(path: Path) -> list[Path]:
    """The file at a path, or the files of a folder and its subfolders by name; hidden ones and notes are left out.

    A file that is named itself may have any suffix: its content decides (`file_content`).

    Raises:
        UserError: there is no such path, the folder holds nothing of a known kind or several splits of a data set, or
            a file's name is not UTF-8.
    """
    if not path.exists():
        raise UserError(
            f"There is no corpus {path}; give a file or folder that exists, `c4`, `builtin`, or hf:NAME for a data set "
            "of the hub."
        )
    return _in_folder(path) if path.is_dir() else [path]


def _in_folder(folder: Path) -> list[Path]:
    files = [file for file in sorted(folder.rglob("*")) if _belongs(file.relative_to(folder)) and file.is_file()]
    if odd := next((file for file in files if not is_utf8(str(file))), None):
        raise UserError(f"The corpus folder {folder} holds {odd}, whose name is not UTF-8. Rename it.")
    around = {parent for file in files for parent in file.parents if parent.is_relative_to(folder)}
    for one in sorted(around):
        require_one_split(one)
    files = [file for file in files if named_kind(file) != ".arrow" or is_part_of_it(file)]
    if not files:
        raise UserError(f"The corpus folder {folder} holds no file that ends in {', '.join(SUFFIXES)}.")
    return files


def _belongs(name: Path) -> bool:
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and named_kind(name) in SUFFIXES and name.name.split(".")[0].lower() not in NOTES
