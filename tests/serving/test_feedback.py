"""What users do changes the next answer: on every worker, whatever the order, and as long as it is not erased."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy
from conftest import N_ITEMS, service
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.utils.config import ServingConfig

NOW = 1_700_000_000


@pytest.fixture
def two_workers(bundle: ModelBundle, store_url: str) -> Iterator[list[TestClient]]:
    """Two server processes' worth of service over one log and one cache."""
    cache = InMemoryCache()
    with (
        service(bundle, EventStore(store_url), cache) as first,
        service(bundle, EventStore(store_url), cache) as second,
    ):
        yield [first, second]


def recommended(client: TestClient, user: int | str, **body: object) -> list[int]:
    answer = client.post("/recommend", json={"user_id": user, "num_recommendations": 100} | body)
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["recommendations"]]


def click(client: TestClient, user: int | str, item: int, **more: object) -> dict[str, object]:
    answer = client.post("/feedback", json={"user_id": user, "item_id": item, "action": "click"} | more)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_a_click_changes_the_next_answer_on_every_worker(two_workers: list[TestClient]) -> None:
    for turn in range(6):
        before = recommended(two_workers[1], "new")
        click(two_workers[turn % 2], "new", before[0])
        for worker in two_workers:
            assert before[0] not in recommended(worker, "new")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["ann", "bob"]), st.integers(0, N_ITEMS - 1), st.integers(0, 2)),
        max_size=12,
    )
)
def test_any_interleaving_of_feedback_and_questions_is_answered_up_to_date(
    bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int, int]]
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('log') / 'events.db'}"
    cache, seen = InMemoryCache(), {"ann": set[int](), "bob": set[int]()}
    with (
        service(bundle, EventStore(url), cache) as first,
        service(bundle, EventStore(url), cache) as second,
    ):
        for worker, user, item, kind in steps:
            client = (first, second)[worker]
            if kind:
                click(client, user, 100 + item, timestamp=NOW + item)
                seen[user].add(100 + item)
            else:
                found = recommended(client, user)
                assert set(found) == {100 + code for code in range(N_ITEMS)} - seen[user]
        for client in (first, second):
            for user in seen:
                assert not seen[user] & set(recommended(client, user))
                assert client.get(f"/user/{user}/profile").json()["n_interactions"] == sum(
                    kind > 0 and who == user for _, who, _, kind in steps
                )


def test_clicks_give_a_new_user_a_taste(client: TestClient) -> None:
    for item in (100, 102, 104, 106, 108):
        click(client, "new", item)
    found = recommended(client, "new", num_recommendations=8, use_reranking=False)
    assert sum(item % 2 == 0 for item in found) >= 6
    assert client.post("/recommend", json={"user_id": "new"}).json()["metadata"]["user_known"] is True


def test_the_same_event_sent_twice_counts_once(client: TestClient) -> None:
    for _ in range(3):
        click(client, "new", 101, event_id="e-1")
    assert client.get("/user/new/profile").json()["n_interactions"] == 1


def test_an_event_of_an_unknown_type_changes_no_answer(two_workers: list[TestClient], store_url: str) -> None:
    click(two_workers[0], "ann", 103)
    before = recommended(two_workers[0], "ann")
    with closing(EventStore(store_url)) as newer:
        newer.write([Event("n", "ann", str(before[0]), "long_look", NOW)])
    for worker in two_workers:
        assert recommended(worker, "ann") == before
        assert worker.get("/user/ann/profile").json()["n_interactions"] == 1
        events = worker.get("/events", params={"user_id": "ann"}).json()["events"]
        assert [event["action"] for event in events] == ["long_look", "click"]


def test_late_events_find_their_place(client: TestClient) -> None:
    for item, at in ((101, NOW), (103, NOW - 500), (105, "2023-11-14T22:13:19Z"), (107, (NOW - 300) * 1000)):
        click(client, "new", item, timestamp=at)
    assert [entry["item_id"] for entry in client.get("/user/new/profile").json()["recent"]] == [101, 105, 107, 103]


def test_a_disliked_item_is_not_shown_and_no_target(client: TestClient) -> None:
    client.post("/feedback", json={"user_id": "new", "item_id": 101, "action": "dislike"})
    answer = client.post("/recommend", json={"user_id": "new", "num_recommendations": 100}).json()
    assert 101 not in [item["item_id"] for item in answer["recommendations"]]
    assert answer["metadata"]["user_known"] is False


def test_a_batch_is_written_whole_or_not_at_all(client: TestClient) -> None:
    good = {"user_id": "new", "item_id": 101, "action": "click"}
    answer = client.post("/feedback/batch", json={"events": [good, good | {"action": "stare"}]})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("events.1.action")
    assert client.get("/user/new/profile").json()["n_interactions"] == 0
    answer = client.post("/feedback/batch", json={"events": [good, good | {"item_id": "nobody knows it"}]})
    assert (len(answer.json()["event_ids"]), answer.json()["n_unknown_items"]) == (2, 1)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user_id"),
        ({"action": "stare"}, "action"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 1e300}, "timestamp"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "a\0b"}, "event_id"),
        ({"user_id": "a\0b"}, "user_id"),
        ({"value": "much"}, "value"),
        ({"value": 1e300}, "value"),
        ({"context": []}, "context"),
        ({"colour": 1}, "colour"),
    ],
)
def test_feedback_that_cannot_be_used_is_422_and_names_the_field(
    client: TestClient, body: dict[str, object], field: str
) -> None:
    whole = ({"user_id": 1, "item_id": 101, "action": "click"} | body) if body else {}
    answer = client.post("/feedback", json=whole)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(field)


def test_a_known_user_is_forgotten_altogether(two_workers: list[TestClient], store_url: str) -> None:
    first, second = two_workers
    click(first, 4, 101)
    assert second.get("/user/4/profile").json()["is_known"] is True
    recommended(second, 4)
    assert first.delete("/user/4").status_code == 200
    for worker in two_workers:
        profile = worker.get("/user/4/profile").json()
        assert (profile["is_known"], profile["n_interactions"], profile["attributes"]) == (False, 0, {})
        assert len(recommended(worker, 4)) == N_ITEMS
    log = EventStore(store_url)
    assert log.events_of("4") == []
    log.close()
    click(first, 4, 103)
    assert second.get("/user/4/profile").json()["n_interactions"] == 1


def test_invalidating_a_user_makes_only_his_answers_anew(two_workers: list[TestClient]) -> None:
    first, second = two_workers
    for user in (4, 5):
        recommended(first, user)
    assert first.post("/user/4/invalidate-cache").status_code == 204
    cached = {
        user: second.post("/recommend", json={"user_id": user, "num_recommendations": 100}).json()["metadata"]["cached"]
        for user in (4, 5)
    }
    assert cached == {4: False, 5: True}


def test_what_was_shown_is_in_the_log(bundle: ModelBundle, store: EventStore) -> None:
    reader = EventStore(store.url)
    with service(bundle, store) as client:
        shown = [recommended(client, 4, num_recommendations=3) for _ in range(2)]
    assert shown[0] == shown[1]
    assert reader.count(Impression) == 2
    reader.close()


def test_answers_go_on_without_the_log_and_say_so(bundle: ModelBundle, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    with service(bundle, EventStore(url)) as client:
        click(client, 4, 101)
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE events RENAME TO gone")
            connection.exec_driver_sql("UPDATE log_position SET value = value + 1")
        answer = client.post("/recommend", json={"user_id": 4})
        assert (answer.status_code, answer.json()["metadata"]["degraded"]) == (200, ["events"])
        refused = client.post("/feedback", json={"user_id": 4, "item_id": 103, "action": "click"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO events")
        engine.dispose()
        answer = client.post("/recommend", json={"user_id": 4, "num_recommendations": 100}).json()
        assert answer["metadata"]["degraded"] == []
        assert 101 not in [item["item_id"] for item in answer["recommendations"]]


def test_an_answer_that_was_late_says_what_it_lacks_and_is_not_kept(bundle: ModelBundle, tmp_path: Path) -> None:
    config = ServingConfig.model_validate({"api": {"deadline_ms": 1}})
    asked = {"user_id": 4, "num_recommendations": 10}
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}"), config=config) as client:
        for _ in range(20):  # a machine that is faster than that has nothing to leave out
            metadata = client.post("/recommend", json=asked | {"explain": True}).json()["metadata"]
            assert metadata["reranked"] is ("ranker" not in metadata["degraded"])
            assert not (metadata["cached"] and metadata["degraded"])


def test_what_is_left_of_an_erased_user_is_told(bundle: ModelBundle, tmp_path: Path) -> None:
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}")) as client:
        click(client, 4, 101)
        with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM events").fetchall()
            assert "write-ahead log" in client.delete("/user/4").json()["remains"]
        click(client, 5, 101)
        assert "write-ahead log" not in client.delete("/user/5").json()["remains"]


def test_a_log_that_was_removed_takes_no_event_and_answers_say_so(bundle: ModelBundle, tmp_path: Path) -> None:
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}")) as client:
        click(client, 4, 101)
        (tmp_path / "events.db").unlink()
        refused = client.post("/feedback", json={"user_id": 4, "item_id": 103, "action": "click"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "was removed or replaced" in refused.json()["detail"]
        answer = client.post("/recommend", json={"user_id": 4})
        assert (answer.status_code, answer.json()["metadata"]["degraded"]) == (200, ["events"])


def test_trending_counts_what_was_met_within_the_window(client: TestClient) -> None:
    answer = client.get("/trending?num_items=5&time_window=9999d&category=even").json()
    found = [(item["item_id"], item["score"]) for item in answer["items"]]
    assert len(found) == 5
    assert all(item % 2 == 0 for item, _ in found)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert client.get("/trending?time_window=yesterday").status_code == 422
    assert client.get("/trending?category=nothing").status_code == 404


def test_events_of_the_log_are_those_that_were_sent(bundle: ModelBundle, store: EventStore) -> None:
    reader = EventStore(store.url)
    with service(bundle, store) as client:
        click(client, "new", 101, timestamp=NOW, event_id="e", request_id="r", context={"device": "tv"}, value=2)
    (found,) = reader.events_of("new")
    reader.close()
    assert found == Event("e", "new", "101", "click", NOW, 2.0, "r", '{"device": "tv"}', found.position)


def test_what_is_still_to_be_written_is_written_before_anything_else_ends(
    bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    reader, close, counted = EventStore(url), LiveStatistics.close, list[int]()

    def closing(statistics: LiveStatistics) -> None:
        counted.append(reader.count(Impression))
        close(statistics)

    monkeypatch.setattr(LiveStatistics, "close", closing)
    with service(bundle, EventStore(url)) as client:
        client.post("/recommend", json={"user_id": 4})
    assert counted == [1]
    reader.close()
