"""The report: one page made for reading, and its numbers beside it."""

from analyses.report.cards import PRESET as CARD_PRESET
from analyses.report.cards import card_neurons
from analyses.report.inputs import ReportInputs
from analyses.report.write import require_writable, write_report

__all__ = ["CARD_PRESET", "ReportInputs", "card_neurons", "require_writable", "write_report"]
