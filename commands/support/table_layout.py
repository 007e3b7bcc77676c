"""How a table fits a window: which columns are shown and how wide, or one field a line.

A word is never broken, so a name can always be copied whole. Text of several words is wrapped between them. Where that
is not enough, what all rows have in common (a run, a preset) is said once above the table, and columns that still do
not fit are hidden, which the table says.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = 3  # between two columns
FEW = 3  # rows that are shown one field a line where they do not fit
PROSE = 24  # text of several words is not wrapped narrower than this
LEAST_VALUE = 20  # beside the names of fields; where there is less room, or for a longer word, a value comes below
INDENT = "  "
# What says which row it is. These columns are hidden last, run_id and the first column never.
KEYS = (
    "run_id",
    "other_run_id",
    "relation",
    "analysis",
    "preset",
    "token_group",
    "group_name",
    "layer",
    "neuron",
    "rank",
    "position_id",
    "token_id",
)
NEVER_HIDDEN = ("run_id",)


@dataclass(frozen=True)
class Layout:
    """What of a table is shown.

    Attributes:
        shown: places of the columns, in order, each with its width in characters.
        common: places of columns with the same value in all rows, said once above.
        hidden: places of the others.
        is_list: one field a line instead; the rest says nothing then.
    """

    shown: dict[int, int]
    common: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()
    is_list: bool = False

    @property
    def width(self) -> int:
        """Of all columns and the gaps between them: more than the window's if one word is wider than that."""
        return _total(list(self.shown.values()))


def layout(names: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> Layout:
    """Lay out a table of texts for a window of so many characters; None: there is no window, and all is shown."""
    columns = [[name, *(row[place] for row in rows)] for place, name in enumerate(names)]
    natural = [max(map(cell_len, column)) for column in columns]
    if width is None or _total(natural) <= width:
        return Layout(dict(enumerate(natural)))
    least = [_least(column, most) for column, most in zip(columns, natural, strict=True)]
    if _total(least) <= width:
        return Layout(_widened(range(len(names)), least, natural, width))
    if 0 < len(rows) <= FEW:
        return Layout({}, is_list=True)
    common = _common(names, rows)
    places = _kept([place for place in range(len(names)) if place not in common], names, least, width)
    hidden = tuple(place for place in range(len(names)) if place not in (*common, *places))
    return Layout(_widened(places, least, natural, width), common, hidden)


def field_lines(names: Sequence[str], row: Sequence[str], width: int | None) -> list[str]:
    """A row with one field a line, values wrapped between words beside their names, or below them."""
    label = max(map(cell_len, names), default=0) + GAP
    if width is None:
        return [name + " " * (label - cell_len(name)) + value for name, value in zip(names, row, strict=True)]
    lines = []
    for name, value in zip(names, row, strict=True):
        if width - label < max(LEAST_VALUE, *map(cell_len, value.split() or [""])):
            lines += [name, *(INDENT + line for line in _wrapped(value, width - len(INDENT)))]
            continue
        first, *rest = _wrapped(value, width - label)
        lines.append(name + " " * (label - cell_len(name)) + first)
        lines += [" " * label + more for more in rest]
    return lines


def note_lines(text: str, width: int | None) -> list[str]:
    """A remark in lines of the window; a name that is longer than one is left whole. No break at a no-break space."""
    return _wrapped(text, width) if width else [text]


def _wrapped(text: str, width: int) -> list[str]:
    whole = text.replace("\u00a0", "\0")  # textwrap would break at it
    lines = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines] or [""]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * max(0, len(widths) - 1)


def _least(column: list[str], natural: int) -> int:
    """The narrowest that a column may be: its longest word, and for prose wide enough to read."""
    words = max((cell_len(word) for text in column for word in text.split()), default=0)
    has_prose = any(" " in text.strip() for text in column[1:])
    return max(words, min(natural, PROSE)) if has_prose else max(words, *map(cell_len, column[1:]), 0)


def _common(names: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """The columns that say which row it is and have one value; at least one column is left."""
    same = [place for place, name in enumerate(names) if name in KEYS and len({row[place] for row in rows}) == 1]
    return tuple(same) if len(same) < len(names) else ()


def _kept(places: Sequence[int], names: Sequence[str], least: list[int], width: int) -> list[int]:
    """The columns that are shown, those that say which row it is before the others, and otherwise from the left."""
    kept = [place for place in places if place == places[0] or names[place] in NEVER_HIDDEN]
    keys = [place for place in places if names[place] in KEYS]
    for place in [*keys, *places]:
        if place not in kept and _total([least[one] for one in (*kept, place)]) <= width:
            kept.append(place)
    return sorted(kept)


def _widened(places: Sequence[int], least: list[int], natural: list[int], width: int) -> dict[int, int]:
    """The least widths, and what the window has left shared among the columns that could use it, fewest first."""
    widths = {place: least[place] for place in places}
    spare = max(0, width - _total(list(widths.values())))
    needy = sorted(places, key=lambda place: natural[place] - least[place])
    for done, place in enumerate(needy):
        given = min(natural[place] - least[place], spare // (len(needy) - done))
        widths[place] += given
        spare -= given
    return widths
