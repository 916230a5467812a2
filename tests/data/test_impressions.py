"""What was shown is joined with what came of it, as a plain loop over the log would do it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import service

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import EVENTS
from rec_engine.data.events import Erasure, Event, EventStore, Impression, user_hash
from rec_engine.data.impressions import Impressions, load_impressions
from rec_engine.errors import ConfigError, DataError
from rec_engine.utils.config import DataSettings

NOW = 1_700_000_000
WINDOW = 600


def answer(name: str, items: list[int | str], at: int = NOW, user: str = "ann") -> Impression:
    shown = [[item, -0.5 * place, 1 / (place + 1)] for place, item in enumerate(items)]
    return Impression(name, user, at, "v1", json.dumps(shown), 0)


def event(name: str, request: str | None, item: str, at: int = NOW, kind: str = "click") -> Event:
    return Event(name, "ann", item, kind, at, request_id=request)


def clicked(found: Impressions) -> list[tuple[str, str]]:
    rows = zip(found.request_codes.tolist(), found.item_ids, found.clicked.tolist(), strict=True)
    return [(found.request_ids[request], item) for request, item, is_clicked in rows if is_clicked]


def test_every_shown_item_is_a_row_with_its_position_and_propensity(store: EventStore) -> None:
    store.write([answer("r1", [7, "007", 'a"b']), answer("r2", [], at=NOW + 5), answer("r3", [7], NOW + 9, "bob")])
    found = load_impressions(store.url)
    assert found.request_ids.to_list() == ["r1", "r2", "r3"]
    assert found.user_ids.to_list() == ["ann", "ann", "bob"]
    assert found.model_versions.to_list() == ["v1", "v1", "v1"]
    assert found.timestamps.tolist() == [NOW, NOW + 5, NOW + 9]
    assert found.n_requests == 3
    assert found.request_codes.tolist() == [0, 0, 0, 2]
    assert found.item_ids.to_list() == ["7", "007", 'a"b', "7"]
    assert found.positions.tolist() == [1, 2, 3, 1]
    assert found.scores.tolist() == [0, -0.5, -1, 0]
    assert np.allclose(found.propensities, [1, 1 / 2, 1 / 3, 1])
    assert [array.dtype for array in (found.positions, found.scores, found.propensities, found.clicked)] == [
        np.int32, np.float32, np.float32, np.bool_,
    ]  # fmt: skip
    assert len(found) == 4
    assert not found.clicked.any()


def test_an_event_of_an_unknown_type_is_no_click(store: EventStore) -> None:
    store.write([answer("r1", [7, 8]), event("e1", "r1", "7", kind="long_look"), event("e2", "r1", "8")])
    assert clicked(load_impressions(store.url)) == [("r1", "8")]


def test_an_event_counts_for_the_answer_that_it_names_and_the_item_that_was_shown(store: EventStore) -> None:
    store.write([answer("r1", [7, 8]), answer("r2", [7, 8]), answer("r3", ["x"])])
    store.write(
        [
            event("e1", "r2", "8"),
            event("e2", "r2", "8", NOW + 1, "purchase"),  # the same item again is one row all the same
            event("e3", "r1", "9"),  # was not shown
            event("e4", "nobody's", "7"),
            event("e5", None, "7"),
            event("e6", "r1", "7", kind="dislike"),
            event("e7", "r3", "x", NOW - 50),  # a clock that is late
        ]
    )
    assert clicked(load_impressions(store.url)) == [("r2", "8"), ("r3", "x")]


def test_events_count_within_the_window_and_by_the_weights_of_the_settings(store: EventStore) -> None:
    store.write([answer("r", [1, 2, 3, 4])])
    store.write([event("e1", "r", "1", NOW + WINDOW), event("e2", "r", "2", NOW + WINDOW + 1)])
    store.write([Event(f"s{item}", "ann", item, "rating", NOW, stars, "r") for item, stars in (("3", 2.0), ("4", 5.0))])
    settings = DataSettings(min_rating=4)
    found = load_impressions(store.url, attribution_seconds=WINDOW, settings=settings)
    assert clicked(found) == [("r", "1"), ("r", "4")]


def test_answers_and_clicks_outside_their_users_window_are_left_out(store: EventStore) -> None:
    store.write([answer("r1", [1]), answer("r2", [1, 2], NOW + 1), answer("r3", [1], NOW + 9)])
    store.write([answer("r4", [1], NOW + 1, "bob")])
    store.write([event("e1", "r1", "1"), event("e2", "r2", "1", NOW + 5), event("e3", "r2", "2", NOW + 6)])
    windows = pl.DataFrame({"user_id": ["ann"], "begins": [NOW], "ends": [NOW + 5]})
    found = load_impressions(store.url, windows=windows)
    assert found.request_ids.to_list() == ["r2"]
    assert clicked(found) == [("r2", "1")]


@pytest.mark.parametrize("stretch", [2, 100])
def test_the_latest_answers_are_read_in_the_order_in_which_they_were_logged(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    monkeypatch.setattr("rec_engine.data.log_frames.STRETCH", stretch)
    store.write([answer(f"r{place}", [place]) for place in range(7)])
    found = load_impressions(store.url, latest=3)
    assert found.request_ids.to_list() == ["r4", "r5", "r6"]
    assert found.item_ids.to_list() == ["4", "5", "6"]
    assert load_impressions(store.url, latest=9).n_requests == 7


def test_an_event_of_another_user_is_no_click_and_one_event_is_one_click(store: EventStore) -> None:
    store.write(
        [answer("r", [1, 2]), answer("r", [1], NOW + 10), answer("r", [1], NOW + 20), answer("r", [2], NOW, "b")]
    )
    store.write([event("e1", "r", "1", NOW + 15), event("e2", "r", "2", NOW + 15)])
    found = load_impressions(store.url)
    assert found.clicked.tolist() == [False, True, True, False, False]


def test_an_event_before_all_answers_of_its_id_is_taken_for_a_late_clock(store: EventStore) -> None:
    store.write([answer("r", [1]), answer("r", [1], NOW + 10)])
    store.write([event("e1", "r", "1", NOW - 5)])
    assert load_impressions(store.url).clicked.tolist() == [False, True]


def test_an_empty_log_has_shown_nothing(store: EventStore) -> None:
    found = load_impressions(store.url)
    assert (len(found), found.n_requests) == (0, 0)


def test_an_erased_user_is_in_no_impression(store: EventStore) -> None:
    store.write([answer("r1", [1]), answer("r2", [1], user="bob"), event("e1", "r1", "1")])
    store.write([Erasure("ann", user_hash("ann"))])
    found = load_impressions(store.url)
    assert (found.user_ids.to_list(), len(found), clicked(found)) == (["bob"], 1, [])


def test_many_random_answers_are_joined_as_a_plain_loop_joins_them(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rec_engine.data.log_frames.STRETCH", 7)  # several stretches
    rng = np.random.default_rng(0)
    slates = [rng.permutation(8)[: rng.integers(0, 6)].tolist() for _ in range(40)]
    answers = [answer(f"r{place}", slate, NOW + 10 * place) for place, slate in enumerate(slates)]
    events = [
        event(
            f"e{place}",
            None if rng.random() < 0.2 else f"r{rng.integers(0, 45)}",
            str(rng.integers(0, 8)),
            NOW + int(rng.integers(0, 1_000)),
            str(rng.choice(EVENTS)),
        )
        for place in range(300)
    ]
    for place in range(0, 300, 50):
        store.write([*answers[place // 50 * 7 : place // 50 * 7 + 7], *events[place : place + 50]])
    expected = [
        (shown.request_id, str(item), place + 1)
        for shown, slate in zip(answers, slates, strict=True)
        for place, item in enumerate(slate)
        if any(
            (each.request_id, each.item_id) == (shown.request_id, str(item))
            and each.event != "dislike"
            and each.timestamp <= shown.timestamp + WINDOW
            for each in events
        )
    ]
    found = load_impressions(store.url, attribution_seconds=WINDOW)
    rows = zip(found.request_codes.tolist(), found.item_ids, found.positions.tolist(), found.clicked, strict=True)
    assert [(found.request_ids[code], item, place) for code, item, place, is_clicked in rows if is_clicked] == expected
    assert len(found) == sum(map(len, slates))
    assert 10 < len(expected) < 100


def test_what_the_service_shows_is_read_back(bundle: ModelBundle, store_url: str) -> None:
    with service(bundle, EventStore(store_url)) as client:
        answer = client.post("/recommend", json={"user_id": 4, "num_recommendations": 3}).json()
        items = [item["item_id"] for item in answer["recommendations"]]
        reaction = {"user_id": 4, "item_id": items[1], "action": "click", "request_id": answer["request_id"]}
        assert client.post("/feedback", json=reaction).status_code == 200
        cursor = answer["metadata"]["next_cursor"]
        page = client.post("/recommend", json={"user_id": 4, "num_recommendations": 2, "cursor": cursor}).json()
    found = load_impressions(store_url)
    assert found.request_ids.to_list() == [answer["request_id"], page["request_id"]]
    assert found.item_ids.to_list() == [
        str(item) for item in items + [each["item_id"] for each in page["recommendations"]]
    ]
    assert found.model_versions.to_list() == [bundle.version] * 2
    assert found.positions.tolist() == [1, 2, 3, 4, 5]
    assert found.propensities.tolist() == [1] * 5
    assert found.clicked.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("name", ["nothing.db", "empty.db"])
def test_a_database_without_a_log_is_named_and_not_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(DataError, match=f"{name}: there is no event store"):
        load_impressions(f"sqlite:///{tmp_path / name}")
    assert not (tmp_path / "nothing.db").exists()
    with pytest.raises(ConfigError, match=r"store\.url"):
        load_impressions("impressions.db")
