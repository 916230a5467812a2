"""What people ask of the service: previews that nothing remembers, the catalogue, users, the end of the log."""

import asyncio
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import N_ITEMS, N_USERS, service
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.log_tail import Tail, latest_answers, latest_events
from rec_engine.retrieval.candidates import top_of
from rec_engine.retrieval.text_search import MAX_WORDS, begins_a_word, begins_with
from rec_engine.serving import explore
from rec_engine.serving.cache import InMemoryCache

ODD_IDS = ["a/b", "a/b/", "what?", "--5", "a b", "profile", "é", "100%"]


def asked(client: TestClient, path: str, **query: object) -> dict[str, object]:
    answer = client.get(path, params={name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def previewed(client: TestClient, **body: object) -> dict[str, object]:
    answer = client.post("/recommend/preview", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def shown(answer: dict[str, object]) -> list[object]:
    items = answer["recommendations"]
    assert isinstance(items, list)
    return [item["item_id"] for item in items]


def test_a_preview_is_the_answer_itself(client: TestClient) -> None:
    body = {"user_id": 4, "num_recommendations": 8, "explain": True}
    preview, answer = previewed(client, **body), client.post("/recommend", json=body).json()
    assert preview["recommendations"] == answer["recommendations"]


def test_nothing_remembers_a_preview(bundle: ModelBundle, tmp_path: Path) -> None:
    store, cache = EventStore(f"sqlite:///{tmp_path / 'events.db'}"), InMemoryCache()
    with service(bundle, store, cache) as client:
        position = store.position()
        for _ in range(3):
            answer = previewed(client, user_id=4, context={"recent_items": [100, 102]})
            assert answer["metadata"]["cached"] is False  # type: ignore[index]
        assert cache.stats().entries == 0
        assert store.position() == position
        counted = asked(client, "/stats")
        assert counted["rec_engine_answers_total"] == [{"value": 0.0}]
        assert client.get("/user/4/profile").json()["version"] == 0
    again = EventStore(f"sqlite:///{tmp_path / 'events.db'}")  # what was waiting is written by now
    assert (again.count(Impression), again.count(Event)) == (0, 0)
    again.close()


def test_a_preview_does_not_read_the_cache_either(client: TestClient) -> None:
    for _ in range(2):
        assert client.post("/recommend", json={"user_id": 4}).status_code == 200
    assert client.post("/recommend", json={"user_id": 4}).json()["metadata"]["cached"] is True
    assert previewed(client, user_id=4)["metadata"]["cached"] is False  # type: ignore[index]


def test_nobody_meets_an_experiment_by_a_preview(client: TestClient) -> None:
    plan = {"experiment_id": "bold", "name": "bold", "treatment": {"diversity": 0.9}, "forced": {"4": "treatment"}}
    assert client.post("/experiments", json=plan).status_code == 200
    assert client.post("/experiments/bold/start", json={}).status_code == 200
    assert previewed(client, user_id=4)["metadata"]["experiment"] == "bold/treatment"  # type: ignore[index]
    assert client.get("/stats").json()["rec_engine_experiment_exposures_total"] == []


def test_what_if_items_change_the_list_and_are_not_in_it(client: TestClient) -> None:
    before = shown(previewed(client, user_id="nobody", num_recommendations=10))
    after = shown(previewed(client, user_id="nobody", num_recommendations=10, context={"recent_items": before[:1]}))
    assert before[0] not in after
    assert after != before[1:]


def test_items_are_found_by_how_their_words_begin_the_most_met_first(client: TestClient) -> None:
    found = asked(client, "/items", query="ITEM 1", num_items=100)
    items = found["items"]
    assert isinstance(items, list)
    assert {item["title"] for item in items} == {"Item 1", *(f"Item {n}" for n in range(10, 20))}
    counts = [item["n_users"] for item in items]
    assert counts == sorted(counts, reverse=True)
    assert found["n_found"] == 11
    assert asked(client, "/items", query="tem")["n_found"] == 0


def test_pages_of_a_search_are_parts_of_one_list(client: TestClient) -> None:
    whole = asked(client, "/items", num_items=40)["items"]
    assert isinstance(whole, list)
    pages = [asked(client, "/items", num_items=15, first=first)["items"] for first in (0, 15, 30, 45)]
    assert [item for page in pages if isinstance(page, list) for item in page] == whole


def test_an_id_finds_its_item_before_all_others(client: TestClient) -> None:
    items = asked(client, "/items", query="117")["items"]
    assert isinstance(items, list)
    assert [item["item_id"] for item in items] == [117]


def test_items_that_come_change_and_go_are_searched_as_they_are_now(client: TestClient) -> None:
    for title in ("Oolong", "Sencha"):
        client.post("/items", json={"items": [{"item_id": "tea", "title": title}]})
    client.post("/items", json={"items": [{"item_id": 101, "title": "Renamed", "hidden": True}]})
    counts = [asked(client, "/items", query=query)["n_found"] for query in ("oolong", "sencha", "renamed")]
    assert counts == [0, 1, 0]
    client.delete("/items/tea")
    assert asked(client, "/items", query="sencha")["n_found"] == 0


def test_a_category_that_there_is_not_is_told(client: TestClient) -> None:
    assert client.get("/items", params={"category": "Nothing"}).status_code == 404
    assert asked(client, "/items", category="rare")["n_found"] == 3
    assert asked(client, "/categories")["categories"] == ["Even", "Odd", "Rare"]


def test_an_item_is_described_with_its_attributes(client: TestClient) -> None:
    about = asked(client, "/items/105")
    assert about["title"] == "Item 5"
    assert about["attributes"] == {"price": 6.0}
    assert about["is_visible"] is True
    changed = {"item_id": 105, "title": "Five", "description": "New", "attributes": {"price": 2.5}, "hidden": True}
    client.post("/items", json={"items": [changed]})
    about = asked(client, "/items/105")
    assert (about["title"], about["description"], about["is_visible"]) == ("Five", "New", False)
    assert about["attributes"] == {"price": 2.5}
    client.delete("/items/105")
    assert client.get("/items/105").status_code == 404
    assert client.get("/items/nothing").status_code == 404


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_any_id_can_stand_in_a_path(client: TestClient, item_id: str) -> None:
    quoted = "".join(f"%{byte:02X}" for byte in item_id.encode())
    client.post("/items", json={"items": [{"item_id": item_id, "title": "Odd"}]})
    client.post("/feedback", json={"user_id": item_id, "item_id": item_id, "action": "like"})
    assert asked(client, f"/items/{quoted}")["item_id"] == item_id
    assert client.get(f"/similar-items/{quoted}").status_code == 200
    assert client.get(f"/user/{quoted}/profile").json()["n_interactions"] == 1
    assert client.post(f"/user/{quoted}/invalidate-cache").status_code == 204
    assert client.delete(f"/user/{quoted}").json()["user_id"] == item_id
    assert client.get(f"/user/{quoted}/profile").json()["n_interactions"] == 0
    assert client.delete(f"/items/{quoted}").status_code == 204
    assert client.get(f"/items/{quoted}").status_code == 404


def test_a_path_with_an_id_is_counted_by_its_template(client: TestClient) -> None:
    client.get("/user/a%2Fb/profile")
    routes = {row["route"] for row in client.get("/stats").json()["rec_engine_request_duration_seconds"]}
    assert "/user/{user_id}/profile" in routes


def test_users_are_found_by_how_their_ids_begin(client: TestClient) -> None:
    assert asked(client, "/users", prefix="5", num_users=100)["users"] == [5, *range(50, N_USERS)]
    assert asked(client, "/users", num_users=3)["users"] == [0, 1, 2]
    assert asked(client, "/users", prefix="nobody")["users"] == []


def test_the_tail_begins_where_the_last_one_ended(client: TestClient) -> None:
    for item in (104, 105):
        client.post("/feedback", json={"user_id": "ann", "item_id": item, "action": "click"})
    first = asked(client, "/events")
    events = first["events"]
    assert isinstance(events, list)
    assert [(each["item_id"], each["title"]) for each in events] == [("105", "Item 5"), ("104", "Item 4")]
    assert asked(client, "/events", after=first["position"])["events"] == []
    client.post("/feedback", json={"user_id": "bob", "item_id": "nothing", "action": "view"})
    later = asked(client, "/events", after=first["position"])["events"]
    assert isinstance(later, list)
    assert [(each["user_id"], each["title"]) for each in later] == [("bob", None)]


def test_the_tail_shows_what_a_later_release_has_written(bundle: ModelBundle, tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    store.write([Event("e-1", "ann", "104", "wish", 1)])
    with service(bundle, store) as client:
        assert [each["action"] for each in asked(client, "/events")["events"]] == ["wish"]  # type: ignore[attr-defined]


def test_a_search_keeps_nobody_else_waiting(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long for a million items is not done where requests are answered."""
    has_loop = []

    def watched(items: IntArray, scores: FloatArray, k: int) -> IntArray:
        has_loop.append(asyncio._get_running_loop() is not None)
        return top_of(items, scores, k)

    monkeypatch.setattr(explore, "top_of", watched)
    assert asked(client, "/items")["n_found"] == N_ITEMS
    assert has_loop == [False]


def test_the_tail_is_of_one_item_or_user_where_it_is_asked_for(store: EventStore) -> None:
    store.write([Event(f"{user}-{item}", user, item, "click", 1) for user in ("ann", "bob") for item in ("tea", "cup")])
    position, events = latest_events(store, Tail(10, item_id="tea"))
    assert [event.user_id for event in events] == ["bob", "ann"]
    assert position == store.position()
    assert [event.item_id for event in latest_events(store, Tail(1, user_id="ann"))[1]] == ["cup"]
    assert len(latest_events(store, Tail(10, item_id="cup", user_id="bob"))[1]) == 1
    assert latest_events(store, Tail(10, after=position))[1] == []


def test_answers_are_found_by_what_they_showed(store: EventStore) -> None:
    def showed(request_id: str, user: str, *items: object) -> Impression:
        rows = [[item, 0.5, 1.0, place] for place, item in enumerate(items, start=1)]
        return Impression(request_id, user, 7, "v", json.dumps(rows), known=0)

    store.write([showed("one", "ann", 1, "tea"), showed("two", "bob", "tea"), showed("three", "ann", "cup")])
    found = latest_answers(store, Tail(10, item_id="tea"))
    assert [(each.request_id, place) for each, place in found] == [("two", 1), ("one", 2)]
    assert [each.request_id for each, _ in latest_answers(store, Tail(1))] == ["three"]
    assert [each.request_id for each, _ in latest_answers(store, Tail(5, user_id="ann"))] == ["three", "one"]


@given(titles=st.lists(st.none() | st.text(max_size=12), min_size=1, max_size=6), query=st.text(max_size=6))
def test_a_search_takes_any_text_and_finds_what_begins_so(titles: list[str | None], query: str) -> None:
    found = begins_a_word(pl.Series(titles, dtype=pl.String), query)
    assert found.dtype == np.bool_
    for title, is_found in zip(titles, found.tolist(), strict=True):
        if query.split() and title is None:
            assert not is_found
        if title is not None and query.split() and all(f" {title}".find(f" {word}") >= 0 for word in query.split()):
            assert is_found


@given(titles=st.lists(st.text("ab ", max_size=8), min_size=1, max_size=6), words=st.lists(st.text("ab", min_size=1)))
def test_an_item_is_found_by_several_words_where_each_finds_it(titles: list[str], words: list[str]) -> None:
    found = begins_a_word(titles, " ".join(words))
    each = [begins_a_word(titles, word) for word in words[:MAX_WORDS]]
    assert found.tolist() == np.logical_and.reduce([np.ones(len(titles), dtype=np.bool_), *each]).tolist()


def test_the_letters_of_a_search_are_letters() -> None:
    titles = pl.Series(["a.b tea", "axb", "[x", "tea-time", None])
    assert begins_a_word(titles, "a.b").tolist() == [True, False, False, False, False]
    assert begins_a_word(titles, "[").tolist() == [False, False, True, False, False]
    assert begins_a_word(titles, "TIME tea").tolist() == [False, False, False, True, False]
    assert begins_with(pl.Series([1, 12, 21]), "1", 10).tolist() == [0, 1]


def test_what_a_key_opens_is_said_without_one(client: TestClient) -> None:
    assert client.get("/access").json() == {"needs_key": False, "scopes": ["serve", "ingest", "admin"]}


def test_an_answer_that_is_damaged_in_the_log_is_listed_all_the_same(bundle: ModelBundle, tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    store.write([Impression("r1", "ann", 1_700_000_000, "v", "[[1, 0.5", 0)])
    with service(bundle, store) as client:
        (answer,) = client.get("/impressions", params={"user_id": "ann"}).json()["answers"]
        assert client.get("/impressions", params={"item_id": "1"}).json()["answers"] == []
    assert (answer["request_id"], answer["n_items"]) == ("r1", 0)
