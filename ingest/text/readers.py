"""The texts in a file of a corpus: plain text, JSON lines, a JSON list, or Parquet; any but Parquet also compressed.

Why not the readers of `datasets` itself: its JSON reader (5.2) fixes the columns on the first 10 MB, and so refuses
ordinary JSON lines in which an optional field first occurs later; it takes a path for a pattern; and it names neither
the byte nor the line that is wrong. Here only the text is looked at, and `datasets` holds what was read (`corpus.py`).
"""

import codecs
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rare_tokens.common.errors import UserError
from rare_tokens.common.files import is_utf8

SUFFIXES = (".txt", ".jsonl", ".json", ".parquet")
COMPRESSED = (".gz", ".zst", ".bz2")
COLUMN = "text"
SEPARATOR_LINE = "<|endoftext|>"

# A tokenizer takes a document whole and needs some 300 bytes a character, so that a file of one gigabyte without
# a separator could not be read at all: what is longer than this is cut into several documents.
LONGEST_DOCUMENT = 2_000_000  # characters

# Files that lie beside a corpus and are not part of it. One of them named itself is read all the same.
NOTES = {"authors", "changelog", "citation", "copying", "credits", "licence", "license", "notice", "readme", "source"}
NOTES |= {"sources", "config", "dataset_dict", "dataset_info", "dataset_infos", "manifest", "metadata", "state"}

_CHUNK = 1 << 22  # bytes


def corpus_files(path: Path) -> list[Path]:
    """The files that a file or folder stands for: the folder's own and its subfolders', by name, hidden ones left out.

    Raises:
        UserError: there is no such path, its kind is not known, or the folder holds nothing of a known kind, or a
            file whose name is not UTF-8.
    """
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _belongs(file.relative_to(path)) and file.is_file()]
        if not files:
            raise UserError(f"The corpus folder {path} holds no file that ends in {', '.join(SUFFIXES)}.")
        if odd := next((file for file in files if not is_utf8(str(file))), None):
            raise UserError(f"The corpus folder {path} holds {odd}, whose name is not UTF-8. Rename it.")
        return files
    if not path.exists():
        raise UserError(f"There is no corpus {path}; give a file or folder that exists, `c4` or `builtin`.")
    if _kind(path) not in SUFFIXES:
        raise UserError(f"The corpus {path} ends in none of {', '.join(SUFFIXES)}; convert it to one of them.")
    return [path]


def read_texts(path: Path) -> Iterator[str]:
    """The texts of one file in their order, blank ones left out, each at most `LONGEST_DOCUMENT` characters.

    A ``.txt`` file is one text, or several where lines hold nothing but ``<|endoftext|>``; a byte-order mark is
    dropped and line ends become ``\\n``. The others hold a text in the field ``text`` of each record, taken as it is.

    Raises:
        UserError: the file cannot be read, is not UTF-8, is not what its name says, or has no text.
    """
    readers = {".txt": _read_plain, ".jsonl": _read_json, ".json": _read_json, ".parquet": _read_parquet}
    try:
        for text in readers[_kind(path)](path):
            yield from (piece for piece in _pieces(text) if not piece.isspace())
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"The corpus file {path} cannot be read: {_reason(error)}.") from error


def _belongs(name: Path) -> bool:
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and _kind(name) in SUFFIXES and name.name.split(".")[0].lower() not in NOTES


def _kind(path: Path) -> str:
    """Suffix that says what a file holds, in lower case, whether it is compressed or not."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in COMPRESSED and suffixes[-2] != ".parquet":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _reason(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return (strerror or str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _pieces(text: str) -> Iterator[str]:
    """The text itself, or, where it is too long, parts of it cut at the last blank line, line, space or anywhere."""
    start = 0
    while len(text) - start > LONGEST_DOCUMENT:
        end = start + LONGEST_DOCUMENT
        marks = ((text.rfind(mark, start + 1, end), mark) for mark in ("\n\n", "\n", " "))
        cut, mark = next(((cut, mark) for cut, mark in marks if cut > 0), (end, ""))
        yield text[start:cut]
        start = cut + len(mark)
    if start < len(text):
        yield text[start:]


def _decoded(path: Path) -> Iterator[str]:
    """The file's characters in chunks, decompressed, line ends made ``\\n``, without its byte-order mark."""
    utf8 = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read = 0
    compression = "detect" if path.suffix.lower() in COMPRESSED else None
    with pa.input_stream(str(path), compression=compression) as stream:
        while True:
            chunk = stream.read(_CHUNK)
            held = len(utf8.getstate()[0])  # bytes of a character that the last chunk cut in two
            try:
                text = utf8.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                offset = read - held + error.start
                byte = error.object[error.start]
                raise UserError(
                    f"The corpus file {path} is not UTF-8: byte {offset:,} (0x{byte:02x}) begins no valid character. "
                    "Convert it to UTF-8."
                ) from error
            yield newlines.decode(text.removeprefix("\ufeff") if read == 0 else text, final=not chunk)
            if not chunk:
                return
            read += len(chunk)


def _lines(path: Path) -> Iterator[str]:
    """The file's lines without their ends."""
    begun: list[str] = []  # what the chunks so far hold of a line that has not ended
    for chunk in _decoded(path):
        first, *others = chunk.split("\n")
        begun.append(first)
        if others:
            yield "".join(begun)
            yield from others[:-1]
            begun = [others[-1]]
    yield "".join(begun)


def _read_plain(path: Path) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for line in _lines(path):
        if line.strip() == SEPARATOR_LINE:
            yield "\n".join(lines).strip("\n")
            lines, size = [], 0
            continue
        lines.append(line)
        size += len(line) + 1
        if size > 2 * LONGEST_DOCUMENT:
            *whole, rest = _pieces("\n".join(lines))
            yield from (piece.strip("\n") for piece in whole)
            lines, size = [rest], len(rest)
    yield "\n".join(lines).strip("\n")


def _read_json(path: Path) -> Iterator[str]:
    """Texts of a file of JSON lines, or of one JSON list, told apart by the first character that is not a space."""
    lines = enumerate(_lines(path), start=1)
    for number, line in lines:
        if line.lstrip().startswith("["):
            listed = "\n".join([line, *(line for _, line in lines)])
            yield from _list_texts(_parsed(listed, path, "it"), path)
        elif line.strip():
            place = f"line {number:,}"
            yield from _record_text(_parsed(line, path, place), path, place)


def _list_texts(values: Iterable[Any], path: Path) -> Iterator[str]:
    for number, value in enumerate(values, start=1):
        place = f"item {number:,}"
        yield from _record_text({COLUMN: value} if isinstance(value, str) else value, path, place)


def _parsed(text: str, path: Path, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"The corpus file {path} is not JSON: {place} cannot be parsed ({_reason(error)}).") from error


def _record_text(record: Any, path: Path, place: str) -> Iterator[str]:
    """The record's text, or nothing where it is null."""
    if not isinstance(record, dict):
        raise UserError(f"The corpus file {path}: {place} is no JSON object with a `{COLUMN}`.")
    if COLUMN not in record:
        fields = ", ".join(sorted(record)[:8]) or "none"
        raise UserError(f"The corpus file {path}: {place} has no field `{COLUMN}` (it has: {fields}); rename one.")
    text = record[COLUMN]
    if text is None:
        return
    if not isinstance(text, str):
        raise UserError(f"The corpus file {path}: `{COLUMN}` of {place} is no string but {type(text).__name__}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"The corpus file {path}: `{COLUMN}` of {place} holds half a surrogate pair, which is no character."
        raise UserError(message) from error
    yield text


def _read_parquet(path: Path) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        columns = file.schema_arrow
        if COLUMN not in columns.names:
            names = ", ".join(columns.names[:8]) or "none"
            raise UserError(f"The corpus file {path} has no column `{COLUMN}` (it has: {names}); rename one.")
        kind = columns.field(COLUMN).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise UserError(f"The corpus file {path}: the column `{COLUMN}` holds no strings but {kind}.")
        for batch in file.iter_batches(batch_size=256, columns=[COLUMN]):
            yield from (text for text in batch.column(0).to_pylist() if text is not None)
