"""Which of the listed checkpoints `--revisions FIRST..LAST[:STRIDE|log]` names; nothing is fetched."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rare_tokens.common.checkpoint_names import CheckpointName, parse
from rare_tokens.common.errors import UserError

LOG = "log"
_RANGE = re.compile(r"(?P<first>.+?)\.\.(?P<last>[^:]+)(?::(?P<by>\w+))?")
_STAGE = re.compile(r"(?:stage|phase)[-_]?(\d{1,4})", re.IGNORECASE)


@dataclass(frozen=True)
class _End:
    """One end of a range.

    Attributes:
        stage: that it names; None: none.
        step: that it names; None: all of the stage.
        kind: word and branch of the checkpoints that it means; None: a bare number, or a stage.
    """

    stage: int | None
    step: int | None
    kind: tuple[str, str] | None


@dataclass(frozen=True)
class _Range:
    """A range as it was written, and what it says."""

    wanted: str
    first: _End
    last: _End
    by: str | None

    def refused(self, why: str) -> UserError:
        """The error that says why it cannot be followed."""
        return UserError(f"--revisions {self.wanted}: {why}")


def select(wanted: str, available: Sequence[str]) -> list[str]:
    """The revisions that a range names, in order of training.

    Args:
        wanted: `FIRST..LAST`, each a checkpoint's name, the number of its step, or a whole stage (`stage1`): every
            checkpoint between the two, both included. With `:STRIDE` those at FIRST, FIRST + STRIDE, … whether they are
            there or not; with `:log` the first, the last, and of the rest the nearest to each power of two. Stride and
            log go within each stage.
        available: the model's revisions.

    Raises:
        UserError: it is no such range, it runs backwards, its ends do not belong together, it leaves open which stage
            or which of two names is meant, or no checkpoint is in it.
    """
    asked = _read(wanted)
    known = [name for name in map(parse, available) if name]
    members = _of_kind(asked, known)
    asked = _with_stages(asked, members)
    _require_stages(asked, members, known)
    within = [name for name in members if _lower(asked) <= name.order <= _upper(asked)]
    if not within:
        raise asked.refused(f"no checkpoint of the model lies in it. {_shown(members or known)}")
    _require_one_each(asked, within)
    stages = sorted({name.stage or 0 for name in within})
    return [name for stage in stages for name in _of_stage(asked, stage, within)]


def _read(wanted: str) -> _Range:
    match = _RANGE.fullmatch(wanted)
    ends = [_end(match[name]) for name in ("first", "last")] if match else []
    if match is None or None in ends:
        raise UserError(
            f"--revisions {wanted}: not a range. Write FIRST..LAST, FIRST..LAST:STRIDE or FIRST..LAST:log, as in "
            "step0..step143000:log."
        )
    first, last = (end for end in ends if end)
    asked = _Range(wanted, first, last, match["by"])
    kinds = {end.kind for end in (first, last) if end.kind}
    if len(kinds) > 1 or _is_backwards(first, last):
        raise asked.refused(f"from {match['first']} to {match['last']} is no range of checkpoints.")
    return asked


def _is_backwards(first: _End, last: _End) -> bool:
    if first.stage is not None and last.stage is not None and first.stage != last.stage:
        return first.stage > last.stage
    return first.step is not None and last.step is not None and first.step > last.step


def _end(text: str) -> _End | None:
    if stage := _STAGE.fullmatch(text):
        return _End(int(stage[1]), None, None)
    name = parse(text)
    if name is None:
        return None
    return _End(name.stage, name.step, name.kind if name.word else None)


def _of_kind(asked: _Range, known: list[CheckpointName]) -> list[CheckpointName]:
    """The checkpoints that are named as the ends are; where these say no branch and all have one, that one."""
    kind = asked.first.kind or asked.last.kind
    if kind is None:
        plain = [name for name in known if not name.branch] or known
        if len(branches := {name.branch: name.listed for name in plain}) > 1:
            one, other, *_ = branches.values()
            raise asked.refused(f"{one} and {other} are not of one series. Write the ends as one of them is named.")
        return plain
    word, branch = kind
    same_word = [name for name in known if name.word == word]
    if not branch and len({name.branch for name in same_word}) == 1:
        return same_word
    return [name for name in same_word if name.branch == branch]


def _with_stages(asked: _Range, members: list[CheckpointName]) -> _Range:
    """The range with a stage at both ends, where the checkpoints have stages."""
    stages = sorted({name.stage or 0 for name in members})
    first, last = asked.first.stage, asked.last.stage
    if first is None and last is None and len(stages) > 1:
        each = ", ".join(str(stage) for stage in stages)
        raise asked.refused(
            f"the model has checkpoints of stages {each}. Name the stage at both ends, as in "
            f"stage{stages[-2]}-step0..stage{stages[-1]}-step1000, or take whole ones: "
            f"stage{stages[0]}..stage{stages[-1]}."
        )
    only = stages[0] if len(stages) == 1 else 0
    first = first if first is not None else last if last is not None else only
    last = last if last is not None else first
    return replace(asked, first=replace(asked.first, stage=first), last=replace(asked.last, stage=last))


def _require_stages(asked: _Range, members: list[CheckpointName], known: list[CheckpointName]) -> None:
    """Refuse a stage of which the model has only checkpoints that are named in another way."""
    for stage in (asked.first.stage, asked.last.stage):
        others = [name.listed for name in known if name.stage == stage]
        if stage and others and not any(name.stage == stage for name in members):
            raise asked.refused(f"stage {stage} has {others[0]} and the like. Take them in a range of their own.")


def _lower(asked: _Range) -> tuple[int, float]:
    step = asked.first.step
    return asked.first.stage or 0, -1 if step is None else step


def _upper(asked: _Range) -> tuple[int, float]:
    step = asked.last.step
    return asked.last.stage or 0, math.inf if step is None else step


def _require_one_each(asked: _Range, within: list[CheckpointName]) -> None:
    for one, other in pairwise(sorted(within, key=lambda name: (name.order, name.listed))):
        if one.order == other.order:
            raise asked.refused(
                f"{one.listed} and {other.listed} are both step {one.step}. Write the ends as the ones that you mean "
                "are named, or give each with --revision."
            )


def _of_stage(asked: _Range, stage: int, within: list[CheckpointName]) -> Iterator[str]:
    """The names of a stage that the range takes, at its stride."""
    listed = {name.step: name for name in within if (name.stage or 0) == stage}
    steps = sorted(listed)
    first = asked.first.step if (asked.first.stage or 0) == stage else None
    last = asked.last.step if (asked.last.stage or 0) == stage else None
    ends = (steps[0] if first is None else first, steps[-1] if last is None else last)
    for step in _spaced(asked, steps, *ends):
        yield listed[step].listed if step in listed else listed[steps[0]].at(step)


def _spaced(asked: _Range, steps: list[int], first: int, last: int) -> list[int]:
    by = asked.by
    if by is None:
        return steps
    if by == LOG:
        powers = [2**k for k in range(max(0, math.ceil(math.log2(max(1, first)))), last.bit_length())]
        nearest = {min(steps, key=lambda step: abs(math.log((step or 0.5) / power))) for power in powers}
        return sorted({steps[0], steps[-1]} | nearest)
    if not by.isdecimal() or int(by) == 0:
        raise asked.refused(f"{by} is no stride. Give a number of steps, or log.")
    return list(range(first, last + 1, int(by)))


def _shown(names: list[CheckpointName]) -> str:
    ordered = sorted(names, key=lambda name: name.order)
    return f"It has {ordered[0].listed} to {ordered[-1].listed}." if ordered else "It has no numbered checkpoints."
