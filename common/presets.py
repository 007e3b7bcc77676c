"""The presets: what rare and common mean. This is the only table of them.

The warehouse makes its relation `preset` from it, which marts, macros and audits use; analyses read it here. The rules
are in docs/definitions.md, "Tokens".
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A definition of rare and common tokens; the token to be predicted decides.

    Attributes:
        preset: its name.
        in_words: which tokens are rare, in words.
        percentile: where the line is drawn: rare below it; None: no line, tokens are matched in pairs at ingest.
        occurrences: whether the line is drawn by occurrence percentile, not type percentile.
        words: whether only words are rare.
        elbow: whether tokens at the elbow of the frequency curve are in a group too.
        strict: whether common tokens lie above the line, so that one exactly on it is in neither group.
        rare_below: frequency below which tokens are rare; None: no bound.
        common_above: frequency above which tokens are common; None: no bound.
        least_source: tokens that the frequency source must have; None: any number.
        paper: the source of the definition.
    """

    preset: str
    in_words: str
    percentile: float | None = None
    occurrences: bool = False
    words: bool = False
    elbow: bool = True
    strict: bool = False
    rare_below: float | None = None
    common_above: float | None = None
    least_source: int | None = None
    paper: str = ""


PRESETS = {
    one.preset: one
    for one in (
        Preset(
            "es",
            "correctly spelled words below the median word type",
            percentile=50.0,
            words=True,
            paper="ES §3.1",
        ),
        Preset(
            "nc",
            "the rarer half of occurrences",
            percentile=50.0,
            occurrences=True,
            paper="NC §2",
        ),
        Preset(
            "ds",
            "the rarest 15 % of types, the elbow left out",
            percentile=15.0,
            elbow=False,
            strict=True,
            paper="DS",
        ),
        Preset(
            "nc-matched",
            "very rare tokens, each matched with a common one",
            rare_below=1.776e-7,
            common_above=1.776e-5,
            least_source=10_000_000,
            paper="NC A.6",
        ),
    )
}
