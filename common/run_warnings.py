"""What a run warns about before its groups are read: the only table of these rules.

The warehouse applies it to what is stored to make its relation `run_warning`, so runs of older warehouses warn too;
ingest warns by the first rule while there is still time to choose another source. docs/definitions.md, "Tokens",
explains the limits.
"""

from dataclasses import dataclass

SMALL_SOURCE = 5_000_000  # tokens; a frequency source with fewer carries a warning
LARGE_ELBOW = 0.05  # share of positions; a preset whose elbow leaves out more carries a warning


@dataclass(frozen=True)
class WarningRule:
    """When a run warns.

    Attributes:
        kind: name of the rule.
        threshold: `few_tokens`: tokens that the source must have; `large_elbow`: largest share of positions (0 to 1)
            that may be left out.
    """

    kind: str
    threshold: float


RULES = (WarningRule("few_tokens", float(SMALL_SOURCE)), WarningRule("large_elbow", LARGE_ELBOW))
