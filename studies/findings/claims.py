"""The claims that are put to the test, each with what the papers print and the query that answers it.

A query is docs/queries/findings/NAME.sql. It returns a row per run and preset: run_id, preset, measured (what was
found, in words and numbers), verdict; one that answers several claims also says which (`claim`). Verdicts are `holds`,
`partly`, `contradicted`, `not contradicted` (for claims of no difference, which no test can prove), `not found`,
`undecided`, and `measured` where there is nothing to compare with.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

QUERIES = Path(__file__).resolve().parents[2] / "docs" / "queries" / "findings"


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, or a question beyond the papers.

    Attributes:
        name: of the query.
        said: the claim.
        where: paper and place; empty: beyond the papers.
        printed: what is printed there.
        file: of the query, if it is named otherwise.
    """

    name: str
    said: str
    where: str = ""
    printed: str = ""
    file: str = ""

    @property
    def query(self) -> Path:
        """The file of its query."""
        return QUERIES / f"{self.file or self.name}.sql"

    def answered(self, found: pl.DataFrame) -> pl.DataFrame:
        """Its rows among those of its query: run_id, preset, measured, verdict."""
        own = found.filter(pl.col("claim") == self.name) if "claim" in found.columns else found
        return own.select("run_id", "preset", "measured", "verdict").sort("run_id", "preset")


CLAIMS = (
    Claim("regimes", "Influence on rare tokens: plateau, power law, rapid decay", "ES §4.1", "three regimes"),
    Claim("plateau_share", "The plateau is a small share of the layer", "ES §4.1, DS §4.1", "1.7 %; about 1 %"),
    Claim("no_common_plateau", "Common tokens have no plateau", "ES §4.1, NC §3", "none"),
    Claim("rare_above_common", "The plateau stands higher for rare than for common tokens", "ES, DS", "in rare alone"),
    Claim("same_neurons", "Rare tokens have neurons of their own", "ES, DS", "specialised neurons"),
    Claim("kappa", "κ of the power law (common tokens)", "NC §3", "1.84 ± 0.12"),
    Claim("r2", "R² of the power law (common tokens)", "NC §3", "0.94"),
    Claim("share_near_the_line", "Neurons within 0.1 of the line (common tokens)", "NC §3", "95 %"),
    Claim("neurons_above", "Neurons with δ > 0.5 (rare tokens)", "NC §3", "15 to 20"),
    Claim("slope_break", "The slope breaks near ln rank 5 (rare tokens)", "ES §4.1", "ln rank ≈ 5"),
    Claim("activation_correlation", "Boost and suppress neurons are active together", "ES §4.2, table 1",
          "0.036 against 0.007 (Pythia-410M boost)", file="groups"),
    Claim("effective_dimension", "They act in fewer dimensions", "ES §4.2, table 2", "8 to 13 % fewer", file="groups"),
    Claim("weight_cosine", "Their output weights are alike", "ES §4.2, table 3", "0.09 to 0.17 against 0.05",
          file="groups"),
    Claim("hill_alpha", "Their output weights have heavier tails than random groups", "ES §4.3, table 4",
          "α 4.3 and 4.0 against 6.4 (Pythia-70M)", file="groups"),
    Claim("hill_below_2", "α of the plateau is below 2", "ES §2.2, DS §4.5", "< 2"),
    Claim("modularity", "Plateau neurons form no modules", "NC §3, table 1", "0.03 to 0.11 against 0.04 to 0.09"),
    Claim("attention_correlation", "Attention is the same at rare and common tokens", "NC §3, DS §4.4", "0.89 ± 0.07"),
    Claim("attention_gini", "… and as concentrated", "NC §3", "Gini 0.34 and 0.32, p 0.43"),
    Claim("no_special_head", "No head of its own drives the plateau", "NC §3, table 2", "d 0.26 to 0.31"),
    Claim("all_heads", "All heads together do", "NC §3, table 2", "−42 to −45 %"),
    Claim("emergence", "The plateau emerges in training", "ES §4.1, fig. 1", "late in training"),
    Claim("specific_neurons", "Neurons that matter more for one group than for the other, at the same loss"),
    Claim("rare_neurons", "… the neurons that are for rare tokens: rank, ratio"),
    Claim("specific_heads", "… among the neurons of the rare curve's head"),
    Claim("layers", "By layer: is there a plateau, and how many neurons are specific to rare tokens?"),
    Claim("stability", "How much of the first 50 stays on other text of the same kind"),
    Claim("known_neurons", "Are the first 50 entropy or frequency neurons?"),
    Claim("magnitude_correlation", "|Activations| of boost and suppress neurons correlate", file="groups"),
    Claim("gate_cosine", "Input directions (gates, in a gated MLP) are alike", file="groups"),
    Claim("equal_aspect_alpha", "Hill's α on sub-matrices of one shape"),
    Claim("references", "Does it matter what replaces an activation?"),
    Claim("attribution", "Does a first-order estimate find the neurons?"),
)  # fmt: skip
