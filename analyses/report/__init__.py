"""The report: one page made for reading, and its numbers beside it."""

from rare_tokens.analyses.report.data.cards import PRESET as CARD_PRESET
from rare_tokens.analyses.report.data.cards import card_neurons
from rare_tokens.analyses.report.data.inputs import INPUTS, ReportInputs
from rare_tokens.analyses.report.figures import inputs as inputs_of_figures
from rare_tokens.analyses.report.page.write import require_writable, write_report

__all__ = ["CARD_PRESET", "ReportInputs", "card_neurons", "relations", "require_writable", "write_report"]


def relations() -> dict[str, str]:
    """By the name of an input of the report, the public relation that it is, of the runs of the report."""
    return {one.name: one.relation for one in (*INPUTS, *inputs_of_figures()) if one.relation}
