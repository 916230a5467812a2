"""What is popular and trending follows what happens."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import service

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import Event, EventStore, ItemChange, Row
from rec_engine.errors import StoreError
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.utils.config import RecommendationSettings

NOW = 1_700_000_000


def test_statistics_are_those_of_the_training_and_the_log_together(bundle: ModelBundle, store: EventStore) -> None:
    live = LiveModel(bundle, RecommendationSettings(), store)
    trained = live.knowledge
    statistics = LiveStatistics(live, store)
    assert statistics.refresh() is False
    code = live.catalogue.code(101)
    clicks = [Event(f"c{n}", f"user {n}", "101", "click", NOW + n) for n in range(30)]
    others = [Event("d", "ann", "101", "dislike", NOW), Event("u", "ann", "nobody knows it", "click", NOW)]
    store.write([*clicks, *others])
    assert statistics.refresh() is True
    found = live.knowledge
    assert found.popularity[code] == trained.popularity[code] + 30
    assert found.popularity.sum() == trained.popularity.sum() + 30
    counts = found.timeline.counts_within(NOW + 100, 200)
    assert (counts[code], counts.sum()) == (30, 30)
    whole = found.timeline.counts_within(NOW + 100, NOW)
    before = trained.timeline.counts_within(NOW + 100, NOW)
    assert whole.tolist() == [count + 30 * (item == code) for item, count in enumerate(before.tolist())]
    assert live.inference.items.timeline is found.timeline
    assert statistics.refresh() is False


def test_events_of_an_item_that_comes_later_count_once_it_is_there(bundle: ModelBundle, store: EventStore) -> None:
    live = LiveModel(bundle, RecommendationSettings(), store)
    statistics = LiveStatistics(live, store)
    clicks = [Event(f"c{n}", f"user {n}", "later", "click", NOW + n) for n in range(7)]
    store.write([*clicks, Event("d", "ann", "later", "dislike", NOW), Event("n", "ann", "never", "click", NOW)])
    statistics.refresh()
    store.write([ItemChange("later", "visible", "{}")])
    live.catch_up()
    assert statistics.refresh() is True
    code = live.catalogue.code("later")
    assert live.knowledge.popularity[code] == 7
    assert live.knowledge.timeline.counts_within(NOW + 100, 200)[code] == 7
    assert statistics.refresh() is False


def test_popularity_counts_users_and_each_of_them_once(bundle: ModelBundle, store: EventStore) -> None:
    live = LiveModel(bundle, RecommendationSettings(), store)
    trained, statistics = live.knowledge, LiveStatistics(live, store)
    met = live.catalogue.view(int(bundle.history.items_of(4)[0])).item_id
    for turn, users in enumerate((["ann", "ann", "bob", "4"], ["ann", "cy"])):
        store.write([Event(f"{turn} {n}", user, str(met), "click", NOW + n) for n, user in enumerate(users)])
        statistics.refresh()
    store.write([Event("w", "ann", "later", "click", NOW), Event("x", "ann", "later", "click", NOW)])
    statistics.refresh()
    store.write([ItemChange("later", "visible", "{}")])
    live.catch_up()
    statistics.refresh()
    gained = live.knowledge.popularity - trained.popularity
    expected = {live.catalogue.code(met): 3, live.catalogue.code("later"): 1}  # 4 had met it before
    assert {place: int(gained[place]) for place in np.flatnonzero(gained).tolist()} == expected
    assert live.knowledge.timeline.counts_within(NOW + 100, 200).sum() == 8


def test_a_backlog_that_is_interrupted_counts_once(
    bundle: ModelBundle, store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rec_engine.data.events.NEWS_AT_ONCE", 4)
    live = LiveModel(bundle, RecommendationSettings(), store)
    before, statistics = live.knowledge.popularity.sum(), LiveStatistics(live, store)
    store.write([Event(f"c{n}", f"user {n}", "101", "click", NOW + n) for n in range(10)])
    met_after, n_asked = EventStore.met_after, 0

    def failing(store: EventStore, position: int) -> tuple[int, Sequence[Row]]:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 4:  # after all of it has been read
            raise StoreError("the log is away")
        return met_after(store, position)

    monkeypatch.setattr(EventStore, "met_after", failing)
    with pytest.raises(StoreError):
        statistics.refresh()
    assert statistics.refresh() is True
    assert live.knowledge.popularity.sum() == before + 10


def test_what_many_click_on_becomes_trending(bundle: ModelBundle, tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    with service(bundle, store) as client:
        assert client.get("/trending?time_window=1h").json()["items"] == []
        for user in range(5):
            client.post("/feedback", json={"user_id": user, "item_id": 105, "action": "click"})
        end = time.monotonic() + 40
        while not (found := client.get("/trending?time_window=1h").json()["items"]):
            assert time.monotonic() < end, "nothing is trending"
            time.sleep(0.2)
        assert [(item["item_id"], item["score"]) for item in found] == [(105, 5.0)]
