"""Makes text harmless to whatever shows it: hostile characters are spelled out, for terminal and report alike."""

import unicodedata

# Control, format (bidirectional marks, zero-width), surrogate, private use, unassigned, line and paragraph separators.
_ACTING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    """`text` with every character that would not show, or would change how others show, spelled out.

    Control characters (including ANSI escapes and null bytes), direction marks, surrogates and line separators become
    escapes such as ``\\x1b`` or ``\\u202e``; a leading combining mark gets a dotted circle to stand on.
    """
    shown = "".join(_visible_character(character) for character in text)
    return "◌" + shown if shown and unicodedata.category(shown[0]).startswith("M") else shown


def fitted(text: str, width: int = 80) -> str:
    """`text` made visible, and cut at `width` characters with an ellipsis if it is longer."""
    shown = visible(text[: width + 1])  # a text may be megabytes long: never spell it whole
    return shown if len(text) <= width else shown[: width - 1] + "…"


def of_bytes(value: bytes) -> str:
    """Bytes that are no whole character, as ``<0xE2><0x80>``, but spaces as they are: as `token_shown` in SQL."""
    return "".join(" " if byte == 0x20 else f"<0x{byte:02X}>" for byte in value)


def plural(count: int, one: str, several: str | None = None) -> str:
    """A number with its noun: 1 run, 2 runs, 1,234 runs."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def inert(text: str) -> str:
    """A message of several lines made visible, uncut, with its line ends kept."""
    return "\n".join(visible(line) for line in text.split("\n"))


def _visible_character(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    if unicodedata.category(character) not in _ACTING:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
