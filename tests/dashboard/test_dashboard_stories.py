"""What people do with the dashboard, done in a real browser against a real service."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from servers import served

CHROMIUM = "/usr/bin/chromium"
ADMIN, READER = "rek_" + "A" * 43, "rek_" + "R" * 43
KEYS = (
    f'[{{"name": "boss", "sha256": "{hashlib.sha256(ADMIN.encode()).hexdigest()}", "scopes": ["admin"]}},'
    f' {{"name": "reader", "sha256": "{hashlib.sha256(READER.encode()).hexdigest()}", "scopes": ["serve"]}}]'
)
USER = 4
TITLE_WITH_MARKUP = "<img src=x onerror=\"document.title='taken over'\">"
ODD_ID = "a/b?c --5"
PAGES = {
    "overview": "#/",
    "users": "#/users",
    "user": f"#/users/{USER}",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(model_dir: Path, second: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with keys, two versions and some events."""
    registry = tmp_path_factory.mktemp("registry") / "models"
    shutil.copytree(model_dir, registry)
    shutil.copytree(second, registry / second.name)
    log = tmp_path_factory.mktemp("log") / "events.db"
    with served(registry, log, 1, variables={"REC_ENGINE_SECURITY__KEYS": KEYS}) as (url, _):
        yield url


def opened(browser: Browser, url: str, at: str = "#/", key: str | None = ADMIN, **options: object) -> Page:
    """Return a page of a tab of its own; whatever the console calls an error fails the test that closes it."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    if key:
        context.add_init_script(f"sessionStorage.setItem('rec-engine key', '{key}')")
    page = context.new_page()
    page.set_default_timeout(10_000)
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.errors = errors  # type: ignore[attr-defined]
    page.goto(f"{url}/{at}")
    page.locator("h1").first.wait_for()
    return page


def closed(page: Page, *foreseen: str) -> None:
    errors = [text for text in page.errors if not any(each in text for each in foreseen)]  # type: ignore[attr-defined]
    page.context.close()
    assert errors == []


def settle(page: Page) -> None:
    expect(page.locator("[aria-busy], .skeleton")).to_have_count(0)


def titles(page: Page) -> list[str]:
    return page.locator("ol.items .title a").all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_accessible(browser: Browser, url: str, name: str, scheme: str) -> None:
    page = opened(browser, url, PAGES[name], color_scheme=scheme, reduced_motion="reduce")
    settle(page)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    closed(page)


@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_sideways_on_a_phone(browser: Browser, url: str, name: str) -> None:
    page = opened(browser, url, PAGES[name], viewport={"width": 390, "height": 844})
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    closed(page)


def test_without_a_key_nothing_is_shown_and_one_that_is_entered_opens(browser: Browser, url: str) -> None:
    page = opened(browser, url, key=None)
    expect(page.locator("h1")).to_have_text("A key is needed")
    page.get_by_role("button", name="Enter a key").click()
    page.get_by_label("Key", exact=True).fill(READER)
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("h1")).to_have_text("Overview")
    assert page.evaluate("Object.values(localStorage).join() + document.cookie") == ""
    closed(page)


def test_overview_counts_what_the_service_answers(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    tile = page.locator(".tile", has_text="Answers a second")
    before = tile.locator(".note").inner_text()
    page.evaluate(
        "fetch('recommend', {method: 'POST', body: '{\"user_id\": 4}', headers: {'content-type': 'application/json',"
        f" 'x-api-key': '{ADMIN}'}}}})"
    )
    expect(tile.locator(".note")).not_to_have_text(before)
    expect(page.get_by_role("rowheader", name="recall")).to_be_visible()
    closed(page)


def test_a_what_if_click_changes_the_list_at_once_and_is_not_recorded(browser: Browser, url: str) -> None:
    page = opened(browser, url, f"#/users/{USER}")
    settle(page)
    before = titles(page)
    page.get_by_role("button", name=f"What if he clicks {before[0]}").click()
    expect(page.locator(".whatif")).to_contain_text(before[0])
    expect(page.locator("ol.items .title a").filter(has_text=before[0])).to_have_count(0)
    settle(page)
    assert len(titles(page)) == len(before)
    page.get_by_role("button", name=f"Take {before[0]} away").click()
    expect(page.locator("ol.items .title a").first).to_have_text(before[0])
    closed(page)


def test_why_an_item_is_there_is_said(browser: Browser, url: str) -> None:
    page = opened(browser, url, f"#/users/{USER}")
    page.locator("summary").first.click()
    why = page.locator("details[open]")
    expect(why.get_by_role("table", name="Sources that offered it")).to_be_visible()
    expect(why.get_by_text("Drawn by")).to_be_visible()
    closed(page)


def test_a_user_is_found_and_filtered_with_the_keyboard_alone(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to content")
    link = page.get_by_role("link", name="Users")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("User id")).to_be_focused()
    page.keyboard.type(str(USER))
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(f"User {USER}")
    settle(page)
    page.get_by_role("button", name="Rare").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Rare")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("ol.items > li").filter(has_not_text="Rare")).to_have_count(0)
    assert titles(page)
    closed(page)
