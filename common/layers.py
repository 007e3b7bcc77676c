"""Which layers of a model a command means: one by its number, several, or all of them."""

import re
from dataclasses import dataclass

from rare_tokens.common.errors import OptionError, UserError

ALL = "all"
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(frozen=True)
class Layers:
    """Several layers, as they are asked for.

    Attributes:
        numbers: at least two, counted from 0 or, if negative, from the last; empty: all layers.
    """

    numbers: tuple[int, ...] = ()

    @property
    def are_all(self) -> bool:
        """Whether all layers are meant, however many the model has."""
        return not self.numbers

    def of(self, depth: int) -> tuple[int, ...]:
        """The layers of a model with `depth` of them, in the order asked for; numbers stay as they were given.

        Raises:
            OptionError: the model has no such layer, or two numbers are the same layer.
        """
        if self.are_all:
            return tuple(range(depth))
        seen: dict[int, int] = {}
        for number in self.numbers:
            index = layer_index(number, depth)
            if index in seen:
                raise OptionError(
                    f"--layer {self}: {seen[index]} and {number} are the same layer of a model with {depth}. "
                    "Leave one out."
                )
            seen[index] = number
        return self.numbers

    def __str__(self) -> str:
        """As the option spells them."""
        return ALL if self.are_all else ",".join(map(str, self.numbers))


def asked_layers(text: str) -> int | Layers:
    """What `--layer` asks for: a number, or several layers.

    Raises:
        UserError: it is neither a number, nor several separated by commas, nor `all`; or one is given twice.
    """
    names = [name.strip() for name in text.split(",")]
    if names == [ALL]:
        return Layers()
    if ALL in names:
        raise UserError(f"--layer {text}: all layers and single ones. Give all by itself, or numbers alone.")
    wrong = next((name for name in names if not _NUMBER.fullmatch(name)), None)
    if wrong is not None:
        raise UserError(
            f"--layer {text}: '{wrong}' is no number of a layer. Count from 0, or from the last: -1, -2; separate "
            "several by commas; or give all."
        )
    numbers = tuple(map(int, names))
    twice = next((number for place, number in enumerate(numbers) if number in numbers[:place]), None)
    if twice is not None:
        raise UserError(f"--layer {text}: {twice} is given twice. Leave one out.")
    return numbers[0] if len(numbers) == 1 else Layers(numbers)


def layer_index(layer: int, depth: int) -> int:
    """Index of a layer counted from 0, where negative ones count from the last.

    Raises:
        OptionError: there is no such layer.
    """
    if not -depth <= layer < depth:
        raise OptionError(
            f"--layer {layer}: the model has {depth} layers. Use 0 to {depth - 1}, or -1 (the last) to -{depth}."
        )
    return layer % depth
