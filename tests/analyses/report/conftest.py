"""The report's page in a browser, for the tests of this folder that want one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rare_tokens.analyses.report import write_report
from studies.synthetic.report_inputs import make_inputs
from studies.synthetic.report_study import studied


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a series with everything that a report can show."""
    return write_report(studied(make_inputs(intervals=True)), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser without a window."""
    from tests.support.browser import started

    yield from started(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def shown(browser: Any, index: Path) -> Any:
    """The page, with every figure drawn."""
    from tests.support.browser import opened

    return opened(browser, index)
