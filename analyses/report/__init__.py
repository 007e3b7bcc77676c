"""The report: one page made for reading, with its numbers next to it."""

from rare_tokens.analyses.report.data.cards import PRESET as CARD_PRESET
from rare_tokens.analyses.report.data.cards import card_neurons
from rare_tokens.analyses.report.data.compared import labels as run_labels
from rare_tokens.analyses.report.data.inputs import INPUTS, ReportInputs
from rare_tokens.analyses.report.figures import inputs as inputs_of_figures
from rare_tokens.analyses.report.page.neuron_page import render_neuron_page
from rare_tokens.analyses.report.page.write import require_writable, write_report

__all__ = [
    "CARD_PRESET",
    "ReportInputs",
    "card_neurons",
    "relations",
    "render_neuron_page",
    "require_writable",
    "run_labels",
    "write_report",
]


def relations() -> dict[str, str]:
    """The public relation behind each input of the report, by the input's name."""
    return {one.name: one.relation for one in (*INPUTS, *inputs_of_figures()) if one.relation}
