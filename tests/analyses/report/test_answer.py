"""The answer in a sentence: what it says for every decision, and when presets disagree or groups are small."""

from typing import Any

import pytest

from rare_tokens.analyses.report.data.answer import answer, disagreement, thin
from rare_tokens.analyses.report.data.text import p_value

RUN = {"model": "gpt2", "layer": 11, "neurons": 3072}
PRESENT = {
    "preset": "es", "token_group": "rare", "positions": 3_000, "empty_reason": None, "decision": "present",
    "decision_reason": None, "p_value": 0.0005, "power": 0.99, "break_rank": 50, "break_low": 48, "break_high": 55,
    "break_determined": True, "step": 0.7, "step_low": 0.6, "step_high": 0.8, "head": "raised", "top_neuron": 7,
    "top_influence": 0.25,
}  # fmt: skip
DIFFERENCE = {"step": 0.3, "step_low": 0.2, "step_high": 0.4, "determined": True, "shared": 41, "first": 50}


def group(**changes: Any) -> dict[str, Any]:
    return PRESENT | changes


COMMON = group(token_group="common", break_rank=40, break_low=38, break_high=44)


def test_a_plateau_is_said_with_its_size_height_p_and_what_common_words_have() -> None:
    said = answer(RUN, PRESENT, COMMON, DIFFERENCE)
    assert said == (
        "Yes: 50 [48, 55] of the 3,072 neurons in layer 11 of gpt2 form a raised head for rare words, 2.0 [1.8, 2.2]"
        " times above the power law of those that follow (p = 0.00050); common words have one too, of 40 [38, 44], 1.3"
        " [1.2, 1.5] times lower, and 41 of the first 50 are the same neurons."
    )


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"step": -0.3, "step_low": -0.4, "step_high": -0.2}, "1.3 [1.2, 1.5] times higher"),
        ({"step": 0.1, "step_low": -0.1}, ", as high within its interval, and 41"),
        ({"determined": False}, "of 40 [38, 44], and 41"),
        ({"step_low": None}, "of 40 [38, 44], and 41"),
        ({"shared": None}, "times lower."),
    ],
)
def test_heads_are_compared_by_their_interval(changes: dict[str, Any], part: str) -> None:
    assert part in answer(RUN, PRESENT, COMMON, DIFFERENCE | changes)


def test_what_common_words_have_can_be_nothing_undecided_or_unknown() -> None:
    for changes, part in (
        ({"decision": "absent", "p_value": 0.4}, "for common words there is none (p = 0.40)."),
        ({"decision": "undecided", "p_value": 0.04}, "for common words it is undecided (p = 0.040)."),
        ({"decision": None}, "for common words it was not tested."),
        ({"empty_reason": "no position"}, "of common words nothing can be said (no position)."),
    ):
        assert answer(RUN, PRESENT, COMMON | changes, DIFFERENCE).endswith(part)


def test_no_plateau_and_no_decision_come_with_the_power() -> None:
    absent = answer(RUN, group(decision="absent", p_value=0.3), COMMON, DIFFERENCE)
    assert absent.startswith(
        "No: in layer 11 of gpt2 no few neurons stand above the curve of the others for rare words"
    )
    assert "(p = 0.30; a step of 0.5 in 1\u00a0% of them would be found with probability 0.99)" in absent
    assert "common words have one too, of 40 [38, 44]." in absent, "nothing to compare it with"
    undecided = answer(RUN, group(decision="undecided", p_value=0.3, power=None), COMMON, None)
    assert undecided.startswith(
        "Undecided: this text does not tell whether a few neurons of layer 11 of gpt2 stand out"
    )
    assert "(p = 0.30);" in undecided


def test_what_was_not_tested_or_is_empty_says_why() -> None:
    untested = answer(RUN, group(decision=None), COMMON, None)
    assert "was not tested (`analyze` does it); the most influential, neuron 7, changes their loss by 0.250" in untested
    assert "(too few ranks)" in answer(RUN, group(decision=None, decision_reason="too few ranks"), COMMON, None)
    empty = answer(RUN, group(empty_reason="no word is rare"), COMMON, None)
    assert empty == "Nothing can be said of rare words in layer 11 of gpt2: no word is rare."
    unsure = answer(RUN, group(break_determined=False, step_low=None, head=None), COMMON, None)
    assert (
        "Yes: an undetermined number of the 3,072 neurons in layer 11 of gpt2 form a plateau for rare words, 2.0 times"
        in unsure
    )


def test_presets_that_disagree_are_named() -> None:
    assert disagreement({"es": "present", "nc": "present", "ds": None}) is None
    said = disagreement({"es": "present", "nc": "undecided", "ds": "present"})
    assert said == (
        "The definitions of rare disagree: a plateau for rare words is present under es and ds, undecided under nc."
    )


def test_small_groups_are_named() -> None:
    assert thin(group(positions=999)) == "999 rare positions under es"
    assert thin(group(positions=1_000)) is None
    assert thin(group(positions=None, empty_reason="none")) is None


def test_a_p_value_beside_its_threshold_has_the_digits_that_tell_the_side() -> None:
    assert p_value(0.0098, 0.01) == "0.0098"
    assert p_value(0.00996, 0.01) == "0.00996"
    assert p_value(0.0104, 0.01) == "0.0104"
    assert p_value(0.05, 0.05) == "0.050"
    assert p_value(0.04996) == "0.04996"
    assert p_value(None) == "–"
    assert p_value(0.2) == "0.20"
