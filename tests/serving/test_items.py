"""Items come, change and go while the service runs, on every worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import N_ITEMS, service
from fastapi.testclient import TestClient

from rec_engine.bundle import open_bundle
from rec_engine.data.events import EventStore


@pytest.fixture
def workers(model_dir: Path, store_url: str) -> Iterator[list[TestClient]]:
    """Two server processes' worth of service, each with its own copy of the model."""
    with (
        service(open_bundle(model_dir), EventStore(store_url)) as first,
        service(open_bundle(model_dir), EventStore(store_url)) as second,
    ):
        yield [first, second]


def put(client: TestClient, *items: dict[str, object]) -> dict[str, int]:
    answer = client.post("/items", json={"items": items})
    assert answer.status_code == 200, answer.text
    found: dict[str, int] = answer.json()
    return found


def shown(client: TestClient, **body: object) -> dict[object, dict[str, object]]:
    answer = client.post("/recommend", json={"user_id": "new", "num_recommendations": 100} | body)
    assert answer.status_code == 200, answer.text
    return {item["item_id"]: item for item in answer.json()["recommendations"]}


NOVEL: dict[str, object] = {"item_id": 900, "title": "Novel", "categories": ["Rare"], "attributes": {"price": 3.5}}


def test_a_new_item_can_be_shown_at_once_by_every_worker(workers: list[TestClient]) -> None:
    before = shown(workers[1])
    assert put(workers[0], NOVEL) == {"n_new": 1, "n_changed": 0}
    for worker in workers:
        found = shown(worker)
        assert set(found) - set(before) == {900}
        assert (found[900]["title"], found[900]["categories"]) == ("Novel", ["Rare"])
        assert set(shown(worker, filter_categories=["Rare"])) == {105, 106, 107, 900}
        assert set(shown(worker, filter={"attribute": "price", "below": 4})) == {100, 101, 102, 900}


def test_an_item_with_a_new_category_and_a_new_attribute_is_found_by_both(workers: list[TestClient]) -> None:
    put(workers[0], {"item_id": "x-1", "categories": ["Brand new"], "attributes": {"colour": "red"}})
    for worker in workers:
        assert list(shown(worker, filter_categories=["brand new"])) == ["x-1"]
        assert list(shown(worker, filter={"attribute": "colour", "equals": "red"})) == ["x-1"]


def test_a_changed_item_is_as_it_is_now(workers: list[TestClient]) -> None:
    changed = {"item_id": 105, "title": "Renamed", "categories": ["Even"], "attributes": {"price": 99}}
    assert put(workers[1], changed) == {"n_new": 0, "n_changed": 1}
    for worker in workers:
        assert set(shown(worker, filter_categories=["Rare"])) == {106, 107}
        assert shown(worker, filter={"attribute": "price", "at_least": 99})[105]["title"] == "Renamed"


def test_hidden_and_deleted_items_are_shown_to_nobody_until_they_come_back(workers: list[TestClient]) -> None:
    put(workers[0], NOVEL)
    put(workers[0], NOVEL | {"hidden": True}, {"item_id": 105, "categories": ["Rare"], "hidden": True})
    assert workers[1].delete("/items/106").status_code == 204
    for worker in workers:
        assert set(shown(worker, filter_categories=["Rare"])) == {107}
        assert len(shown(worker)) == N_ITEMS - 2
    put(workers[1], NOVEL, {"item_id": 106, "categories": ["Rare"]})
    for worker in workers:
        assert set(shown(worker, filter_categories=["Rare"])) == {106, 107, 900}


def test_clicks_on_an_item_before_it_is_known_count_once_it_is(workers: list[TestClient]) -> None:
    first, second = workers
    first.post("/feedback", json={"user_id": "new", "item_id": 900, "action": "click"})
    assert second.get("/user/new/profile").json()["n_interactions"] == 0
    put(second, NOVEL)
    for worker in workers:
        assert worker.get("/user/new/profile").json()["recent"][0]["title"] == "Novel"
        assert 900 not in shown(worker)


def test_items_survive_a_restart(model_dir: Path, store: EventStore) -> None:
    other = EventStore(store.url)
    with service(open_bundle(model_dir), store) as before:
        put(before, NOVEL)
        before.delete("/items/105")
    with service(open_bundle(model_dir), other) as after:
        assert set(shown(after, filter_categories=["Rare"])) == {106, 107, 900}


def test_similar_items_know_the_new_one(workers: list[TestClient]) -> None:
    put(workers[0], NOVEL)
    answer = workers[1].get("/similar-items/900?num_items=5").json()
    assert len(answer["similar_items"]) == 5
    assert workers[1].get("/similar-items/104?num_items=100").json()["similar_items"][-1]["item_id"]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({}, "items.0.item_id"),
        ({"item_id": 1, "attributes": {"price": "cheap"}}, "price"),
        ({"item_id": 1, "attributes": {"title": "x"}}, "title"),
        ({"item_id": 1, "categories": [""]}, "items.0.categories.0"),
        ({"item_id": 1, "colour": "red"}, "items.0.colour"),
        ({"item_id": 1, "attributes": {"a": {"b": 1}}}, "items.0.attributes.a"),
    ],
)
def test_an_item_that_cannot_be_taken_is_422_and_changes_nothing(
    workers: list[TestClient], item: dict[str, object], reason: str
) -> None:
    answer = workers[0].post("/items", json={"items": [item, NOVEL]})
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    assert 900 not in shown(workers[0])


def test_a_full_catalogue_takes_changes_and_nothing_new(workers: list[TestClient]) -> None:
    many: list[dict[str, object]] = [{"item_id": f"n{place}"} for place in range(1_000)]
    assert put(workers[0], *many)["n_new"] == 1_000
    refused = workers[1].post("/items", json={"items": [NOVEL]})
    assert (refused.status_code, "no room" in refused.json()["detail"]) == (422, True)
    assert put(workers[1], {"item_id": 105, "hidden": True}) == {"n_new": 0, "n_changed": 1}
    assert 105 not in shown(workers[0], filter_categories=["Odd"])


def test_a_batch_beyond_the_room_is_refused_whole(workers: list[TestClient]) -> None:
    some: list[dict[str, object]] = [{"item_id": f"n{place}"} for place in range(900)]
    put(workers[0], *some)
    batch = [{"item_id": f"m{place}"} for place in range(150)]
    assert workers[0].post("/items", json={"items": batch}).status_code == 422
    assert workers[1].get("/similar-items/m0").status_code == 404


def test_deleting_what_is_not_there_is_404(workers: list[TestClient]) -> None:
    assert workers[0].delete("/items/nothing").status_code == 404
