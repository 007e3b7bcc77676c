"""A folder of checkpoints, each in a subfolder whose name says its step: which there are, and which one is meant."""

from pathlib import Path

from rare_tokens.common.checkpoint_names import CheckpointName, parse
from rare_tokens.common.errors import UserError

SHOWN = 8  # names in a message


class NoCheckpointError(UserError):
    """A revision that is not there, or has no weights; in a range of checkpoints, a gap."""


def checkpoint_folders(folder: Path) -> list[CheckpointName]:
    """The checkpoints in a folder, in order of training; none where no subfolder's name says a step."""
    names = [parse(item.name) for item in folder.iterdir() if item.is_dir()]
    return sorted((name for name in names if name), key=lambda name: (name.order, name.listed))


def last(found: list[CheckpointName]) -> str:
    """The last checkpoint in training of a folder that has some.

    Raises:
        UserError: several have the last step.
    """
    latest = [name.listed for name in found if name.order == found[-1].order]
    if len(latest) > 1:
        raise UserError(f"{_listed(latest)} are all at the last step. Name one of them with --revision.")
    return latest[0]


def named(found: list[CheckpointName], revision: str) -> str:
    """The one checkpoint of a folder that a revision means: its name, or the number of its step.

    Raises:
        NoCheckpointError: there is none of that name or number.
        UserError: several have that number.
    """
    names = [name.listed for name in found]
    if revision in names:
        return revision
    numbered = [name.listed for name in found if revision.isdecimal() and name.step == int(revision)]
    if len(numbered) > 1:
        raise UserError(f"--revision {revision}: {_listed(numbered)} have that step. Give the name of one.")
    if not numbered:
        raise NoCheckpointError(f"--revision {revision}: there is no such checkpoint. There are {_listed(names)}.")
    return numbered[0]


def _listed(names: list[str]) -> str:
    if len(names) > SHOWN:
        names = [*names[: SHOWN - 1], f"… ({len(names) - SHOWN} more)", names[-1]]
    return ", ".join(names)
