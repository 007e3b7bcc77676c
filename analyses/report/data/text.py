"""Text that is safe to show: hostile tokens made visible, numbers in few digits, JSON that cannot leave its element."""

import json
import math
from typing import Any

from markupsafe import Markup

from rare_tokens.common.text import visible

TOKEN_LENGTH = 32  # characters shown of a token
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def shortened(text: str, limit: int = TOKEN_LENGTH) -> str:
    """`text` made visible; anything beyond `limit` characters is cut, and the cut says how much is missing."""
    shown = visible(text[:limit])
    return shown if len(text) <= limit else f"{shown}… (+{len(text) - limit:,} characters)"


def visible_token(text: str | None) -> str:
    """A vocabulary entry for reading: as `shortened`, with outer spaces, where words start, drawn as ␣."""
    if text is None:
        return "?"
    head = text[: TOKEN_LENGTH + 1]  # a token may be megabytes long: never copy it whole
    lead = len(head) - len(head.lstrip(" "))
    trail = len(head) - len(head.rstrip(" ")) if len(text) <= TOKEN_LENGTH else 0
    if lead == len(text):
        return "␣" * lead
    return shortened("␣" * lead + text[lead : len(text) - trail] + "␣" * trail)


def number(value: float | None, digits: int = 3) -> str:
    """`value` to so many significant digits, with a true minus sign, and 10ⁿ if it is tiny or huge; – for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -4 <= exponent < 6:
        text = f"{value:,.{max(digits - 1 - exponent, 0)}f}"
    else:
        text = f"{value / 10.0**exponent:.{digits - 1}f}\u00a0×\u00a010{str(exponent).translate(_SUPERSCRIPT)}"
    return text.replace("-", "−")


def p_value(value: float | None, threshold: float = 0.05) -> str:
    """A p-value to two digits, and to as many more as tell on which side of `threshold` it is; – for none."""
    for digits in range(2, 8):
        text = number(value, digits)
        if value is None or value == threshold or (f"{value:.{digits - 1}e}" != f"{threshold:.{digits - 1}e}"):
            break
    return text


def milli(value: float | None, digits: int = 3) -> str:
    """`value` in thousandths, for tables of influence: one exponent for all rows reads better than one per row."""
    return number(None if value is None else 1000 * value, digits)


def plain(value: float | None) -> str:
    """`value` as a paper prints it, without needless zeros."""
    return "–" if value is None else f"{value:g}".replace("-", "−")


def fixed(value: float | None, decimals: int = 3) -> str:
    """`value` to so many decimals; – for none."""
    return "–" if value is None else f"{value:.{decimals}f}".replace("-", "−")


def signed(value: float | None, decimals: int = 2) -> str:
    """`value` with its sign and so many decimals; – for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:+.{decimals}f}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share between 0 and 1 as a percentage; – for none."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.1f}\u00a0%" if 0 < share < 0.1 else f"{100 * share:.0f}\u00a0%"


def integer(value: float | None) -> str:
    """A count with thousands separators; – for none."""
    return "–" if value is None else f"{value:,.0f}"


def inline_json(value: Any) -> Markup:
    """`value` as JSON that is inert inside a script element: ASCII only, and neither ``<`` nor ``>`` nor ``&``."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - nothing in it can end the element it is put in
