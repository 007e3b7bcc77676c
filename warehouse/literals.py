"""Texts, names and files, written as SQL."""

from pathlib import Path


def text(value: object) -> str:
    """A text in quotes."""
    return "'" + str(value).replace("'", "''") + "'"


def value(given: str | float | None) -> str:
    """A Python value; numbers keep every digit."""
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    return text(given) if isinstance(given, str) else f"{given!r}::{'bigint' if isinstance(given, int) else 'double'}"


def name(identifier: str) -> str:
    """A name in quotes, whatever characters it has."""
    return '"' + identifier.replace('"', '""') + '"'


def file(path: Path) -> str:
    """A file for `read_parquet`: its path in quotes, without patterns."""
    return text(unpatterned(path.resolve()))


def unpatterned(path: Path | str) -> str:
    """A path whose pattern characters are escaped from the engine's file search."""
    escaped = str(path)
    for character in "[*?":  # `[` first: the brackets around the others must stay
        escaped = escaped.replace(character, f"[{character}]")
    return escaped
