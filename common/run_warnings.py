"""What a run warns of before its groups are read: the one table of the rules.

The warehouse makes its relation `run_warning` of it, from what is stored, so that runs of older warehouses warn too;
ingest warns of the first rule while there is still time to take another source. docs/definitions.md, "Tokens", says
why the limits are what they are.
"""

from dataclasses import dataclass

SMALL_SOURCE = 5_000_000  # tokens; a frequency source that has fewer carries a warning
LARGE_ELBOW = 0.05  # of the positions; a preset that leaves out more with the elbow carries a warning


@dataclass(frozen=True)
class WarningRule:
    """When a run warns.

    Attributes:
        kind: name of the rule.
        threshold: `few_tokens`: tokens that the source must have; `large_elbow`: share of the positions (0 to 1) that
            may be left out.
    """

    kind: str
    threshold: float


RULES = (WarningRule("few_tokens", float(SMALL_SOURCE)), WarningRule("large_elbow", LARGE_ELBOW))
