"""The texts in a file of a corpus: plain text, JSON lines, a JSON list, Parquet or Arrow; text may be compressed.

The readers in `datasets` are not used: its JSON reader (5.2) infers the columns from the first 10 MB, so it refuses
ordinary JSON lines in which an optional field first occurs later; it takes a path for a pattern; and it names neither
the byte nor the line that is wrong. Here only the text matters, and `datasets` holds what was read (`corpus.py`).
"""

import codecs
import io
import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.file_content import JSON, PLAIN, content_of, decompressed
from rare_tokens.ingest.text.records import TextField
from rare_tokens.ingest.text.tables import table_texts

SEPARATOR_LINE = "<|endoftext|>"

# A tokenizer takes a document whole and needs some 300 bytes a character, so a file of one gigabyte without
# a separator could not be read at all: a longer text is cut into several documents.
LONGEST_DOCUMENT = 2_000_000  # characters

_CHUNK = 1 << 22  # bytes
_LONGEST_REASON = 200  # characters
_DAMAGED = (OSError, EOFError, lzma.LZMAError, pa.ArrowException, UnicodeDecodeError)


def read_texts(path: Path, field: TextField | None = None) -> Iterator[str]:
    """The texts of one file in their order, without blank ones, each at most `LONGEST_DOCUMENT` characters.

    Plain text is one text, or several where lines hold nothing but ``<|endoftext|>``; a byte-order mark is dropped and
    line ends become ``\\n``. The other formats hold a text in one field of each record, taken as it is.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or holds no records with that field.
    """
    field = field or TextField()
    try:
        for text in _texts(path, field):
            yield from (piece for piece in pieces(text) if not piece.isspace())
    except _DAMAGED as error:
        raise UserError(f"The corpus file {path} cannot be read: {_reason(error)}.") from error


def _texts(path: Path, field: TextField) -> Iterator[str]:
    content = content_of(path)
    if content.format == PLAIN:
        return _read_plain(path, content.compression)
    if content.format == JSON:
        return _read_json(path, content.compression, field)
    return table_texts(path, content.format, field)


def _reason(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return (strerror or str(error) or type(error).__name__).splitlines()[0].rstrip(".")[:_LONGEST_REASON]


def pieces(text: str) -> Iterator[str]:
    """The text, or parts of one that is too long, cut at the last blank line, line end or space, or else anywhere."""
    start = 0
    while len(text) - start > LONGEST_DOCUMENT:
        end = start + LONGEST_DOCUMENT
        marks = ((text.rfind(mark, start + 1, end), mark) for mark in ("\n\n", "\n", " "))
        cut, mark = next(((cut, mark) for cut, mark in marks if cut > 0), (end, ""))
        yield text[start:cut]
        start = cut + len(mark)
    if start < len(text):
        yield text[start:]


def _decoded(path: Path, compression: str | None) -> Iterator[str]:
    """The file's characters in chunks, decompressed, line ends made ``\\n``, without its byte-order mark."""
    utf8 = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    read = 0
    with decompressed(path, compression) as stream:
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


def _lines(path: Path, compression: str | None) -> Iterator[str]:
    """The file's lines without their ends."""
    begun: list[str] = []  # the pieces so far of a line that has not ended
    for chunk in _decoded(path, compression):
        first, *others = chunk.split("\n")
        begun.append(first)
        if others:
            yield "".join(begun)
            yield from others[:-1]
            begun = [others[-1]]
    yield "".join(begun)


def _read_plain(path: Path, compression: str | None) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for line in _lines(path, compression):
        if line.strip() == SEPARATOR_LINE:
            yield "\n".join(lines).strip("\n")
            lines, size = [], 0
            continue
        lines.append(line)
        size += len(line) + 1
        if size > 2 * LONGEST_DOCUMENT:
            *whole, rest = pieces("\n".join(lines))
            yield from (piece.strip("\n") for piece in whole)
            lines, size = [rest], len(rest)
    yield "\n".join(lines).strip("\n")


def _read_json(path: Path, compression: str | None, field: TextField) -> Iterator[str]:
    """Texts of a file of JSON lines, one JSON list, or one JSON object that fills the whole file."""
    lines = enumerate(_lines(path, compression), start=1)
    is_first = True
    for number, line in lines:
        if not line.strip():
            continue
        place = f"line {number:,}"
        if is_first and line.lstrip()[0] not in "{[":
            raise UserError(
                f"The corpus file {path} is not JSON: {place} begins with {line.strip()[:20]!r}. "
                "If it is plain text, rename it to .txt."
            )
        if line.lstrip().startswith("[") or (is_first and line.strip() == "{"):
            value = _parsed("\n".join([line, *(line for _, line in lines)]), path, "it")
            yield from _list_texts(value if isinstance(value, list) else [value], path, field)
        else:
            yield from _record_text(_parsed(line, path, place), path, place, field)
        is_first = False


def _list_texts(values: Iterable[Any], path: Path, field: TextField) -> Iterator[str]:
    for number, value in enumerate(values, start=1):
        record = {field.name: value} if isinstance(value, str) else value
        yield from _record_text(record, path, f"item {number:,}", field)


def _parsed(text: str, path: Path, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"The corpus file {path} is not JSON: {place} cannot be parsed ({_reason(error)}).") from error


def _record_text(record: Any, path: Path, place: str, field: TextField) -> Iterator[str]:
    text = field.text(record, f"The corpus file {path}: {place}")
    if text is not None:
        yield text
