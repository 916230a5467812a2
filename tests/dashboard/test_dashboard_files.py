"""The dashboard's files: how they are sent, and that they are what they are said to be."""

import hashlib
import re
from pathlib import Path

import pytest
from conftest import service
from fastapi.testclient import TestClient

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import EventStore
from rec_engine.serving.dashboard import DIRECTORY, POLICY
from rec_engine.utils.config import ServingConfig

SCRIPTS = sorted(path for path in DIRECTORY.rglob("*.js") if "vendor" not in path.parts)
VENDORED = {
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def test_the_start_page_has_a_strict_policy_and_no_script_or_style_of_its_own(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", answer.text)


def test_every_file_that_the_page_names_is_there(client: TestClient) -> None:
    named = re.findall(r'(?:src|href)="(dashboard/[^"]+)"', client.get("/").text)
    assert len(named) > 5
    for path in named:
        assert client.get(f"/{path}").status_code == 200, path


def test_what_has_not_changed_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/dashboard/app.js")
    assert first.headers["content-type"].startswith("text/javascript")
    again = client.get("/dashboard/app.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/dashboard/app.js", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["../serving/api.py", "%2e%2e/serving/api.py", "nothing.js", "", "..%2f..%2fpyproject.toml"]
)
def test_nothing_else_is_sent(client: TestClient, path: str) -> None:
    answer = client.get(f"/dashboard/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_service_without_dashboard_has_neither_page_nor_files(bundle: ModelBundle, tmp_path: Path) -> None:
    config = ServingConfig.model_validate({"api": {"dashboard": False}})
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}"), config=config) as client:
        assert client.get("/").status_code == 404
        assert client.get("/dashboard/app.js").status_code == 404
        assert client.get("/access").status_code == 200


def test_the_chart_library_is_the_released_one() -> None:
    directory = DIRECTORY / "vendor" / "uplot"
    assert {path: hashlib.sha256((directory / path).read_bytes()).hexdigest() for path in VENDORED} == VENDORED
    assert "1.6.32" in (directory / "VERSION").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(DIRECTORY).as_posix())
def test_no_script_makes_markup_of_text(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert len(text.splitlines()) <= 400
