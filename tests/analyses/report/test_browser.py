"""The page in a real browser, from disk: it draws, answers to pointer and keyboard, and asks nothing of a network."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from rare_tokens.analyses.report import write_report
from studies.synthetic.report_inputs import make_inputs
from studies.synthetic.report_study import studied
from tests.support.browser import (
    MAIN,
    ActionChains,
    By,
    Keys,
    curves_told,
    one,
    point_at_first_neuron,
    resize,
    shown_rows,
    wait_for,
)

pytestmark = pytest.mark.slow


def test_the_page_draws_without_an_error_or_a_request(shown: Any) -> None:
    plots = shown.find_elements(By.CSS_SELECTOR, ".plot")
    assert len(plots) == 19
    assert all(plot.find_elements(By.CSS_SELECTOR, "svg path") for plot in plots)
    assert [entry for entry in shown.get_log("browser") if entry["level"] != "INFO"] == []
    sent = [json.loads(entry["message"])["message"] for entry in shown.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in sent if entry["method"] == "Network.requestWillBeSent"]
    assert {address.split(":")[0] for address in asked} <= {"file", "data", "chrome"}
    assert shown.execute_script("return window.hacked") is None


def test_hovering_tells_the_neuron_and_lights_it_in_both_curves(shown: Any) -> None:
    first = shown_rows(shown)[0]
    point_at_first_neuron(shown)
    bubble = wait_for(lambda: (found := one(shown, ".bubble")).is_displayed() and found.text)
    assert bubble.startswith(f"neuron\n{first[0]}\nrare tokens\nrank 1\n")
    assert f"{first[3]} · 10⁻³ nats" in bubble
    assert "raises" in bubble
    numbers = shown.execute_script(
        f"return [...document.querySelectorAll('{MAIN} .mark-text.role-mark text')].map((item) => item.textContent)"
    )
    assert numbers == [first[0]] * 4  # both curves, both panels


def test_dragging_lists_the_neurons_of_a_range_of_ranks(shown: Any) -> None:
    x, y = point_at_first_neuron(shown)
    actions = ActionChains(shown)
    pointer = actions.w3c_actions.pointer_action
    pointer.move_to_location(x - 6, y + 60)
    pointer.pointer_down()
    pointer.move_to_location(x + 250, y + 80)
    pointer.pointer_up()
    actions.perform()
    status = wait_for(lambda: (text := one(shown, ".status").text) and "neurons lit" in text and text)
    assert shown_rows(shown)[0][0] in status


def test_the_slider_and_the_presets_change_figures_captions_and_tables_alike(shown: Any) -> None:
    before = shown_rows(shown)
    slider = one(shown, ".step")
    slider.send_keys(Keys.ARROW_LEFT)
    assert slider.get_attribute("aria-valuetext") == "step2048"
    assert curves_told(shown) == ["step2048, es:"]
    assert shown_rows(shown) != before
    slider.send_keys(Keys.ARROW_RIGHT)
    assert shown_rows(shown) == before  # as the page was written, so the script writes the same
    shown.execute_script("document.querySelector('input[value=ds]').click()")
    assert curves_told(shown) == ["step3979, ds:"]
    assert len([item for item in shown.find_elements(By.CSS_SELECTOR, ".answer") if item.is_displayed()]) == 1


def test_a_mixed_role_is_a_word_with_its_mean_to_point_at_in_what_the_script_draws_too(shown: Any) -> None:
    def roles() -> list[tuple[str, str]]:
        cells = shown.find_elements(By.CSS_SELECTOR, "table.top tbody:not([hidden]) tr td:nth-child(2)")
        return [(cell.text, cell.get_attribute("title")) for cell in cells]

    written = roles()
    slider = one(shown, ".step")
    slider.send_keys(Keys.ARROW_LEFT)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert roles() == written
    mixed = [rank for rank, (role, title) in enumerate(written, 1) if role == "mixed" and "nats: " in title]
    assert mixed == [3, 6, 9, 12, 15, 18]
    shown.execute_script("arguments[0].click()", shown.find_elements(By.CSS_SELECTOR, "table.top .pin")[2])
    assert "mixed (" in one(shown, ".status").text
    assert "by its sign alone)" in one(shown, ".status").text


def test_the_slider_moves_the_slopes_and_the_sensitivity_too(shown: Any) -> None:
    def drawn() -> list[str]:
        marks = "[data-figure=slopes] .mark-symbol path"
        return shown.execute_script(
            f"return [...document.querySelectorAll('{marks}')].map((item) => item.getAttribute('transform'))"
        )

    before = drawn()
    assert len(before) > 100
    one(shown, ".step").send_keys(Keys.HOME)
    wait_for(lambda: drawn() != before and len(drawn()) > 100)
    one(shown, ".step").send_keys(Keys.END)
    wait_for(lambda: drawn() == before)


def test_the_slider_moves_the_papers_tables_too(shown: Any) -> None:
    def seen() -> list[str]:
        notes = shown.find_elements(By.CSS_SELECTOR, "#series-0 [data-run] > .note")
        return [note.text.partition(" (")[0] for note in notes if note.is_displayed()]

    assert seen() == [], "folded"
    shown.execute_script("document.querySelector('#s0-papers').open = true")
    assert seen() == ["At step3979"]
    one(shown, ".step").send_keys(Keys.ARROW_LEFT)
    assert seen() == ["At step2048"]
    # Asked for again as long as figures above it still get their height; half a pixel may be lost to rounding
    below_the_bar = """
        const heading = document.querySelector('#s0-papers'), bar = document.querySelector('.bar');
        heading.scrollIntoView({behavior: 'instant'});
        return heading.getBoundingClientRect().top >= bar.getBoundingClientRect().bottom - 1"""
    wait_for(lambda: shown.execute_script(below_the_bar))
    one(shown, ".step").send_keys(Keys.END)
    assert seen() == ["At step3979"]


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


def test_nothing_is_clipped_at_1440(shown: Any) -> None:
    shown.execute_script("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    clipped = (
        "return [...document.querySelectorAll('.scroll')].filter((item) => item.scrollWidth > item.clientWidth + 1)"
        ".map((item) => item.getAttribute('aria-label') || item.getAttribute('aria-labelledby'))"
    )
    assert shown.execute_script(clipped) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(shown: Any, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    shown.execute_script("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    shown.execute_script(axe_source())
    run = "axe.run(document, {resultTypes: ['violations']}).then(arguments[arguments.length - 1])"
    shown.set_script_timeout(60)
    found = shown.execute_async_script(run)["violations"]
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == []


def axe_source() -> str:
    """The text of axe-core (npm: `npm install --no-save axe-core`); or RARE_TOKENS_AXE is its path."""
    given = os.environ.get("RARE_TOKENS_AXE", "node_modules/axe-core/axe.min.js")
    if not Path(given).is_file():
        pytest.skip(f"NO ACCESSIBILITY TEST: {given} is not there; `npm install --no-save axe-core` brings it")
    return Path(given).read_text(encoding="utf-8")


def test_tables_sort_both_ways_by_keyboard(shown: Any) -> None:
    ranks = [int(row[2]) for row in shown_rows(shown)]
    assert ranks == list(range(1, 21))
    heading = shown.find_elements(By.CSS_SELECTOR, "table.top thead tr:last-child th button")[3]
    heading.send_keys(Keys.ENTER)
    assert heading.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    assert [int(row[2]) for row in shown_rows(shown)] == ranks  # by influence, largest first
    heading.send_keys(Keys.ENTER)
    assert [int(row[2]) for row in shown_rows(shown)] == ranks[::-1]


def test_a_neuron_chosen_in_the_table_is_described_and_marked(shown: Any) -> None:
    row = shown_rows(shown)[4]
    shown.execute_script("arguments[0].click()", shown.find_elements(By.CSS_SELECTOR, "table.top .pin")[4])
    assert one(shown, ".neuron").get_attribute("value") == row[0]
    assert one(shown, ".status").text.startswith(f"Neuron {row[0]} rare: rank 5")
    assert one(shown, "tr.lit th").text == row[0]


def test_ranks_typed_in_zoom_and_reset_gives_them_back(shown: Any) -> None:
    field = one(shown, ".to")
    field.clear()
    field.send_keys("30", Keys.TAB)
    ticks = f"return [...document.querySelectorAll('{MAIN} .role-axis-label text')].map((item) => item.textContent)"
    wait_for(lambda: "20" in shown.execute_script(ticks))
    assert field.get_attribute("value") == "30"
    shown.execute_script("document.querySelector('.reset').click()")
    wait_for(lambda: "1,000" in shown.execute_script(ticks))


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


def test_on_paper_there_is_no_bar_and_no_button(shown: Any) -> None:
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not one(shown, ".bar").is_displayed()
        outside_tables = shown.find_elements(By.CSS_SELECTOR, "button:not(th *)")
        assert len(outside_tables) > 20
        assert [item for item in outside_tables if item.is_displayed()] == []
        assert one(shown, ".answer").is_displayed()
        assert len(base64.b64decode(shown.execute_cdp_cmd("Page.printToPDF", {})["data"])) > 50_000
    finally:
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
