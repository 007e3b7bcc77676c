"""The report's page in a real browser, for tests: how it is opened, waited for and read."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="NO BROWSER TEST: selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

__all__ = [
    "MAIN",
    "ActionChains",
    "By",
    "Keys",
    "curves_told",
    "one",
    "opened",
    "point_at_first_neuron",
    "resize",
    "shown_rows",
    "started",
    "wait_for",
]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
MAIN = "[data-figure=influence]"
SECONDS = 30.0


def started(profile: Path) -> Iterator[Any]:
    """A browser without a window; the test is skipped where there is none."""
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if absent := [name for name, path in paths.items() if path is None]:
        pytest.skip(f"NO BROWSER TEST: {' and '.join(absent)} not found (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = paths["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(paths["chromedriver"]))
    yield driver
    driver.quit()


def opened(browser: Any, index: Path) -> Any:
    """The page at a width of 1440 pixels, with every figure drawn."""
    resize(browser, 1440)
    browser.get(index.as_uri())
    wait_for(lambda: browser.execute_script("return document.documentElement.dataset.drawn"))
    return browser


def wait_for(found: Any) -> Any:
    """What `found` returns once it is true; fails after `SECONDS`."""
    end = time.monotonic() + SECONDS
    while not (value := found()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def resize(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def one(page: Any, selector: str) -> Any:
    return page.find_element(By.CSS_SELECTOR, selector)


def shown_rows(page: Any) -> list[list[str]]:
    rows = page.find_elements(By.CSS_SELECTOR, "table.top tbody:not([hidden]) tr")
    return [[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in rows]


def curves_told(page: Any) -> list[str]:
    """What the note about the main figure is of, as far as it is not hidden."""
    told = "return [...document.querySelectorAll('.curves:not([hidden])')].map((item) => item.textContent)"
    return [" ".join(text.split()).partition(":")[0] + ":" for text in page.execute_script(told)]


def point_at_first_neuron(page: Any) -> tuple[int, int]:
    """Move the pointer onto the point of rank 1 among rare tokens; returns where that is."""
    page.execute_script(f"document.querySelector('{MAIN}').scrollIntoView({{block: 'center', behavior: 'instant'}})")
    x, y = page.execute_script(
        f"const box = document.querySelector('{MAIN} .mark-symbol path').getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2].map(Math.round)"
    )
    actions = ActionChains(page)
    for step in (8, 1):
        actions.w3c_actions.pointer_action.move_to_location(x + step, y + step)
    actions.perform()
    return x, y
