"""The chat page in a real browser; skipped where playwright or Chromium are missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_server import checkpoint_of, serving

PHONE = {"width": 360, "height": 640}


@pytest.fixture(scope="module", params=[True, False], ids=["chats", "plain"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page") / "tiny"
    checkpoint_of(chats=request.param).save(folder)
    with serving(folder) as (address, _):
        yield address


def answered(page: Any, text: str) -> str:
    page.locator("#ask").get_by_role("textbox").fill(text)
    page.keyboard.press("Enter")
    page.locator(".message.assistant .note").last.wait_for()
    return str(page.locator(".message.assistant .text").last.text_content())


def test_an_answer_comes_coloured_with_its_probabilities(browser: Any, address: str, tmp_path: Path) -> None:
    page, wrong = browser.new_page(), list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda request: wrong.append(request.url) if not request.url.startswith((address, "data:")) else 0
    )
    page.goto(address)
    page.get_by_label("Seed").fill("3")
    first = answered(page, "Hi")
    page.locator(".token:visible").first.hover()
    assert "%" in str(page.locator("#tip").text_content())
    page.locator(".message.assistant .text").focus()
    page.keyboard.press("End")
    assert page.locator(".token").last.evaluate("span => span.classList.contains('at')")
    page.get_by_role("button", name="New").click()
    assert (answered(page, "Hi"), wrong) == (first, [])


def test_stop_ends_an_answer(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    page.evaluate("byId('max_tokens').max = 1e6; byId('max_tokens').value = 1e6; byId('temperature').value = 0")
    page.locator("#ask").get_by_role("textbox").fill("a")
    page.get_by_role("button", name="Send").click()
    page.locator(".token").first.wait_for(state="attached")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("ended stopped by you").wait_for()


def test_a_phone_needs_no_sideways_scrolling(browser: Any, address: str) -> None:
    page = browser.new_page(viewport=PHONE, has_touch=True, is_mobile=True)
    page.goto(address)
    answered(page, "Hi")
    page.locator(".token:visible").first.tap()
    assert page.locator("#tip").is_visible()
    page.get_by_role("button", name="Settings").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_every_control_has_a_name(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    nameless = (
        "e => [...e].filter(x => !(x.labels?.length || x.textContent.trim() || x.ariaLabel)).map(x => x.outerHTML)"
    )
    assert page.locator("button, input, textarea").evaluate_all(nameless) == []
