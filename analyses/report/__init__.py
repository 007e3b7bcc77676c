"""The report: one page made for reading, and its numbers beside it."""

from rare_tokens.analyses.report.data.cards import PRESET as CARD_PRESET
from rare_tokens.analyses.report.data.cards import card_neurons
from rare_tokens.analyses.report.data.inputs import ReportInputs
from rare_tokens.analyses.report.page.write import require_writable, write_report

__all__ = ["CARD_PRESET", "ReportInputs", "card_neurons", "require_writable", "write_report"]
