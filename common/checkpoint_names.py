"""What the name of a checkpoint says: the stage of training, its step, the tokens seen, and whatever else is in it.

The one rule for all layers: for a folder of checkpoints, for ranges, and for the columns of `dim_run`.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

_FLAGS = re.IGNORECASE | re.ASCII
_STAGE = re.compile(r"(?<![a-z])(?:stage|phase)[-_= ]?(\d{1,4})(?!\d)", _FLAGS)
_STEP = re.compile(
    r"(?<![a-z])(?P<head>(?P<word>global[-_ ]?step|steps?|checkpoint|ckpt|iteration|iter|update|batch|ba)"
    r"[-_= ]?)(?P<number>\d{1,15})(?P<unit>[km]?)(?=[^0-9a-z]|tokens?|$)",
    _FLAGS,
)
_EPOCH = re.compile(r"(?<![a-z])(?P<head>(?P<word>epoch|ep)[-_= ]?)(?P<number>\d{1,15})(?P<unit>)(?![0-9a-z])", _FLAGS)
_BARE = re.compile(r"(?P<head>(?P<word>))(?P<number>\d{1,15})(?P<unit>)", _FLAGS)
_TOKENS = re.compile(
    r"[-_]?(?<![a-z])tokens?[-_= ]?(\d{1,15}(?:\.\d{1,6})?)([kmbt]?)(?![0-9a-z])"
    r"|[-_]?(?<![0-9a-z.])(\d{1,15}(?:\.\d{1,6})?)([kmbt])[-_ ]?tokens?(?![a-z])",
    _FLAGS,
)
_SEPARATORS = " -_=./"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_LARGEST = 2**63 - 1  # that a column of the warehouse holds


@dataclass(frozen=True)
class CheckpointName:
    """A name as it is listed, and what it says.

    Attributes:
        listed: the name itself.
        stage: number of the stage of training (`stage2`, `phase2`); None: it names none.
        step: number of the step, or of the checkpoint where the checkpoints are counted (`ckpt_000`).
        tokens: tokens seen in training so far; None: it does not say.
        branch: all else that it says, such as `seed2`, `ingredient1`, `unsharded`, joined by `-`; mostly empty.
        word: what its step is called, in lower case: `step`, `global_step`, `checkpoint`; empty for a bare number.
    """

    listed: str
    stage: int | None
    step: int
    tokens: int | None
    branch: str
    word: str

    @property
    def order(self) -> tuple[int, int]:
        """Its place in training: by stage, then by step."""
        return (self.stage or 0, self.step)

    @property
    def kind(self) -> tuple[str, str]:
        """Which checkpoints it belongs with: those whose steps have the same word, and of the same branch."""
        return (self.word, self.branch)

    def at(self, step: int) -> str:
        """The name of this kind at another step, as far as it can be told: without tokens, with as many zeros."""
        found = _step(self.listed)
        assert found is not None
        width = len(found["number"]) if found["number"].startswith("0") else 0
        before, after = (_TOKENS.sub("", part) for part in _around(self.listed, found))
        return f"{before}{found['head']}{step:0{width}d}{after}".lstrip(_SEPARATORS)


def parse(name: str) -> CheckpointName | None:
    """What a name says of its place in training; None where it names no step, as `main` and `v1.0` do.

    A name is known by a word and a number: `step1000`, `step-1000`, `checkpoint-1000`, `ckpt_000`, `iter_0000500`,
    `global_step1000`, `step-50k`; with `stage1`, `phase1`, `tokens4B` and other things before or after. A bare number
    is a step. An epoch is read as the step only where nothing else is.
    """
    at = _step(name)
    if at is None:
        return None
    around = _around(name, at)
    stages = [int(found[1]) for part in around if (found := _STAGE.search(part))]
    tokens = [count for part in around if (count := _tokens(part)) is not None]
    step = int(at["number"]) * _UNITS[at["unit"].lower()]
    if max(step, *tokens, 0) > _LARGEST:
        return None
    word = re.sub(r"[-_ ]", "_", at["word"].lower()).removesuffix("s")
    return CheckpointName(
        name, stages[0] if stages else None, step, tokens[0] if tokens else None, _branch(around), word
    )


def _step(name: str) -> re.Match[str] | None:
    return _STEP.search(name) or _EPOCH.search(name) or _BARE.fullmatch(name)


def _around(name: str, step: re.Match[str]) -> tuple[str, str]:
    """What stands before and after the step."""
    return name[: step.start()], name[step.end() :]


def _tokens(part: str) -> int | None:
    found = _TOKENS.search(part)
    if found is None:
        return None
    number, unit = found[1] or found[3], found[2] or found[4] or ""
    return int(Decimal(number) * _UNITS[unit.lower()])


def _branch(parts: tuple[str, ...]) -> str:
    """What is left of a name around its step without stage, tokens and epoch."""
    for pattern in (_TOKENS, _STAGE, _EPOCH):
        parts = tuple(piece for part in parts for piece in pattern.sub("\0", part).split("\0"))
    return "-".join(filter(None, (piece.strip(_SEPARATORS) for piece in parts)))
