"""The report: one page made for reading, and its numbers beside it."""

from analyses.report.inputs import ReportInputs
from analyses.report.write import write_report

__all__ = ["ReportInputs", "write_report"]
