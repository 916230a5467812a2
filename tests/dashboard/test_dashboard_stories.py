"""What people do with the dashboard, done in a real browser against a real service."""

import hashlib
import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from servers import ask, served

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
    "item": "#/items/104",
    "catalogue": "#/catalogue",
    "models": "#/models",
    "version": "#/models/{version}",
    "experiments": "#/experiments",
    "new experiment": "#/experiments/-new",
    "experiment": "#/experiments/begun",
    "events": "#/events",
    "shop": "#/shop",
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
        told(url, "items", {"items": [{"item_id": ODD_ID, "title": TITLE_WITH_MARKUP, "categories": ["Rare"]}]})
        for user in range(3):
            told(url, "feedback", {"user_id": user, "item_id": 104, "action": "click"})
        told(url, "feedback", {"user_id": "ann", "item_id": ODD_ID, "action": "purchase"})
        told(
            url,
            "experiments",
            {"experiment_id": "begun", "name": "Begun", "treatment": {"diversity": 0.2}, "coverage": 0},
        )
        told(url, "experiments/begun/start", {})
        yield url


def told(url: str, path: str, body: dict[str, object]) -> dict[str, object]:
    """Return what the service answers to the administrator."""
    headers = {"content-type": "application/json", "x-api-key": ADMIN}
    request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def versions(url: str) -> dict[str, Any]:
    request = urllib.request.Request(f"{url}/models", headers={"x-api-key": ADMIN})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


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


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_accessible_by_day_and_night_and_fits_a_phone(browser: Browser, url: str, name: str) -> None:
    at = PAGES[name].replace("{version}", versions(url)["current"])
    page = opened(browser, url, at, color_scheme="light", reduced_motion="reduce")
    settle(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 390, "height": 844})
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
    page.get_by_role("button", name=f"What if clicked: {before[0]}").click()
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


def test_an_item_is_found_by_its_words_and_opened(browser: Browser, url: str) -> None:
    page = opened(browser, url, "#/catalogue")
    page.get_by_label("Words or id").fill("item 1")
    expect(page.get_by_role("table")).to_contain_text("1 to 11 of 11")
    page.get_by_role("link", name="Item 12", exact=True).click()
    expect(page.locator("h1")).to_have_text("Item 12")
    expect(page.get_by_role("heading", name="Similar items")).to_be_visible()
    closed(page)


def test_a_title_with_markup_is_shown_as_text_and_its_odd_id_works(browser: Browser, url: str) -> None:
    page = opened(browser, url, "#/catalogue")
    page.get_by_label("Words or id").fill(ODD_ID)
    page.get_by_role("link", name=TITLE_WITH_MARKUP).click()
    expect(page.locator("h1")).to_have_text(TITLE_WITH_MARKUP)
    expect(page.get_by_role("link", name="ann")).to_be_visible()
    settle(page)
    assert page.locator("main img").count() == 0
    assert "taken over" not in page.title().replace(TITLE_WITH_MARKUP, "")
    page.goto(f"{url}/#/events")
    expect(page.get_by_role("link", name=TITLE_WITH_MARKUP)).to_be_visible()
    assert page.locator("main img").count() == 0
    closed(page)


def test_why_a_user_does_not_see_an_item_is_said(browser: Browser, url: str) -> None:
    page = opened(browser, url, "#/items/104")
    page.get_by_label("User id").fill("1")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".verdict")).to_contain_text("It is dropped at the step “history”")
    closed(page)


def test_who_clicked_an_item_and_who_was_shown_it_is_listed(browser: Browser, url: str) -> None:
    told(url, "recommend", {"user_id": "guest", "num_recommendations": 40})
    page = opened(browser, url, "#/items/104")
    events = page.get_by_role("table", name="Latest events")
    for user in range(3):
        expect(events.get_by_role("link", name=str(user), exact=True)).to_be_visible()
    expect(page.get_by_role("table", name="Latest answers").get_by_role("link", name="guest")).to_be_visible()
    closed(page)


def test_a_version_is_promoted_and_rolled_back_with_a_reason(browser: Browser, url: str) -> None:
    before = versions(url)
    other = next(each["version"] for each in before["versions"] if not each["is_current"])
    page = opened(browser, url, "#/models")
    expect(page.get_by_role("checkbox")).to_have_count(len(before["versions"]))
    for each in page.get_by_role("checkbox").all():
        each.check()
    expect(page.get_by_role("heading", name="Comparison")).to_be_visible()
    page.get_by_role("button", name=f"Promote {other}").click()
    page.get_by_label("Reason, for the record").fill("tried for a week")
    expect(page.get_by_text("The gate has not compared the two")).to_be_visible()
    page.get_by_role("button", name="Promote a version").click()
    refusal = page.get_by_role("dialog", name="That was not done")
    expect(refusal).to_contain_text(f"{other} has not been compared with {before['current']}")
    assert versions(url)["current"] == before["current"]
    refusal.get_by_role("button", name="Promote all the same").click()
    expect(page.get_by_role("row", name=other).get_by_text("served")).to_be_visible()
    expect(page.get_by_role("table", name="Latest first")).to_contain_text("over HTTP, by force: tried for a week")
    assert versions(url)["current"] == other
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("row", name=before["current"]).get_by_text("served").first).to_be_visible()
    assert versions(url)["current"] == before["current"]
    closed(page, "409")
    deadline = time.monotonic() + 30
    while ask(f"{url}/ready")["model_version"] != before["current"]:  # other tests go by the lists of that model
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_who_may_only_read_can_change_nothing_and_is_told_what_it_takes(browser: Browser, url: str) -> None:
    page = opened(browser, url, "#/models", key=READER)
    expect(page.get_by_role("button", name="Promote")).to_be_disabled()
    for name in ("events", "item", "new experiment"):
        page.goto(f"{url}/{PAGES[name]}")
        expect(page.get_by_text("Only for administrators").first).to_be_visible()
    closed(page)


def test_an_experiment_that_is_called_new_can_be_opened(browser: Browser, url: str) -> None:
    told(
        url,
        "experiments",
        {"experiment_id": "new", "name": "Called so", "treatment": {"use_reranking": False}, "coverage": 0},
    )
    page = opened(browser, url, "#/experiments/new")
    expect(page.get_by_role("heading", name="Called so")).to_be_visible()
    page.goto(f"{url}/#/experiments")
    page.get_by_role("link", name="New experiment").click()
    expect(page.get_by_role("heading", name="Called so")).to_have_count(0)
    closed(page)


def test_an_experiment_is_planned_reckoned_started_and_stopped(browser: Browser, url: str) -> None:
    page = opened(browser, url, "#/experiments/-new")
    page.get_by_label("Name").fill("Bolder lists")
    page.get_by_label("Id", exact=True).fill("bolder")
    page.get_by_label("Exploration, 0 to 10").fill("0.5")
    page.get_by_label("Users who take part, in %").fill("1")
    page.get_by_role("button", name="Calculate").click()
    expect(page.locator(".trouble")).to_contain_text("at least 100 are needed to plan with")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("h1")).to_have_text("Bolder lists")
    for step, after in (("Start", "running"), ("Stop", "stopped")):
        page.get_by_role("button", name=step).click()
        page.get_by_role("dialog").get_by_role("button", name=step).click()
        expect(page.locator(".head .badge")).to_have_text(after)
    expect(page.locator(".verdict").first).to_be_visible()
    page.goto(f"{url}/#/experiments")
    expect(page.get_by_role("row", name="Bolder lists")).to_contain_text("stopped")
    closed(page, "422")


def test_events_show_as_they_come(browser: Browser, url: str) -> None:
    page = opened(browser, url, "#/events")
    expect(page.locator(".tail li").first).to_be_visible()
    told(url, "feedback", {"user_id": "late", "item_id": 107, "action": "like", "timestamp": "2001-02-03"})
    expect(page.get_by_role("link", name="late")).to_be_visible()
    expect(page.locator(".tail li", has_text="late").locator("time")).to_contain_text("2001")
    page.get_by_label("What").select_option("purchase")
    expect(page.get_by_role("link", name="late")).to_have_count(0)
    closed(page)


def test_a_click_in_the_shop_is_feedback_and_changes_the_carousels(browser: Browser, url: str) -> None:
    page = opened(browser, url, "#/shop")
    page.get_by_label("Shopper id").fill("shopper-1")
    page.get_by_role("button", name="Enter as this shopper").click()
    own = page.get_by_role("region", name="For you")
    expect(own).to_contain_text("Nothing is known of you yet")
    first = own.get_by_role("button").first
    clicked = str(first.get_attribute("data-item"))
    first.click()
    expect(own).to_contain_text("From what you have clicked so far")
    expect(own.locator(f"[data-item='{clicked}']")).to_have_count(0)
    expect(page.get_by_role("region", name="Similar to")).to_be_visible()
    page.goto(f"{url}/#/events")
    expect(page.locator(".tail li", has_text="shopper-1")).to_contain_text("click")
    closed(page)


def test_the_theme_is_switched_and_kept(browser: Browser, url: str) -> None:
    page = opened(browser, url, color_scheme="light")
    page.get_by_role("button", name="Dark theme").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    expect(page.get_by_role("button", name="Light theme")).to_be_visible()
    closed(page)


def test_an_answer_that_comes_late_replaces_no_later_one(browser: Browser, url: str) -> None:
    held: list[Route] = []
    page = opened(browser, url, "#/catalogue")
    page.route("**/items?query=item+1&*", lambda route: held.append(route))  # noqa: PLW0108 - it marks what it is given
    with page.expect_request("**/items?query=item+1&*"):
        page.get_by_label("Words or id").fill("item 1")
    page.get_by_label("Words or id").fill("item 12")
    expect(page.get_by_role("table")).to_contain_text("1 to 1 of 1")
    with page.expect_response("**/items?query=item+1&*"):
        held[0].continue_()
    page.wait_for_timeout(200)
    expect(page.get_by_role("table")).to_contain_text("1 to 1 of 1")
    page.get_by_label("Words or id").fill("item")
    page.evaluate("location.hash = '#/models'")  # before the search begins
    page.wait_for_timeout(400)
    assert page.url.endswith("#/models")
    closed(page)


def test_a_shelf_of_one_shopper_is_not_shown_to_the_next(browser: Browser, url: str) -> None:
    held: list[Route] = []
    page = opened(browser, url, "#/shop")
    page.route(
        "**/recommend", lambda route: held.append(route) if '"2"' in route.request.post_data else route.continue_()
    )
    for shopper in ("2", "newcomer"):
        page.get_by_label("Shopper id").fill(shopper)
        with page.expect_request("**/recommend"):
            page.get_by_role("button", name="Enter as this shopper").click()
    own = page.get_by_role("region", name="For you")
    expect(own).to_contain_text("Nothing is known of you yet")
    with page.expect_response("**/recommend"):
        held[0].continue_()
    page.wait_for_timeout(200)
    expect(own).to_contain_text("Nothing is known of you yet")
    closed(page)


def test_what_is_no_key_is_told_and_the_one_in_use_is_kept(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    page.get_by_role("button", name="Key: admin").click()
    page.get_by_label("Key", exact=True).fill("rek_…")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("dialog")).to_contain_text("This is no key")
    page.get_by_role("button", name="Close").click()
    page.reload()
    expect(page.get_by_role("button", name="Key: admin")).to_be_visible()
    closed(page)


def test_a_service_that_hangs_and_a_proxy_that_answers_for_it_are_told(browser: Browser, url: str) -> None:
    page = opened(browser, url)
    soon = (
        "const ends = new AbortController(); setTimeout(() => ends.abort(new DOMException('', 'TimeoutError')), 300);"
    )
    page.add_init_script(f"AbortSignal.timeout = () => {{ {soon} return ends.signal; }}")
    for path in ("stats", "model/status"):
        page.route(f"**/{path}", lambda _: None)
    page.reload()
    expect(page.locator("main > div > .trouble")).to_contain_text("The service cannot be reached")
    page.unroute("**/model/status")
    page.get_by_role("region", name="Model").get_by_role("button", name="Try again").click()
    expect(page.get_by_role("region", name="Model")).to_contain_text("Trained on")
    page.route("**/models", lambda route: route.fulfill(status=502, json={"message": "Bad Gateway"}))
    page.get_by_role("link", name="Models").click()
    expect(page.locator(".trouble")).to_contain_text("The service answered 502")
    closed(page, "502")
