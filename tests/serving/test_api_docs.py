"""The page on all routes comes from the service alone."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect, sync_playwright
from servers import served

from rec_engine.serving.api_docs import DIRECTORY, POLICY

CHROMIUM = "/usr/bin/chromium"
VENDORED = {
    "LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
    "NOTICE": "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui-bundle.js.LICENSE.txt": "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}


def test_the_page_and_its_files_are_sent_under_a_policy_that_lets_no_other_code_run(client: TestClient) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-security-policy"] == POLICY
    assert "script-src" not in POLICY
    assert POLICY.startswith("default-src 'self'; ")
    named = re.findall(r'(?:src|href)="(docs/[^"]+)"', answer.text)
    assert len(named) == 3
    for path in named:
        assert client.get(f"/{path}").status_code == 200
    assert "//" not in answer.text.replace("://", "")
    assert client.get("/docs/../api.py").status_code == 404
    assert client.get("/redoc").status_code == 404


def test_swagger_ui_is_the_released_one() -> None:
    directory = DIRECTORY / "vendor" / "swagger-ui"
    assert {path: hashlib.sha256((directory / path).read_bytes()).hexdigest() for path in VENDORED} == VENDORED
    assert "5.35.0" in (directory / "VERSION").read_text(encoding="utf-8")


@pytest.fixture
def page(model_dir: Path, tmp_path: Path) -> Iterator[Page]:
    """The page in a browser that reaches nothing but the service; what its console calls an error fails the test."""
    with (
        served(model_dir, tmp_path / "events.db", 1) as (url, _),
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        page, troubles = browser.new_page(), list[str]()
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("request", lambda asked: troubles.append(asked.url) if not _is_own(asked.url, url) else None)
        page.goto(f"{url}/docs")
        yield page
        assert troubles == []


def _is_own(asked: str, url: str) -> bool:
    return asked.startswith((f"{url}/", "data:"))


def test_a_route_can_be_read_and_tried(page: Page) -> None:
    route = page.locator("#operations-default-health_health_get")
    route.click()
    route.get_by_role("button", name="Try it out").click()
    route.get_by_role("button", name="Execute").click()
    expect(route.locator(".live-responses-table .microlight").first).to_contain_text("alive")
