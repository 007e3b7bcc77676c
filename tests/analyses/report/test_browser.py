"""The page in a real browser, from disk: it draws, answers to pointer and keyboard, and asks nothing of a network."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rare_tokens.analyses.report import write_report
from studies.synthetic.report_inputs import make_inputs
from studies.synthetic.report_study import studied

webdriver = pytest.importorskip("selenium.webdriver", reason="NO BROWSER TEST: selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(studied(make_inputs(intervals=True)), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if absent := [name for name, path in paths.items() if path is None]:
        pytest.skip(f"NO BROWSER TEST: {' and '.join(absent)} not found (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = paths["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(paths["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, index: Path) -> Any:
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


def test_the_page_draws_without_an_error_or_a_request(page: Any) -> None:
    plots = page.find_elements(By.CSS_SELECTOR, ".plot")
    assert len(plots) == 19
    assert all(plot.find_elements(By.CSS_SELECTOR, "svg path") for plot in plots)
    assert [entry for entry in page.get_log("browser") if entry["level"] != "INFO"] == []
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in sent if entry["method"] == "Network.requestWillBeSent"]
    assert {address.split(":")[0] for address in asked} <= {"file", "data", "chrome"}
    assert page.execute_script("return window.hacked") is None


def test_hovering_tells_the_neuron_and_lights_it_in_both_curves(page: Any) -> None:
    first = shown_rows(page)[0]
    point_at_first_neuron(page)
    bubble = wait_for(lambda: (found := one(page, ".bubble")).is_displayed() and found.text)
    assert bubble.startswith(f"neuron\n{first[0]}\nrare tokens\nrank 1\n")
    assert f"{first[3]} · 10⁻³ nats" in bubble
    assert "raises" in bubble
    numbers = page.execute_script(
        f"return [...document.querySelectorAll('{MAIN} .mark-text.role-mark text')].map((item) => item.textContent)"
    )
    assert numbers == [first[0]] * 4  # both curves, both panels


def test_dragging_lists_the_neurons_of_a_range_of_ranks(page: Any) -> None:
    x, y = point_at_first_neuron(page)
    actions = ActionChains(page)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(x - 6, y + 60)
    pointer.pointer_down()
    pointer.move_to_location(x + 250, y + 80)
    pointer.pointer_up()
    actions.perform()
    status = wait_for(lambda: (text := one(page, ".status").text) and "neurons lit" in text and text)
    assert shown_rows(page)[0][0] in status


def test_the_slider_and_the_presets_change_figures_captions_and_tables_alike(page: Any) -> None:
    before = shown_rows(page)
    slider = one(page, ".step")
    slider.send_keys(Keys.ARROW_LEFT)
    assert slider.get_attribute("aria-valuetext") == "step2048"
    assert curves_told(page) == ["step2048, es:"]
    assert shown_rows(page) != before
    slider.send_keys(Keys.ARROW_RIGHT)
    assert shown_rows(page) == before  # as the page was written, so the script writes the same
    page.execute_script("document.querySelector('input[value=ds]').click()")
    assert curves_told(page) == ["step3979, ds:"]
    assert len([item for item in page.find_elements(By.CSS_SELECTOR, ".answer") if item.is_displayed()]) == 1


def test_a_mixed_role_is_a_word_with_its_mean_to_point_at_in_what_the_script_draws_too(page: Any) -> None:
    def roles() -> list[tuple[str, str]]:
        cells = page.find_elements(By.CSS_SELECTOR, "table.top tbody:not([hidden]) tr td:nth-child(2)")
        return [(cell.text, cell.get_attribute("title")) for cell in cells]

    written = roles()
    slider = one(page, ".step")
    slider.send_keys(Keys.ARROW_LEFT)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert roles() == written
    mixed = [rank for rank, (role, title) in enumerate(written, 1) if role == "mixed" and "nats: " in title]
    assert mixed == [3, 6, 9, 12, 15, 18]
    page.execute_script("arguments[0].click()", page.find_elements(By.CSS_SELECTOR, "table.top .pin")[2])
    assert "mixed (" in one(page, ".status").text
    assert "by its sign alone)" in one(page, ".status").text


def test_the_slider_moves_the_slopes_and_the_sensitivity_too(page: Any) -> None:
    def drawn() -> list[str]:
        marks = "[data-figure=slopes] .mark-symbol path"
        return page.execute_script(
            f"return [...document.querySelectorAll('{marks}')].map((item) => item.getAttribute('transform'))"
        )

    before = drawn()
    assert len(before) > 100
    one(page, ".step").send_keys(Keys.HOME)
    wait_for(lambda: drawn() != before and len(drawn()) > 100)
    one(page, ".step").send_keys(Keys.END)
    wait_for(lambda: drawn() == before)


def test_the_slider_moves_the_papers_tables_too(page: Any) -> None:
    def seen() -> list[str]:
        notes = page.find_elements(By.CSS_SELECTOR, "#series-0 [data-run] > .note")
        return [note.text.partition(" (")[0] for note in notes if note.is_displayed()]

    assert seen() == [], "folded"
    page.execute_script("document.querySelector('#s0-papers').open = true")
    assert seen() == ["At step3979"]
    one(page, ".step").send_keys(Keys.ARROW_LEFT)
    assert seen() == ["At step2048"]
    # Asked for again as long as figures above it still get their height; half a pixel may be lost to rounding
    below_the_bar = """
        const heading = document.querySelector('#s0-papers'), bar = document.querySelector('.bar');
        heading.scrollIntoView({behavior: 'instant'});
        return heading.getBoundingClientRect().top >= bar.getBoundingClientRect().bottom - 1"""
    wait_for(lambda: page.execute_script(below_the_bar))
    one(page, ".step").send_keys(Keys.END)
    assert seen() == ["At step3979"]


def test_a_card_opens_by_keyboard_and_holds_no_script(page: Any) -> None:
    cards = page.find_elements(By.CSS_SELECTOR, "details.card")
    assert [card.get_attribute("open") for card in cards] == ["true", None, None]
    assert cards[1].find_elements(By.CSS_SELECTOR, ".tok") == [], "drawn when it is opened"
    cards[1].find_element(By.CSS_SELECTOR, "summary").send_keys(Keys.ENTER)
    wait_for(lambda: cards[1].find_element(By.CSS_SELECTOR, ".passage").is_displayed())
    assert "\\x1b[31mred" in page.execute_script("return document.querySelector('.passage').textContent")
    assert page.execute_script("return window.hacked") is None


def test_a_cards_address_opens_it_and_holds_the_state_of_the_page(page: Any, index: Path) -> None:
    first, second = (row[0] for row in shown_rows(page)[:2])
    page.execute_script("document.querySelector('table.top tbody:not([hidden]) .pin').click()")
    wait_for(lambda: page.current_url.endswith(f"#n{first}"))
    page.execute_script("document.querySelector('input[value=nc]').click()")
    one(page, ".step").send_keys(Keys.ARROW_LEFT)
    assert page.current_url.endswith(f"#n{first}&preset=nc&step0=4")
    page.get("about:blank")
    page.get(f"{index.as_uri()}#n{second}&preset=nc&step0=4")
    wait_for(lambda: page.execute_script("return document.documentElement.dataset.drawn"))
    assert curves_told(page) == ["step2048, nc:"]
    card = one(page, f"#n{second}")
    assert card.get_attribute("open") == "true"
    bar = page.execute_script("return document.querySelector('.bar').getBoundingClientRect().bottom")
    top = "return document.getElementById(arguments[0]).getBoundingClientRect().top"
    wait_for(lambda: bar - 2 <= page.execute_script(top, f"n{second}") <= bar + 40)


def test_an_address_without_a_card_says_which_command_makes_one(page: Any, index: Path) -> None:
    page.get(f"{index.as_uri()}#n1000")
    said = wait_for(lambda: one(page, "output.found").text)
    assert said.startswith("Neuron 1000 has no card on this page: python cli.py neuron 1000 novella-step3979-")


def test_cards_are_found_by_number_and_by_token(page: Any) -> None:
    neurons = [row[0] for row in shown_rows(page)[:3]]
    field = one(page, "input.find")

    def found(text: str) -> list[str]:
        field.clear()
        field.send_keys(text)
        cards = page.find_elements(By.CSS_SELECTOR, "details.card")
        return [card.get_attribute("data-neuron") for card in cards if card.is_displayed()]

    assert found(neurons[2]) == [neurons[2]]
    assert one(page, f"#n{neurons[2]}").get_attribute("open") == "true"
    assert found("日本語") == neurons, "each of the three helps or hurts that token"
    assert one(page, "output.found").text == "3 cards"
    assert found("nosuchtoken") == []
    assert one(page, "output.found").text == "0 cards"
    assert found(" ") == neurons


def test_tokens_of_a_passage_are_coloured_by_activation_or_by_the_change_of_their_loss(page: Any) -> None:
    def shades() -> list[str]:
        every = (
            "return [...document.querySelectorAll('details.card[open] .tok')].map((item) => item.className + "
            "getComputedStyle(item).backgroundColor)"
        )
        return page.execute_script(every)

    before = shades()
    assert any("plus" in shade for shade in before)
    assert any("minus" in shade for shade in before)
    page.execute_script("document.querySelector('.colours input[value=delta_loss]').click()")
    after = shades()
    assert len(after) == len(before)
    assert after != before
    assert "plus" not in after[0] + after[0], "the first token was not predicted"
    title = one(page, "details.card[open] .tok").get_attribute("title")
    assert title.startswith("activation ")
    assert title.endswith("; Δ not measured")


def test_every_figure_can_be_saved_with_its_rows(page: Any) -> None:
    figures = page.execute_script(
        "return [...document.querySelectorAll('figure')].filter((item) => item.querySelector('.plot'))"
        ".map((item) => [item.querySelectorAll('.plot').length, item.querySelectorAll('.save').length])"
    )
    assert all(buttons == 2 * plots for plots, buttons in figures)
    page.execute_script(
        "window.saved = [];"
        "URL.createObjectURL = (blob) => { blob.text().then((text) => saved.push(text)); return '#'; }"
    )
    page.execute_script(
        "[...document.querySelectorAll('.save')].filter((b) => /CSV/.test(b.textContent)).forEach((b) => b.click())"
    )
    texts = wait_for(lambda: len(found := page.execute_script("return saved")) >= len(figures) and found)
    assert texts[0].startswith("group,neuron,up,down,rank,rare_rank,influence,")
    assert len(texts[0].splitlines()) == 1 + 2 * 1024
    assert all(len(text.splitlines()) > 1 for text in texts)


def test_commands_and_citations_can_be_copied(page: Any) -> None:
    button = one(page, "#provenance .copy")
    page.execute_script("arguments[0].click()", button)
    wait_for(lambda: button.text == "Copied")
    assert "@misc{liu2025emergent," in one(page, "#bibtex").text


def test_on_a_phone_rows_are_blocks_and_the_places_are_a_menu(browser: Any, index: Path) -> None:
    resize(browser, 390)
    browser.get(index.as_uri())
    wait_for(lambda: browser.execute_script("return document.documentElement.dataset.drawn"))
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    for table in ("table.each", "table.top", "table.specific"):
        row = one(browser, f"{table} tbody:not([hidden]) tr")
        tops = {cell.rect["y"] for cell in row.find_elements(By.CSS_SELECTOR, "th, td")}
        assert len(tops) == len(row.find_elements(By.CSS_SELECTOR, "th, td")), table
        wide = "return arguments[0].closest('.scroll').scrollWidth - arguments[0].closest('.scroll').clientWidth"
        assert browser.execute_script(wide, row) <= 1, table
    assert not one(browser, "#menu").is_displayed()
    one(browser, "button.menu").click()
    assert one(browser, "#menu").is_displayed()
    one(browser, "#menu a").click()
    assert not one(browser, "#menu").is_displayed()


def test_nothing_is_clipped_at_1440(page: Any) -> None:
    page.execute_script("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    clipped = (
        "return [...document.querySelectorAll('.scroll')].filter((item) => item.scrollWidth > item.clientWidth + 1)"
        ".map((item) => item.getAttribute('aria-label') || item.getAttribute('aria-labelledby'))"
    )
    assert page.execute_script(clipped) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(page: Any, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.execute_script("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    page.execute_script(axe_source())
    run = "axe.run(document, {resultTypes: ['violations']}).then(arguments[arguments.length - 1])"
    page.set_script_timeout(60)
    found = page.execute_async_script(run)["violations"]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == []


def axe_source() -> str:
    """The text of axe-core (npm: `npm install --no-save axe-core`); or RARE_TOKENS_AXE is its path."""
    given = os.environ.get("RARE_TOKENS_AXE", "node_modules/axe-core/axe.min.js")
    if not Path(given).is_file():
        pytest.skip(f"NO ACCESSIBILITY TEST: {given} is not there; `npm install --no-save axe-core` brings it")
    return Path(given).read_text(encoding="utf-8")


def test_tables_sort_both_ways_by_keyboard(page: Any) -> None:
    ranks = [int(row[2]) for row in shown_rows(page)]
    assert ranks == list(range(1, 21))
    heading = page.find_elements(By.CSS_SELECTOR, "table.top thead tr:last-child th button")[3]
    heading.send_keys(Keys.ENTER)
    assert heading.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    assert [int(row[2]) for row in shown_rows(page)] == ranks  # by influence, largest first
    heading.send_keys(Keys.ENTER)
    assert [int(row[2]) for row in shown_rows(page)] == ranks[::-1]


def test_a_neuron_chosen_in_the_table_is_described_and_marked(page: Any) -> None:
    row = shown_rows(page)[4]
    page.execute_script("arguments[0].click()", page.find_elements(By.CSS_SELECTOR, "table.top .pin")[4])
    assert one(page, ".neuron").get_attribute("value") == row[0]
    assert one(page, ".status").text.startswith(f"Neuron {row[0]} rare: rank 5")
    assert one(page, "tr.lit th").text == row[0]


def test_ranks_typed_in_zoom_and_reset_gives_them_back(page: Any) -> None:
    field = one(page, ".to")
    field.clear()
    field.send_keys("30", Keys.TAB)
    ticks = f"return [...document.querySelectorAll('{MAIN} .role-axis-label text')].map((item) => item.textContent)"
    wait_for(lambda: "20" in page.execute_script(ticks))
    assert field.get_attribute("value") == "30"
    page.execute_script("document.querySelector('.reset').click()")
    wait_for(lambda: "1,000" in page.execute_script(ticks))


@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window(browser: Any, index: Path, width: int, scheme: str) -> None:
    resize(browser, width)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(index.as_uri())
    wait_for(lambda: browser.execute_script("return document.documentElement.dataset.drawn"))
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    wide = "return [...document.querySelectorAll('.plot svg')].filter((svg) => svg.clientWidth > innerWidth).length"
    assert browser.execute_script(wide) == 0
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(22, 23, 26)") == (scheme == "dark")


def test_ten_checkpoints_can_be_used_within_two_seconds(browser: Any, tmp_path: Path) -> None:
    resize(browser, 1440)
    index = write_report(studied(make_inputs(tuple(range(10)))), tmp_path)
    assert index.stat().st_size <= 5_000_000
    browser.get(index.as_uri())
    ready = "return (performance.getEntriesByName('ready')[0] || {}).startTime"
    assert wait_for(lambda: browser.execute_script(ready)) <= 2000
