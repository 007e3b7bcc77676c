"""The notebook in a real browser: it draws, and what is shown follows the percentile, the preset and the query."""

import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rare_tokens import warehouse
from rare_tokens.analyses.curve.power_law import power_law_line
from rare_tokens.analyses.explore_charts import described
from rare_tokens.common.parts import parts_root
from studies.synthetic.runs import make_parts
from tests.support.commands import finish

webdriver = pytest.importorskip("selenium.webdriver", reason="NO BROWSER TEST: selenium is not installed")
pytest.importorskip("marimo", reason="NO BROWSER TEST: marimo is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = pytest.mark.slow
RUN = "synthetic-main-00000000"
SECONDS = 60.0


@pytest.fixture
def address(commands: Any) -> Iterator[str]:
    """The notebook of a warehouse with one run, served; its address with the token."""
    path = commands.folder / "rare_tokens.duckdb"
    make_parts(parts_root(path) / RUN, run_id=RUN, positions=768, neurons=256, zipf_share=0.8)
    warehouse.publish(path, parts_root(path) / RUN, line=power_law_line, quiet=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = commands.start("explore", "--no-browser", "--port", port, environment={"PYTHONUNBUFFERED": "1"})
    try:
        for line in server.stdout:
            if found := re.search(r"http://\S+access_token=\S+", line):
                yield found[0]
                break
    finally:
        server.terminate()
        finish(server, 30)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if absent := [name for name, path in paths.items() if path is None]:
        pytest.skip(f"NO BROWSER TEST: {' and '.join(absent)} not found (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = paths["chromium"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1300,2400", profile):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(paths["chromedriver"]))
    yield driver
    driver.quit()


def wait_for(found: Any) -> Any:
    """What `found` returns once it is true; fails after `SECONDS`."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.2)
    raise AssertionError("it did not come about")


def text_of(browser: Any) -> str:
    """All text of the page, that within the shadow trees of marimo's elements too."""
    script = """
    const read = (node) => node.nodeType === Node.TEXT_NODE ? node.textContent
      : ['STYLE', 'SCRIPT'].includes(node.nodeName) ? ''
      : [...(node.shadowRoot ? [node.shadowRoot] : []), ...node.childNodes].map(read).join(' ')
    return read(document.body)
    """
    return str(browser.execute_script(script))


def deep(browser: Any, selector: str) -> list[Any]:
    """Elements that match, within shadow trees too."""
    script = """
    const found = (root) => [...root.querySelectorAll(arguments[0]),
      ...[...root.querySelectorAll('*')].filter((n) => n.shadowRoot).flatMap((n) => found(n.shadowRoot))]
    return found(document)
    """
    elements: list[Any] = browser.execute_script(script, selector)
    return elements


def test_what_is_shown_follows_the_percentile(address, browser, commands):
    browser.get(address)
    with warehouse.open(commands.folder / "rare_tokens.duckdb") as opened:
        kappas = {at: rare_kappa(opened, at) for at in (50, 48)}
    assert kappas[50] != kappas[48]
    wait_for(lambda: kappas[50] in text_of(browser))
    wait_for(lambda: len(deep(browser, "canvas, svg.marks")) >= 2)
    assert kappas[48] not in text_of(browser)
    (slider,) = deep(browser, "[role=slider]")
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    wait_for(lambda: kappas[48] in text_of(browser))
    assert "the preset's own is 50" in text_of(browser)
    assert "raised an exception" not in text_of(browser)


def rare_kappa(opened: Any, percentile: int) -> str:
    influence = opened.influence_at(RUN, percentile, words=True).filter(pl.col("neuron").is_not_null())
    fit = described(influence.sort("token_group", "rank"))[1]
    kappa = fit.filter(pl.col("token_group") == "rare")["kappa"].round_sig_figs(5).item()
    return str(kappa)
