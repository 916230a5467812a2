"""Arms that serve another version: loaded beside the current one, checked before the start, and tried again."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from conftest import promote, service
from fastapi.testclient import TestClient

from rec_engine.bundle import current_version, open_bundle
from rec_engine.data.events import EventStore

USERS = range(20)


@pytest.fixture
def models(model_dir: Path, second: Path, tmp_path: Path) -> Path:
    """A registry of both, the first one promoted."""
    shutil.copytree(model_dir, tmp_path / "models")
    shutil.copytree(second, tmp_path / "models" / second.name)
    return tmp_path / "models"


@pytest.fixture
def client(models: Path, url: str) -> Iterator[TestClient]:
    with service(open_bundle(models), EventStore(url), model_dir=models) as client:
        yield client


def create(client: TestClient, version: str, **fields: object) -> dict[str, Any]:
    body = {"experiment_id": "exp", "name": "Test", "treatment": {"model_version": version}, **fields}
    answer = client.post("/experiments", json=body)
    found: dict[str, Any] = answer.json()
    return found | {"code": answer.status_code}


def begin(client: TestClient, version: str, **fields: object) -> None:
    made = create(client, version, **fields)
    assert made["code"] == 200, made
    assert client.post("/experiments/exp/start", json={}).status_code == 200


def answer(client: TestClient, user: int, **fields: object) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/recommend", json={"user_id": user, **fields}).json()
    return found


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.1)


def serves(client: TestClient, version: str) -> Callable[[], bool]:
    return lambda: any(answer(client, user)["metadata"]["model_version"] == version for user in USERS)


def test_users_of_the_arm_are_answered_by_its_version(client: TestClient, models: Path, second: Path, url: str) -> None:
    begin(client, second.name)
    wait_for(serves(client, second.name))
    versions = {"exp/control": current_version(models), "exp/treatment": second.name}
    found = {user: answer(client, user) for user in USERS}
    for user, each in found.items():
        metadata = each["metadata"]
        assert metadata["model_version"] == versions[metadata["experiment"]]
        assert metadata["degraded"] == []
        again = answer(client, user)["metadata"]
        assert (again["cached"], again["model_version"]) == (True, metadata["model_version"])
    time.sleep(0.6)  # impressions are gathered for a moment
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT request_id, model_version FROM impressions").fetchall()
    engine.dispose()
    logged = {row[0]: row[1] for row in rows}
    assert all(logged[each["request_id"]] == each["metadata"]["model_version"] for each in found.values())


def test_the_version_of_an_arm_knows_what_was_acknowledged(client: TestClient, second: Path) -> None:
    begin(client, second.name, forced={"3": "treatment"})
    wait_for(lambda: answer(client, 3)["metadata"]["model_version"] == second.name)
    item_id = answer(client, 3)["recommendations"][0]["item_id"]
    client.post("/feedback", json={"user_id": 3, "item_id": item_id, "action": "purchase"})
    later = answer(client, 3)
    assert later["metadata"]["model_version"] == second.name
    assert item_id not in [each["item_id"] for each in later["recommendations"]]


def test_two_versions_fill_one_list(client: TestClient, models: Path, second: Path) -> None:
    begin(client, second.name, kind="interleaving")
    both = f"{current_version(models)}+{second.name}"
    wait_for(serves(client, both))
    assert {answer(client, user)["metadata"]["model_version"] for user in USERS} == {both}


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_version_that_cannot_be_served_is_refused(
    client: TestClient, models: Path, second: Path, damage: str
) -> None:
    assert create(client, "v2")["code"] == 422
    assert "no version 'v2'" in create(client, "v2")["detail"]
    assert create(client, second.name)["code"] == 200
    if damage == "gone":
        shutil.rmtree(models / second.name)
    else:
        (models / second.name / "items.parquet").write_bytes(b"something else")
    started = client.post("/experiments/exp/start", json={})
    assert (started.status_code, "arm treatment" in started.json()["detail"]) == (422, True)
    assert client.get("/experiments/exp").json()["status"] == "draft"


def test_users_of_an_arm_that_cannot_be_opened_get_the_current_model_until_it_can(
    models: Path, second: Path, url: str, tmp_path: Path
) -> None:
    with service(open_bundle(models), EventStore(url), model_dir=models) as client:
        begin(client, second.name, forced={"3": "treatment"})
    shutil.move(models / second.name, tmp_path / "away")
    with service(open_bundle(models), EventStore(url), model_dir=models) as client:
        found = answer(client, 3)["metadata"]
        assert (found["experiment"], found["model_version"]) == ("exp/treatment", current_version(models))
        assert (found["degraded"], answer(client, 3)["metadata"]["cached"]) == (["model_version"], False)
        assert 'degraded_answers_total{part="model_version"}' in client.get("/metrics").text
        shutil.move(tmp_path / "away", models / second.name)
        wait_for(lambda: answer(client, 3)["metadata"]["model_version"] == second.name)
        assert answer(client, 3)["metadata"]["degraded"] == []


def test_an_end_gives_everybody_the_current_model(client: TestClient, models: Path, second: Path) -> None:
    begin(client, second.name)
    wait_for(serves(client, second.name))
    client.post("/experiments/exp/stop", json={})
    assert {answer(client, user)["metadata"]["model_version"] for user in USERS} == {current_version(models)}


def test_a_version_that_is_promoted_meanwhile_is_still_the_arms(client: TestClient, models: Path, second: Path) -> None:
    begin(client, second.name)
    wait_for(serves(client, second.name))
    promote(models, second.name)
    wait_for(lambda: {answer(client, user)["metadata"]["model_version"] for user in USERS} == {second.name})
    assert all(answer(client, user)["metadata"]["degraded"] == [] for user in USERS)
