"""Ways in which a file can be damaged."""

from pathlib import Path


def missing(file: Path, _other: Path) -> None:
    file.unlink()


def _truncated(file: Path, _other: Path) -> None:
    replace(file, file.read_bytes()[:-100])


def _foreign(file: Path, other: Path) -> None:
    replace(file, other.read_bytes())


def _other_footer(file: Path, _other: Path) -> None:
    contents = bytearray(file.read_bytes())
    contents[-40] ^= 1
    replace(file, bytes(contents))


def _no_parquet(file: Path, _other: Path) -> None:
    replace(file, b"x" * file.stat().st_size)


def _a_folder(file: Path, _other: Path) -> None:
    file.unlink()
    file.mkdir()


def replace(file: Path, contents: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(contents)


DAMAGES = [missing, _truncated, _foreign, _other_footer, _no_parquet, _a_folder]
