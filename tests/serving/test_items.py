"""Items come, change and go while the service runs, on every worker."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from conftest import N_ITEMS, service
from fastapi.testclient import TestClient

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.data.events import EventStore, ItemChange
from rec_engine.utils.config import ServingConfig

ROOM = 20


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let catalogues be full soon."""
    monkeypatch.setattr("rec_engine.serving.live.SPARE_ITEMS", ROOM)


@pytest.fixture
def workers(model_dir: Path, store_url: str) -> Iterator[list[TestClient]]:
    """Two server processes' worth of service, each with its own copy of the model."""
    with (
        service(open_bundle(model_dir), EventStore(store_url)) as first,
        service(open_bundle(model_dir), EventStore(store_url)) as second,
    ):
        yield [first, second]


def put(client: TestClient, *items: Mapping[str, object]) -> dict[str, int]:
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
    many: list[dict[str, object]] = [{"item_id": f"n{place}"} for place in range(ROOM)]
    assert put(workers[0], *many)["n_new"] == ROOM
    refused = workers[1].post("/items", json={"items": [NOVEL]})
    assert (refused.status_code, "no room" in refused.json()["detail"]) == (422, True)
    assert put(workers[1], {"item_id": 105, "hidden": True}) == {"n_new": 0, "n_changed": 1}
    assert 105 not in shown(workers[0], filter_categories=["Odd"])


def test_a_batch_beyond_the_room_is_refused_whole(workers: list[TestClient]) -> None:
    some: list[dict[str, object]] = [{"item_id": f"n{place}"} for place in range(ROOM - 5)]
    put(workers[0], *some)
    batch = [{"item_id": f"m{place}"} for place in range(6)]
    assert workers[0].post("/items", json={"items": batch}).status_code == 422
    assert workers[1].get("/similar-items/m0").status_code == 404


def test_a_batch_that_contradicts_itself_is_422_and_nothing_of_it_is_taken(workers: list[TestClient]) -> None:
    batch = [{"item_id": "x", "attributes": {"weight": "light"}}, {"item_id": "y", "attributes": {"weight": 3}}]
    for items in (batch, batch[::-1], [{"item_id": n, "attributes": {"size": n}} for n in (0.5, 2**53 + 1)]):
        answer = workers[0].post("/items", json={"items": [item | {"item_id": str(item["item_id"])} for item in items]})
        assert answer.status_code == 422
        assert "the attribute" in answer.json()["detail"]
    for worker in workers:
        assert len(shown(worker)) == N_ITEMS


def posted_at_once(workers: list[TestClient], *bodies: dict[str, object]) -> list[int]:
    """Return the statuses of batches of one item that workers are sent at the same moment."""
    together = threading.Barrier(len(bodies))

    def post(worker: TestClient, item: dict[str, object]) -> int:
        together.wait()
        status: int = worker.post("/items", json={"items": [item]}).status_code
        return status

    with ThreadPoolExecutor() as pool:
        return list(pool.map(post, workers, bodies))


def test_of_two_workers_that_contradict_each_other_one_is_refused(
    workers: list[TestClient], model_dir: Path, store_url: str
) -> None:
    kept = set()
    for turn in range(15):
        items: list[dict[str, object]] = [
            {"item_id": f"{turn}-text", "attributes": {f"about {turn}": "text"}},
            {"item_id": f"{turn}-number", "attributes": {f"about {turn}": 3}},
        ]
        statuses = posted_at_once(workers, *items)
        assert sorted(statuses) == [200, 422]
        kept.add(items[statuses.index(200)]["item_id"])
    with service(open_bundle(model_dir), EventStore(store_url)) as started_later:
        for worker in (*workers, started_later):
            assert set(shown(worker)) - set(range(100, 100 + N_ITEMS)) == kept
            for item in kept:
                about = {"attribute": f"about {str(item).split('-')[0]}", "is_null": False}
                assert set(shown(worker, filter=about)) == {item}


def test_two_workers_do_not_fill_the_last_place_twice(workers: list[TestClient]) -> None:
    put(workers[0], *({"item_id": f"n{place}"} for place in range(ROOM - 1)))
    assert sorted(posted_at_once(workers, {"item_id": "a"}, {"item_id": "b"})) == [200, 422]


def test_room_and_types_do_not_depend_on_when_a_worker_was_started(
    workers: list[TestClient], model_dir: Path, store_url: str
) -> None:
    put(workers[0], *({"item_id": f"n{place}", "attributes": {"weight": "light"}} for place in range(ROOM)))
    shown(workers[1])
    for place in range(ROOM - 1):
        workers[0].delete(f"/items/n{place}")
    with service(open_bundle(model_dir), EventStore(store_url)) as started_later:
        everybody = (*workers, started_later)
        for worker in everybody:
            assert worker.post("/items", json={"items": [NOVEL]}).status_code == 422
        heavy = {"item_id": "n0", "attributes": {"weight": 3}}
        for worker in everybody:
            assert worker.post("/items", json={"items": [heavy]}).status_code == 422
        put(started_later, {"item_id": f"n{ROOM - 1}"})
        put(started_later, heavy)
        for worker in everybody:
            assert set(shown(worker, filter={"attribute": "weight", "above": 2})) == {"n0"}


def test_items_fit_together_in_whatever_order_a_worker_hears_of_them(workers: list[TestClient]) -> None:
    first, second = workers
    put(first, {"item_id": "x", "attributes": {"colour": "red"}})
    assert "x" in shown(second)
    put(first, {"item_id": "x"})
    put(first, {"item_id": "y", "attributes": {"colour": 3}})
    put(first, {"item_id": "x", "title": "once more"})
    for worker in workers:
        assert set(shown(worker, filter={"attribute": "colour", "equals": 3})) == {"y"}
        assert shown(worker)["x"]["title"] == "once more"


def test_what_another_model_accepted_is_kept_as_far_as_it_fits(model_dir: Path, store: EventStore) -> None:
    store.write([ItemChange(f"n{place}", "visible", "{}") for place in range(ROOM + 5)])
    store.write([ItemChange("odd", "visible", '{"price": "cheap", "brand": "acme", "categories": ["Rare"]}')])
    with service(open_bundle(model_dir), EventStore(store.url)) as client:
        assert set(shown(client, filter={"attribute": "brand", "equals": "acme"})) == {"odd"}
        assert set(shown(client, filter_categories=["Rare"])) == {105, 106, 107, "odd"}
        assert client.get("/model/status").json()["n_items"] == N_ITEMS + ROOM + 6


def test_caps_count_items_that_came_or_changed_since(bundle: ModelBundle, store: EventStore) -> None:
    config = ServingConfig.model_validate({"recommendations": {"caps": {"brand": 1, "price": 1}}})
    with service(bundle, store, config=config) as client:
        before = list(shown(client, num_recommendations=5))
        put(client, *({"item_id": item, "attributes": {"brand": "acme", "price": item}} for item in before))
        put(client, {"item_id": 900, "categories": ["Even"], "attributes": {"price": before[0]}})
        for limit in (3, 5):
            answer = list(shown(client, num_recommendations=limit, exclude_items=[900]))
            assert len(set(answer) & set(before)) == 1
        found = list(shown(client, num_recommendations=10))
        assert len({900, before[0]} & set(found)) <= 1


def test_an_item_brings_a_date_where_the_model_knows_dates(bundle: ModelBundle, store: EventStore) -> None:
    released = pl.Series("released", [date(2024, 5, 1)] * N_ITEMS)
    with service(replace(bundle, items=bundle.items.with_columns(released)), store) as client:
        put(client, NOVEL | {"attributes": {"released": "2026-05-01T12:00:00Z"}})
        assert set(shown(client, filter={"attribute": "released", "above": "2026-01-01"})) == {900}
        assert client.post("/items", json={"items": [{"item_id": 1, "attributes": {"released": "soon"}}]}).is_error


def test_an_item_is_taken_whatever_the_towers_make_of_its_numbers(workers: list[TestClient]) -> None:
    put(workers[0], NOVEL | {"attributes": {"price": 1e300}})
    for worker in workers:
        assert set(shown(worker, filter={"attribute": "price", "above": 1e299})) == {900}
        assert len(worker.get("/similar-items/900?num_items=5").json()["similar_items"]) == 5


def test_deleting_what_is_not_there_is_404(workers: list[TestClient]) -> None:
    assert workers[0].delete("/items/nothing").status_code == 404
