"""What the pages on growth and memory say of the committed results."""

import json

import pytest

from benchmarks.memory import peaks
from benchmarks.warehouse import growth_report


def test_an_exponent_is_the_slope_of_logarithms():
    assert growth_report.exponent([(x, 3 * x**1.5) for x in (1, 2, 8, 100)]) == pytest.approx(1.5)
    assert growth_report.exponent([(1, 5), (10, 5), (100, 5)]) == pytest.approx(0)


def test_the_tables_are_those_of_the_committed_results():
    growth = json.loads(growth_report.RESULT.read_text(encoding="utf-8"))
    assert growth_report.page(growth) == growth_report.PAGE.read_text(encoding="utf-8")
    shapes = json.loads(peaks.RESULTS.read_text(encoding="utf-8"))["shapes"]
    assert peaks.page(shapes) == peaks.PAGE.read_text(encoding="utf-8")


def test_the_memory_that_is_said_is_within_a_fifth_of_what_was_measured():
    shapes = json.loads(peaks.RESULTS.read_text(encoding="utf-8"))["shapes"]
    assert shapes.keys() <= peaks.CASES.keys()
    assert len(shapes) > 1
    for name, row in shapes.items():
        assert row["said_gb"] / row["measured_gb"] == pytest.approx(1, abs=0.2), name
