"""A promoted version takes over between two requests; one that is damaged does not."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import promote, service, tiny_config
from fastapi.testclient import TestClient

from rec_engine.bundle import find_bundle, open_bundle
from rec_engine.data.dataset import RecommendationDataset
from rec_engine.data.events import EventStore
from rec_engine.pipeline.train import train


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory, dataset: RecommendationDataset) -> tuple[Path, list[str]]:
    """A registry of two versions, the first of them promoted; to be copied by those who change it."""
    directory = tmp_path_factory.mktemp("registry")
    versions = [train(dataset, tiny_config(), directory, name="small world").version]
    time.sleep(1.1)  # versions are named by the second
    versions.append(train(dataset, tiny_config(training={"seed": 1}), directory, name="small world").version)
    promote(directory, versions[0])
    return directory, versions


@pytest.fixture
def registry(two_versions: tuple[Path, list[str]], tmp_path: Path) -> tuple[Path, list[str]]:
    shutil.copytree(two_versions[0], tmp_path / "models")
    return tmp_path / "models", two_versions[1]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def answered_by(client: TestClient) -> str:
    answer = client.post("/recommend", json={"user_id": "new", "num_recommendations": 3})
    assert answer.status_code == 200
    version: str = answer.json()["metadata"]["model_version"]
    return version


def test_a_promoted_version_takes_over_and_knows_what_happened_before(
    registry: tuple[Path, list[str]], tmp_path: Path
) -> None:
    directory, (first, second) = registry
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    with service(open_bundle(directory), store, model_dir=directory) as client:
        assert answered_by(client) == first
        client.post("/feedback", json={"user_id": "new", "item_id": 101, "action": "click"})
        client.post("/items", json={"items": [{"item_id": 900, "title": "Novel"}]})
        promote(directory, second)
        client.post("/feedback", json={"user_id": "new", "item_id": 103, "action": "click"})
        wait_until(lambda: answered_by(client) == second)
        profile = client.get("/user/new/profile").json()
        assert [entry["item_id"] for entry in profile["recent"]] == [103, 101]
        found = client.post("/recommend", json={"user_id": "new", "num_recommendations": 100}).json()
        ids = {item["item_id"] for item in found["recommendations"]}
        assert 900 in ids
        assert not ids & {101, 103}
        promote(directory, first)
        wait_until(lambda: answered_by(client) == first)


def test_a_damaged_version_is_not_served_and_the_reason_is_told(
    registry: tuple[Path, list[str]], tmp_path: Path
) -> None:
    directory, (first, second) = registry
    tower = directory / second / "user_tower.onnx"
    tower.write_bytes(tower.read_bytes()[:-1] + b"x")
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    with service(open_bundle(directory), store, model_dir=directory) as client:
        promote(directory, second)
        wait_until(lambda: client.get("/model/status").json()["failure"] is not None)
        assert "damaged" in client.get("/model/status").json()["failure"]
        assert answered_by(client) == first
        promote(directory, first)


@pytest.mark.parametrize("kind", ["a file is missing", "a file is no bundle's", "an error that nobody foresaw"])
def test_a_version_whose_files_were_on_their_way_is_served_once_they_are_there(
    registry: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("rec_engine.utils.background.FIRST_RETRY_SECONDS", 0.1)
    directory, (first, second) = registry
    items, aside = directory / second / "items.parquet", tmp_path / "aside"
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    with service(open_bundle(directory), store, model_dir=directory) as client:
        items.rename(aside)
        if kind == "a file is no bundle's":
            items.write_bytes(b"a part of it")
        elif "nobody foresaw" in kind:
            items.symlink_to(items)
        promote(directory, second)
        wait_until(lambda: client.get("/model/status").json()["failure"] is not None)
        assert answered_by(client) == first
        aside.replace(items)
        wait_until(lambda: answered_by(client) == second)
        assert client.get("/model/status").json()["failure"] is None


def test_a_current_that_is_no_text_is_waited_out(registry: tuple[Path, list[str]], tmp_path: Path) -> None:
    directory, (first, second) = registry
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    with service(open_bundle(directory), store, model_dir=directory) as client:
        (directory / "current").write_bytes(b"\xff\xfe")
        time.sleep(1.5)  # the watch has looked at it
        assert answered_by(client) == first
        promote(directory, second)
        wait_until(lambda: answered_by(client) == second)


def test_every_request_is_answered_through_two_hundred_promotions(
    registry: tuple[Path, list[str]], tmp_path: Path
) -> None:
    directory, versions = registry
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    seen = set()
    with service(open_bundle(directory), store, model_dir=directory) as client:
        for turn in range(200):
            promote(directory, versions[turn % 2])
            time.sleep(0.02)
            seen.add(answered_by(client))
        wait_until(lambda: answered_by(client) == find_bundle(directory).name)
    assert seen == set(versions)
