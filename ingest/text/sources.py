"""Where texts come from, as `--corpus` names it: `c4`, `builtin`, a data set of the hub, or a path, with a label."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rare_tokens.common.errors import UserError
from rare_tokens.ingest.text.records import TEXT

C4 = "c4"
BUILTIN = "builtin"
HUB = "hf:"

_LABELLED = re.compile(r"([\w.-]+)=(.+)")
_HUB_FORM = "hf:NAME[:CONFIG][:SPLIT][@REVISION][#FIELD]"
_HUB_NAME = re.compile(
    r"hf:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<first>[^:@#]*))?(?::(?P<second>[^:@#]+))?"
    r"(?:@(?P<revision>[^@#]+))?(?:#(?P<field>.+))?"
)


@dataclass(frozen=True)
class HubName:
    """A data set of the hub as it was asked for.

    Attributes:
        name: `OWNER/NAME`, or `NAME` alone for an old one.
        parts: what stands between colons, at most two: configuration and split (an empty configuration is the default
            one), or one of them alone. `hub_dataset.resolve` says which one it is.
        revision: branch, tag or commit; None: the newest.
        field: the field of its rows that holds the text; None: not said here.
    """

    name: str
    parts: tuple[str, ...] = ()
    revision: str | None = None
    field: str | None = None

    @property
    def label(self) -> str:
        """Name, configuration and split as they were written."""
        return ":".join([self.name, *self.parts])

    def __str__(self) -> str:
        """As `--corpus` takes it."""
        revision = f"@{self.revision}" if self.revision else ""
        return HUB + self.label + revision + (f"#{self.field}" if self.field else "")


C4_ON_THE_HUB = HubName("allenai/c4", ("en", "train"), field=TEXT)


@dataclass(frozen=True)
class Source:
    """Where texts come from: `place` is `c4`, `builtin`, `hf:…` or a path, `label` the domain of its documents."""

    place: str
    label: str
    is_labelled: bool  # by the user, not by its name

    @property
    def hub(self) -> HubName | None:
        """The data set that is streamed, None for texts in hand.

        Raises:
            UserError: it is no name of a data set.
        """
        if self.place == C4:
            return C4_ON_THE_HUB
        return parse_hub_name(self.place) if self.place.startswith(HUB) else None

    @property
    def key(self) -> str:
        """What is the same for two spellings of one path."""
        if self.place in (C4, BUILTIN) or self.place.startswith(HUB):
            return self.place
        return str(Path(self.place).expanduser().resolve())

    @property
    def shown(self) -> str:
        """As a person wrote it, without the folders of a path."""
        name = self.place if self.place.startswith(HUB) else Path(self.key).name
        return f"{self.label}={name}" if self.is_labelled else name


def parse_sources(given: Sequence[str]) -> list[Source]:
    """Corpora as `--corpus` names them, `LABEL=SOURCE` or `SOURCE`; a path that exists as written is a path.

    Raises:
        UserError: a corpus is named twice, a label given to two, or a data set's name has another form.
    """
    found = [_source(text) for text in given]
    for first, second in itertools.combinations(found, 2):
        if first.key == second.key:
            raise UserError(f"The corpus {second.place} is named twice; name it once.")
        if first.label == second.label and (first.is_labelled or second.is_labelled):
            raise UserError(
                f"Two corpora have the label {first.label}; give each its own, or put them into one folder."
            )
    return found


def parse_hub_name(text: str) -> HubName:
    """A data set as `--corpus` names it, ``hf:NAME[:CONFIG][:SPLIT][@REVISION][#FIELD]``.

    Raises:
        UserError: it has another form.
    """
    found = _HUB_NAME.fullmatch(text)
    if found is None:
        raise UserError(f"--corpus {text[:200]}: a data set of the hub is named {_HUB_FORM}, e.g. hf:allenai/c4:en.")
    parts = tuple(part for part in (found["first"], found["second"]) if part is not None)
    return HubName(found["name"], () if parts == ("",) else parts, found["revision"], found["field"])


def _source(given: str) -> Source:
    labelled = None if Path(given).expanduser().exists() else _LABELLED.fullmatch(given)
    label, place = labelled.groups() if labelled else (None, given)
    found = Source(place, label or "", labelled is not None)
    hub = None if place == C4 else found.hub
    return found if label else replace(found, label=hub.label if hub else Path(found.key).name)
