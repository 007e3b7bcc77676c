"""Which layers `--layer` means, and what it refuses."""

import pytest

from rare_tokens.common.errors import UserError
from rare_tokens.common.layers import Layers, asked_layers


@pytest.mark.parametrize(
    ("text", "spelled", "of_four"),
    [
        ("0,3", "0,3", (0, 3)),
        (" -1 , +1,2", "-1,1,2", (-1, 1, 2)),
        ("all", "all", (0, 1, 2, 3)),
    ],
)
def test_several_layers(text: str, spelled: str, of_four: tuple[int, ...]) -> None:
    asked = asked_layers(text)
    assert isinstance(asked, Layers)
    assert (str(asked), asked.of(4), asked.are_all) == (spelled, of_four, text == "all")


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-1", -1), (" 12 ", 12), ("+3", 3), ("-0", 0)])
def test_a_single_layer_is_a_number(text: str, number: int) -> None:
    assert asked_layers(text) == number


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no number"),
        ("last", "'last' is no number"),
        ("0,", "'' is no number"),
        ("0,1.5", "'1.5' is no number"),
        ("1_0", "'1_0' is no number"),
        ("0..3", "'0..3' is no number"),
        ("9" * 5000, "is no number"),
        ("all,0", "Give all by itself"),
        ("1,all", "Give all by itself"),
        ("ALL", "'ALL' is no number"),
        ("2,0,2", "2 is given twice"),
        ("0,-0", "0 is given twice"),
    ],
)
def test_what_is_no_layer_is_refused_with_the_value(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as raised:
        asked_layers(text)
    assert str(raised.value).startswith(f"--layer {text}: ")


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ((3, -1), "--layer 3,-1: 3 and -1 are the same layer of a model with 4"),
        ((0, 4), "--layer 4: the model has 4 layers. Use 0 to 3"),
        ((-5, 0), "--layer -5: the model has 4 layers"),
    ],
)
def test_what_a_model_does_not_have_is_refused(numbers: tuple[int, ...], why: str) -> None:
    with pytest.raises(UserError, match=why):
        Layers(numbers).of(4)
