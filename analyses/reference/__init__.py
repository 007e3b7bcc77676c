"""What the papers print, number by number, so that a report can compare it with what was measured.

ES = "Emergent Specialization" (Liu, Wang and Li), DS = "Distributed Specialization" (the same authors; known from
summaries, which `place` says), NC = "No Clustering, No Routing" (Liu). Facts only, as printed; where a paper's text
and table disagree both rows are kept and `note` says so.
"""

from importlib.resources import files
from io import BytesIO

import polars as pl

SCHEMA = {
    "paper": pl.String,  # ES, DS, NC
    "place": pl.String,  # section, table or appendix
    "model": pl.String,  # NULL: stated for all models
    "group_name": pl.String,  # neurons or tokens it is about; a pair of groups is spelled `boost_random`; NULL: none
    "quantity": pl.String,
    "relation": pl.String,  # `=`, `<`, `>`, `≤`, `≈`: how the paper states it
    "value": pl.Float64,  # the value, or the lower end of a printed range
    "value_to": pl.Float64,  # upper end of a printed range, else NULL
    "plus_minus": pl.Float64,  # as printed; the papers do not say what kind of error
    "unit": pl.String,
    "kind": pl.String,  # `result`, `setting` of the method, or `claim` about what a value means
    "note": pl.String,
}


def published_values() -> pl.DataFrame:
    """Every number the papers print: the relation `published_value`, one row per paper, place, model, group, quantity.

    Sources: ES, DS and NC (docs/definitions.md, "Sources"); the columns are described at `SCHEMA`.
    """
    data = files(__package__).joinpath("published_value.csv").read_bytes()
    return pl.read_csv(BytesIO(data), schema=SCHEMA, null_values=[""])
