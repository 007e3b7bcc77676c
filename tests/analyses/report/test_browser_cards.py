"""Cards in a real browser: their address, the search, the colours; and what can be saved or copied."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import By, Keys, curves_told, one, shown_rows, wait_for

pytestmark = pytest.mark.slow


def test_a_card_opens_by_keyboard_and_holds_no_script(shown: Any) -> None:
    cards = shown.find_elements(By.CSS_SELECTOR, "details.card")
    assert [card.get_attribute("open") for card in cards] == ["true", None, None]
    assert cards[1].find_elements(By.CSS_SELECTOR, ".tok") == [], "drawn when it is opened"
    cards[1].find_element(By.CSS_SELECTOR, "summary").send_keys(Keys.ENTER)
    wait_for(lambda: cards[1].find_element(By.CSS_SELECTOR, ".passage").is_displayed())
    assert "\\x1b[31mred" in shown.execute_script("return document.querySelector('.passage').textContent")
    assert shown.execute_script("return window.hacked") is None


def test_a_cards_address_opens_it_and_holds_the_state_of_the_page(shown: Any, index: Path) -> None:
    first, second = (row[0] for row in shown_rows(shown)[:2])
    shown.execute_script("document.querySelector('table.top tbody:not([hidden]) .pin').click()")
    wait_for(lambda: shown.current_url.endswith(f"#n{first}"))
    shown.execute_script("document.querySelector('input[value=nc]').click()")
    one(shown, ".step").send_keys(Keys.ARROW_LEFT)
    assert shown.current_url.endswith(f"#n{first}&preset=nc&step0=4")
    shown.get("about:blank")
    shown.get(f"{index.as_uri()}#n{second}&preset=nc&step0=4")
    wait_for(lambda: shown.execute_script("return document.documentElement.dataset.drawn"))
    assert curves_told(shown) == ["step2048, nc:"]
    card = one(shown, f"#n{second}")
    assert card.get_attribute("open") == "true"
    bar = shown.execute_script("return document.querySelector('.bar').getBoundingClientRect().bottom")
    top = "return document.getElementById(arguments[0]).getBoundingClientRect().top"
    wait_for(lambda: bar - 2 <= shown.execute_script(top, f"n{second}") <= bar + 40)


def test_an_address_without_a_card_says_which_command_makes_one(shown: Any, index: Path) -> None:
    shown.get(f"{index.as_uri()}#n1000")
    said = wait_for(lambda: one(shown, "output.found").text)
    assert said.startswith("Neuron 1000 has no card on this page: python cli.py neuron 1000 novella-step3979-")


def test_cards_are_found_by_number_and_by_token(shown: Any) -> None:
    neurons = [row[0] for row in shown_rows(shown)[:3]]
    field = one(shown, "input.find")

    def found(text: str) -> list[str]:
        field.clear()
        field.send_keys(text)
        cards = shown.find_elements(By.CSS_SELECTOR, "details.card")
        return [card.get_attribute("data-neuron") for card in cards if card.is_displayed()]

    assert found(neurons[2]) == [neurons[2]]
    assert one(shown, f"#n{neurons[2]}").get_attribute("open") == "true"
    assert found("日本語") == neurons, "each of the three helps or hurts that token"
    assert one(shown, "output.found").text == "3 cards"
    assert found("nosuchtoken") == []
    assert one(shown, "output.found").text == "0 cards"
    assert found(" ") == neurons


def test_tokens_of_a_passage_are_coloured_by_activation_or_by_the_change_of_their_loss(shown: Any) -> None:
    def shades() -> list[str]:
        every = (
            "return [...document.querySelectorAll('details.card[open] .tok')].map((item) => item.className + "
            "getComputedStyle(item).backgroundColor)"
        )
        return shown.execute_script(every)

    before = shades()
    assert any("plus" in shade for shade in before)
    assert any("minus" in shade for shade in before)
    shown.execute_script("document.querySelector('.colours input[value=delta_loss]').click()")
    after = shades()
    assert len(after) == len(before)
    assert after != before
    assert "plus" not in after[0] + after[0], "the first token was not predicted"
    title = one(shown, "details.card[open] .tok").get_attribute("title")
    assert title.startswith("activation ")
    assert title.endswith("; Δ not measured")


def test_every_figure_can_be_saved_with_its_rows(shown: Any) -> None:
    figures = shown.execute_script(
        "return [...document.querySelectorAll('figure')].filter((item) => item.querySelector('.plot'))"
        ".map((item) => [item.querySelectorAll('.plot').length, item.querySelectorAll('.save').length])"
    )
    assert all(buttons == 2 * plots for plots, buttons in figures)
    shown.execute_script(
        "window.saved = [];"
        "URL.createObjectURL = (blob) => { blob.text().then((text) => saved.push(text)); return '#'; }"
    )
    shown.execute_script(
        "[...document.querySelectorAll('.save')].filter((b) => /CSV/.test(b.textContent)).forEach((b) => b.click())"
    )
    texts = wait_for(lambda: len(found := shown.execute_script("return saved")) >= len(figures) and found)
    assert texts[0].startswith("group,neuron,up,down,rank,rare_rank,influence,")
    assert len(texts[0].splitlines()) == 1 + 2 * 1024
    assert all(len(text.splitlines()) > 1 for text in texts)


def test_commands_and_citations_can_be_copied(shown: Any) -> None:
    button = one(shown, "#provenance .copy")
    shown.execute_script("arguments[0].click()", button)
    wait_for(lambda: button.text == "Copied")
    assert "@misc{liu2025emergent," in one(shown, "#bibtex").text
