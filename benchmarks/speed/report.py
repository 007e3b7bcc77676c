"""What a report costs: seconds to write, bytes of its page, and milliseconds until a browser can use it.

    python -m benchmarks.speed.report [--warehouse PATH ...]

Made-up runs of the sizes below, with everything that a report can show (cards, tables next to the papers', every
figure), and the named warehouses, read as the command does (`--no-analyze`). Targets: 5 MB and 2 s to interactive for
ten checkpoints. The browser is Debian's chromium, headless, from disk; if it is not installed its column is null.
Results go to benchmarks/results/report.json.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import ROOT, result
from rare_tokens.analyses.report import write_report
from studies.synthetic.report_inputs import make_inputs
from studies.synthetic.report_study import studied

RESULTS = result("report")
SIZES = ((1, 1024), (6, 1024), (10, 1024), (10, 3072), (10, 6400))  # checkpoints, neurons
READY = "return (performance.getEntriesByName('{}')[0] || {{}}).startTime"
LOADS = 5


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warehouse", type=Path, action="append", default=[], help="measure this one's report too")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as driver:
        for checkpoints, neurons in SIZES:
            inputs = studied(make_inputs(tuple(range(checkpoints)), neurons, intervals=True))
            start = time.perf_counter()
            index = write_report(inputs, Path(folder) / f"{checkpoints}-{neurons}")
            named = {"runs": f"drawn: {checkpoints} × {neurons:,} neurons", "seconds": time.perf_counter() - start}
            rows.append(named | measured(index, driver))
        for path in given.warehouse:
            seconds, index = command(path, Path(folder) / path.stem)
            rows.append({"runs": f"warehouse {path.name}", "seconds": seconds} | measured(index, driver))
    for row in rows:
        print({name: round(value, 1) if isinstance(value, float) else value for name, value in row.items()})
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1, ensure_ascii=False) + "\n", "utf-8")


def command(path: Path, out: Path) -> tuple[float, Path]:
    """Seconds that the command takes in a process of its own, and its page."""
    start = time.perf_counter()
    words = ["cli.py", "report", "--no-analyze", "--warehouse", str(path.resolve()), "--out", str(out), "--quiet"]
    subprocess.run([sys.executable, *words], check=True, cwd=ROOT)
    return time.perf_counter() - start, out / "index.html"


def measured(index: Path, driver: Any) -> dict[str, Any]:
    """Bytes of a page and of the files next to it; median times until it is usable and until all is drawn."""
    files = [path for path in index.parent.rglob("*") if path.is_file()]
    sizes = {"page_mb": index.stat().st_size / 1e6, "all_mb": sum(path.stat().st_size for path in files) / 1e6}
    if driver is None:
        return sizes | {"ready_ms": None, "drawn_ms": None}
    marks: dict[str, list[float]] = {"ready": [], "drawn": []}
    for _ in range(LOADS):
        driver.get(index.as_uri())
        while not driver.execute_script("return document.documentElement.dataset.drawn"):
            time.sleep(0.02)
        for name, found in marks.items():
            found.append(driver.execute_script(READY.format(name)))
    return sizes | {f"{name}_ms": sorted(found)[LOADS // 2] for name, found in marks.items()}


@contextmanager
def browser(folder: Path) -> Iterator[Any]:
    """Headless chromium at a desktop's width; None if it is not installed."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        yield None
        return
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1440,1000")
    for flag in (*flags, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield driver
    finally:
        driver.quit()


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}


if __name__ == "__main__":
    main()
