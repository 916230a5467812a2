"""Versions over HTTP: listed, measured, promoted, rolled back."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import service
from fastapi.testclient import TestClient

from rec_engine.bundle import find_bundle, make_current, open_bundle
from rec_engine.data.events import EventStore
from rec_engine.registry import ModelRegistry


@pytest.fixture
def registry(model_dir: Path, second: Path, tmp_path: Path) -> Path:
    """Two versions, the first one promoted."""
    directory = tmp_path / "models"
    shutil.copytree(model_dir, directory)
    shutil.copytree(second, directory / second.name)
    return directory


@pytest.fixture
def of_registry(registry: Path, tmp_path: Path) -> Iterator[TestClient]:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    with service(open_bundle(registry), store, model_dir=registry) as client:
        yield client


def test_versions_are_listed_with_what_is_known_of_them(of_registry: TestClient, registry: Path, second: Path) -> None:
    found = of_registry.get("/models").json()
    served = find_bundle(registry).name
    assert {each["version"]: each["is_current"] for each in found["versions"]} == {served: True, second.name: False}
    assert (found["current"], found["rollback_to"]) == (served, None)
    assert all(each["metrics"]["ndcg@10"] > 0 and each["has_report"] for each in found["versions"])
    assert found["history"][0]["version"] == served


def judged(registry: Path, version: str, *, passes: bool) -> None:
    of_gate = ModelRegistry(registry)
    of_gate.keep_verdict(version, str(of_gate.current()), passes=passes, sentence=f"{version} was compared")


def test_a_version_is_promoted_and_rolled_back(of_registry: TestClient, registry: Path, second: Path) -> None:
    served = find_bundle(registry).name
    judged(registry, second.name, passes=True)
    assert of_registry.post(f"/models/{second.name}/promote", json={"reason": "better"}).json() == {
        "current": second.name
    }
    after = of_registry.get("/models").json()
    assert (after["current"], after["rollback_to"]) == (second.name, served)
    assert after["history"][0]["reason"] == f"over HTTP: better; {second.name} was compared"
    assert of_registry.post(f"/models/{second.name}/promote", json={}).json() == {"current": second.name}
    assert of_registry.post("/models/rollback", json={}).json() == {"current": served}
    assert find_bundle(registry).name == served
    assert of_registry.post("/models/rollback", json={}).status_code == 404


def test_what_the_gate_keeps_out_is_promoted_by_force_only(
    of_registry: TestClient, registry: Path, second: Path
) -> None:
    served, promotion = find_bundle(registry).name, f"/models/{second.name}/promote"
    judged(registry, second.name, passes=False)
    listed = {each["version"]: each["gate"] for each in of_registry.get("/models").json()["versions"]}
    assert listed == {served: None, second.name: {"passes": False, "sentence": f"{second.name} was compared"}}
    refused = of_registry.post(promotion, json={"reason": "better"})
    assert (refused.status_code, refused.json()["detail"]) == (409, f"{second.name} was compared")
    assert "force promotes" in refused.json()["hint"]
    assert find_bundle(registry).name == served
    assert of_registry.post(promotion, json={"reason": "seen", "force": True}).json() == {"current": second.name}
    assert of_registry.get("/models").json()["history"][0]["reason"] == "over HTTP, by force: seen"


def test_what_was_compared_with_another_version_has_not_passed(
    of_registry: TestClient, registry: Path, second: Path
) -> None:
    refused = of_registry.post(f"/models/{second.name}/promote", json={})
    assert refused.status_code == 409
    assert "has not been compared" in refused.json()["detail"]
    judged(registry, second.name, passes=True)
    shutil.copytree(registry / second.name, registry / "20200101-000000-aaaaaa")
    make_current(registry, "20200101-000000-aaaaaa", "promotion", reason="meanwhile")
    assert of_registry.post(f"/models/{second.name}/promote", json={}).status_code == 409


def test_a_damaged_version_is_listed_as_that_and_not_promoted(
    of_registry: TestClient, registry: Path, second: Path
) -> None:
    (registry / second.name / "item_inputs.npy").unlink()
    damage = {each["version"]: each["damage"] for each in of_registry.get("/models").json()["versions"]}
    assert "item_inputs.npy" in damage[second.name]
    answer = of_registry.post(f"/models/{second.name}/promote", json={"force": True})
    assert answer.status_code == 503
    assert of_registry.get("/models").json()["current"] != second.name


def test_what_training_left_of_a_version_is_shown(of_registry: TestClient, second: Path) -> None:
    report = of_registry.get(f"/models/{second.name}/report")
    assert report.headers["content-type"].startswith("text/html")
    assert second.name in report.text
    assert "sandbox" in report.headers["content-security-policy"]
    assert of_registry.get(f"/models/{second.name}/figures").json()["version"] == second.name


@pytest.mark.parametrize("version", ["nothing", "..", "%2e%2e", "current"])
def test_nothing_but_versions_is_shown(of_registry: TestClient, version: str) -> None:
    for path in (f"/models/{version}/report", f"/models/{version}/figures"):
        assert of_registry.get(path).status_code == 404
    assert of_registry.post(f"/models/{version}/promote", json={}).status_code in {404, 405}


def test_a_service_of_one_model_says_that_it_has_no_registry(client: TestClient) -> None:
    found = client.get("/models").json()
    assert found["current"] is None
    assert [each["is_current"] for each in found["versions"]] == [True]
    assert client.post("/models/rollback", json={}).status_code == 409
    assert client.post("/models/20260101-000000-aaaaaa/promote", json={}).status_code == 409
    assert client.get("/models/20260101-000000-aaaaaa/report").status_code == 409
