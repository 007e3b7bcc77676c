"""From seconds of little work to seconds of a whole run: what is paid once, per block and per position."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MEASURED, RECKONED = "measured", "reckoned"
# The stages of a run, in their order: finding model and text, loading, drawing the text, those of `stage_seconds` in
# `dim_run`, and publishing.
FIND, LOAD, TEXT, FORWARD, NEURONS, REFERENCES, EFFECTS, SELF_CHECK, PUBLISH = STAGES = (
    "find", "load", "text", "forward", "neurons", "references", "effects", "self-check", "publish",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """Seconds of a call on n units: ``fixed + each · n``."""

    fixed: float
    each: float

    def at(self, units: float) -> float:
        """Seconds of one call on so many units."""
        return self.fixed + self.each * units

    def of_calls(self, calls: Iterable[int]) -> float:
        """Seconds of several calls, each on the number of units given."""
        return sum(self.at(units) for units in calls)

    @classmethod
    def through(cls, small: tuple[int, float], large: tuple[int, float]) -> "Line":
        """The line through two calls, each (units, seconds); no part of it is below 0, whatever the clock says.

        A large call that took no longer than a small one shows only what is fixed; one that took longer by more than
        the ratio of their units shows only what each unit costs.
        """
        (few, short), (many, long) = sorted((small, large))
        if many == few:
            return cls(0.0, long / many)
        each = max(0.0, (long - short) / (many - few))
        fixed = long - each * many
        return cls(fixed, each) if fixed >= 0 else cls(0.0, long / many)


def calls(total: int, at_a_time: int) -> list[int]:
    """How many units each call takes where `total` are taken `at_a_time`."""
    whole, rest = divmod(total, at_a_time)
    return [at_a_time] * whole + [rest] * (rest > 0)


@dataclass(frozen=True)
class Forecast:
    """How long a run will take.

    Attributes:
        seconds: by stage (`STAGES`), in the order of the run.
        source: `measured` on a few of the run's positions, or `reckoned` from rates of other runs.
        why: for a forecast that is reckoned, why nothing was measured.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    source: str = RECKONED
    why: str = ""

    @property
    def minutes(self) -> float:
        """Of all stages."""
        return sum(self.seconds.values()) / 60
