"""The answer in one sentence: does the layer have a plateau for rare words, how high, and is it theirs alone?"""

import math
from collections.abc import Mapping
from typing import Any

from rare_tokens.analyses.report.data.text import integer, number, p_value

Row = Mapping[str, Any]

HEADS = {"raised": "a raised head", "shelf": "a shelf", "steep": "a steep head"}
FEW = 1_000  # positions of a group below which the page warns


def answer(run: Row, rare: Row, common: Row, difference: Row | None) -> str:
    """What one run says about rare words under one preset, in one sentence.

    Args:
        run: `dim_run`.
        rare: the rare group's row of `summary.group_summaries`.
        common: that of the common group.
        difference: `plateau_difference`; None: not compared.
    """
    layer = f"layer {run['layer']} of {run['model']}"
    if rare["empty_reason"]:
        return f"Nothing can be said of rare words in {layer}: {rare['empty_reason']}."
    if rare["decision"] is None:
        return (
            f"Whether a few neurons of {layer} stand out for rare words was not tested"
            f" ({rare['decision_reason'] or '`analyze` does it'}); the most influential, neuron {rare['top_neuron']},"
            f" changes their loss by {number(rare['top_influence'])} nats on average."
        )
    if rare["decision"] == "present":
        begin = f"Yes: {_size(rare)} of the {integer(run['neurons'])} neurons in {layer} form {_head(rare)} for rare"
        begin += f" words, {_height(rare)} times above the power law of those that follow ({_p(rare)})"
        return f"{begin}; {_common(common, difference)}."
    found = f"{_p(rare)}{_found(rare)}"
    if rare["decision"] == "absent":
        begin = f"No: in {layer} no few neurons stand above the curve of the others for rare words ({found})"
    else:
        begin = (
            f"Undecided: this text does not tell whether a few neurons of {layer} stand out for rare words ({found})"
        )
    return f"{begin}; {_common(common, None)}."


def disagreement(decisions: Mapping[str, str | None]) -> str | None:
    """What to say where presets decide differently about rare words; None where they agree.

    Args:
        decisions: by preset, its decision; None: none.
    """
    known = {preset: decision for preset, decision in decisions.items() if decision}
    if len(set(known.values())) < 2:
        return None
    by_decision = {one: [preset for preset, decision in known.items() if decision == one] for one in known.values()}
    parts = [f"{decision} under {' and '.join(presets)}" for decision, presets in by_decision.items()]
    return f"The definitions of rare disagree: a plateau for rare words is {', '.join(parts)}."


def thin(group: Row) -> str | None:
    """What to say of a group with few positions; None if it has enough or none."""
    if group["empty_reason"] or group["positions"] is None or group["positions"] >= FEW:
        return None
    return f"{integer(group['positions'])} {group['token_group']} positions under {group['preset']}"


def _common(common: Row, difference: Row | None) -> str:
    if common["empty_reason"]:
        return f"of common words nothing can be said ({common['empty_reason']})"
    if common["decision"] is None:
        return "for common words it was not tested"
    if common["decision"] == "absent":
        return f"for common words there is none ({_p(common)})"
    if common["decision"] == "undecided":
        return f"for common words it is undecided ({_p(common)})"
    said = f"common words have one too, of {_size(common)}"
    return said + _beside(difference) if difference else said


def _beside(difference: Row) -> str:
    """How the common head compares with the rare one."""
    said = ""
    if difference["step_low"] is not None and difference["determined"] is not False:
        low, high = difference["step_low"], difference["step_high"]
        if low <= 0 <= high:
            said = ", as high within its interval"
        else:
            times = sorted(math.exp(abs(end)) for end in (low, high))
            factor = number(math.exp(abs(difference["step"])), 2)
            said = f", {factor} [{number(times[0], 2)}, {number(times[1], 2)}] times {'lower' if low > 0 else 'higher'}"
    if difference["shared"] is not None:
        said += (
            f", and {integer(difference['shared'])} of the first {integer(difference['first'])} are the same neurons"
        )
    return said


def _size(row: Row) -> str:
    if row["break_rank"] is None or row["break_determined"] is False:
        return "an undetermined number"
    ends = "" if row["break_low"] is None else f" [{integer(row['break_low'])}, {integer(row['break_high'])}]"
    return f"{integer(row['break_rank'])}{ends}"


def _height(row: Row) -> str:
    """The step at the end of the head as a factor."""
    factor = number(math.exp(row["step"]), 2)
    if row["step_low"] is None:
        return factor
    return f"{factor} [{number(math.exp(row['step_low']), 2)}, {number(math.exp(row['step_high']), 2)}]"


def _head(row: Row) -> str:
    return HEADS.get(row["head"] or "", "a plateau")


def _p(row: Row) -> str:
    return f"p = {p_value(row['p_value'], 0.01)}"


def _found(row: Row) -> str:
    if row["power"] is None:
        return ""
    return f"; a step of 0.5 in 1\u00a0% of them would be found with probability {number(row['power'], 2)}"
