"""The closest known name, for messages."""

import pytest

from rare_tokens.common.closest import closest, hint

RELATIONS = ["neuron_influence", "neuron_context", "dim_run", "fct_effect"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("neuron_influense", "neuron_influence"),
        ("NEURON_CONTEXT", "neuron_context"),
        ("dimrun", "dim_run"),
        ("zzz", None),
        ("", None),
    ],
)
def test_a_mistyped_name_is_recognised(given: str, found: str | None) -> None:
    assert closest(given, RELATIONS) == found


def test_the_start_of_a_long_name_counts_if_it_may() -> None:
    runs = ["smollm2-135m-main-0a1b2c3d", "embedded-step6144-3878f4ea"]
    assert closest("embeded", runs) is None
    assert closest("embeded", runs, starts=True) == "embedded-step6144-3878f4ea"
    assert hint("embeded", runs, starts=True) == " The closest is embedded-step6144-3878f4ea."
    assert hint("gpt2", runs, starts=True) == hint("x", []) == ""
