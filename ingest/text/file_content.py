"""What a corpus file holds, told by its first bytes: names often lie.

A compression and a binary format are certain from their magic numbers, and JSON from its first character once every
line of it has been parsed. Plain text looks like anything, so only a name makes a file plain text.
"""

import io
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from rare_tokens.common.errors import UserError

SUFFIXES = (".txt", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
PLAIN, JSON, PARQUET, ARROW_FILE, ARROW_STREAM = "plain text", "JSON", "Parquet", "an Arrow file", "an Arrow stream"

_BY_NAME = {".txt": PLAIN, ".jsonl": JSON, ".ndjson": JSON, ".json": JSON, ".parquet": PARQUET, ".arrow": ARROW_FILE}
_HEAD = 4096  # bytes looked at
_BZ2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # a first block, or the end of an empty file
_PARQUET, _ARROW = b"PAR1", b"ARROW1"
_ARROW_STREAM = b"\xff\xff\xff\xff"
_REFUSED = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer: fetch the file itself (git lfs pull)"),
    (b"PK\x03\x04", "a zip archive: unpack it, and name what is in it"),
    (b"%PDF-", "a PDF: convert it to plain text"),
    (b"SQLite format 3\0", "an SQLite database: write its texts as JSON lines"),
    (b"\x89HDF\r\n", "an HDF5 file: write its texts as JSON lines"),
)


@dataclass(frozen=True)
class Content:
    """The format of a file, one of those above, and its compression as pyarrow names it (`xz` besides), if any."""

    format: str
    compression: str | None


def named_kind(path: Path) -> str:
    """The suffix that says what a file holds, in lower case, whether it is compressed or not."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in COMPRESSED and suffixes[-2] not in (".parquet", ".arrow"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def content_of(path: Path) -> Content:
    """Format and compression of a file: by content where that is certain, else by name.

    Raises:
        UserError: the content is no corpus, or is not what the name says and not certain either.
        OSError, EOFError, lzma.LZMAError, pa.ArrowException: the file cannot be read.
    """
    with path.open("rb") as file:
        compression = _compression(file.read(_HEAD))
    with decompressed(path, compression) as stream:
        head = _first_bytes(stream)
    for magic, what in _REFUSED:
        if head.startswith(magic):
            raise UserError(f"The corpus file {path} is {what}.")
    if head[257:262] == b"ustar":
        raise UserError(f"The corpus file {path} is a tar archive: unpack it, and name what is in it.")
    if _compression(head):
        raise UserError(f"The corpus file {path} is compressed twice: decompress it once.")
    if binary := _binary(path, head, compression):
        if compression:
            raise UserError(f"The corpus file {path} is {binary} within another compression: decompress it.")
        return Content(binary, None)
    return Content(_text_format(path, head, compression), compression)


@contextmanager
def decompressed(path: Path, compression: str | None) -> Iterator[Any]:
    """The bytes of a file as a stream with `read(size)`; several compressed streams in one file are read as one."""
    if compression == "xz":
        with lzma.open(path) as stream:
            yield stream
    else:
        with pa.input_stream(str(path), compression=compression) as stream:
            yield stream


def _compression(head: bytes) -> str | None:
    """Compression by its magic number; none of them is UTF-8 text but bzip2's, which is checked to ten bytes."""
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    return "bz2" if head.startswith(b"BZh") and head[4:10] in _BZ2_BLOCKS else None


def _first_bytes(stream: BinaryIO) -> bytes:
    """As many as are looked at: a stream may give fewer at a time."""
    head = b""
    while len(head) < _HEAD and (more := stream.read(_HEAD - len(head))):
        head += more
    return head


def _binary(path: Path, head: bytes, compression: str | None) -> str | None:
    """The binary format that magic numbers at both ends make certain, or at the beginning the name with them."""
    if head.startswith(_ARROW_STREAM):
        return ARROW_STREAM
    kind = named_kind(path)
    for magic, binary, suffix in ((_PARQUET, PARQUET, ".parquet"), (_ARROW, ARROW_FILE, ".arrow")):
        if head.startswith(magic) and (kind == suffix or compression or _ends_with(path, magic)):
            return binary
    return None


def _ends_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - len(magic)))
        return size > 2 * len(magic) and file.read() == magic


def _text_format(path: Path, head: bytes, compression: str | None) -> str:
    """The format of a file that is text, as far as its first bytes show."""
    kind = named_kind(path)
    named = _BY_NAME.get(kind)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if named is None:
        if start[:1] == b"{" and start[1:].lstrip()[:1] == b'"':
            return JSON
        raise UserError(
            f"The corpus {path} ends in none of {', '.join(SUFFIXES)}, and its first bytes show no such format; "
            "convert it to one of them."
        )
    says_compressed = path.suffix.lower() in COMPRESSED and compression is None
    is_as_named = named in (PLAIN, JSON) and not says_compressed
    if is_as_named or not head:
        return named if is_as_named else JSON  # an empty file is empty whatever it was to be
    if start[:1] in (b"{", b"[") and named != PLAIN:
        return JSON
    says = "that it is compressed" if says_compressed else kind
    raise UserError(
        f"The corpus file {path} cannot be read: its name says {says}, but it begins with {_shown(head)}. "
        "Fetch it again, or rename it to what it is (.txt for plain text)."
    )


def _shown(head: bytes) -> str:
    """The first bytes as a person can read them."""
    return repr(head[:16].decode("ascii", "backslashreplace"))
