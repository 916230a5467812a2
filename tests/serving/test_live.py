"""A model beside a log: what of it the training knew, and what comes on top."""

import logging
import time
from dataclasses import replace

import polars as pl
import pytest

from rec_engine.bundle import ModelBundle
from rec_engine.data.dataset import IdMap, event_place
from rec_engine.data.events import Event, EventStore
from rec_engine.data.state import state_of
from rec_engine.serving.inference import Query
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.utils.config import RecommendationSettings

NOW = 1_700_000_000


def trained_with(bundle: ModelBundle, log_id: str, until: int) -> ModelBundle:
    known = {"log_id": log_id, "log_position": until}
    return replace(bundle, manifest=bundle.manifest.model_copy(update=known))


def click(store: EventStore, name: str) -> None:
    store.write([Event(name, "new", "101", "click", NOW)])


def n_counted(bundle: ModelBundle, store: EventStore) -> tuple[int, int]:
    """Return how many events of the user come on top of the training, in his history and in the statistics."""
    live = LiveModel(bundle, RecommendationSettings(), store)
    before = live.knowledge.timeline.counts_within(NOW + 1, NOW).sum()
    LiveStatistics(live, store).refresh()
    after = live.knowledge.timeline.counts_within(NOW + 1, NOW).sum()
    return len(live.user("new").item_codes), int(after - before)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("rec_engine"), "propagate", True)
    return caplog


def test_only_what_came_after_the_training_comes_on_top(bundle: ModelBundle, store: EventStore) -> None:
    click(store, "1")
    click(store, "2")
    assert n_counted(trained_with(bundle, store.log_id, 1), store) == (1, 1)


def test_a_log_that_is_another_than_the_models_counts_from_its_beginning(
    bundle: ModelBundle, store: EventStore, warned: pytest.LogCaptureFixture
) -> None:
    of_another = trained_with(bundle, "another log", 3)
    for n_clicks in range(1, 6):
        click(store, str(n_clicks))
        assert n_counted(of_another, store) == (n_clicks, n_clicks)
    assert "another event log" in warned.text


def test_an_older_copy_of_the_models_log_goes_on_after_what_the_model_knows(
    bundle: ModelBundle, store: EventStore, warned: pytest.LogCaptureFixture
) -> None:
    click(store, "1")
    ahead = trained_with(bundle, store.log_id, 10)
    assert n_counted(ahead, store) == (0, 0)
    assert "older copy" in warned.text
    click(store, "2")
    assert store.position() == 11
    assert n_counted(ahead, store) == (1, 1)


def test_a_model_that_is_only_tried_leaves_the_log_as_it_is_and_follows_it(
    bundle: ModelBundle, store: EventStore, warned: pytest.LogCaptureFixture
) -> None:
    click(store, "1")
    live = LiveModel(trained_with(bundle, store.log_id, 10), RecommendationSettings(), store, is_served=False)
    assert store.position() == 1
    click(store, "2")
    live.catch_up()
    assert len(live.user("new").item_codes) == 1
    assert "older copy" in warned.text


def test_events_of_a_type_that_only_a_later_release_knows_are_told_of_once_and_ignored(
    bundle: ModelBundle, store: EventStore, warned: pytest.LogCaptureFixture
) -> None:
    event_place.cache_clear()
    store.write([Event(str(n), "new", "102", "long_look", NOW) for n in range(3)])
    click(store, "known")
    assert n_counted(bundle, store) == (1, 1)
    assert warned.text.count("'long_look'") == 1


def test_what_the_first_answer_would_wait_for_is_made_before(bundle: ModelBundle, store: EventStore) -> None:
    opened = replace(bundle, user_ids=IdMap(bundle.user_ids.ids.cast(pl.String)))
    live = LiveModel(opened, RecommendationSettings(), store)
    now = int(time.time())
    counts = live.knowledge.timeline._counts_of_day.cache_info().currsize
    assert counts == 1
    assert "_by_hash" in opened.user_ids._texts.__dict__
    click(store, "1")
    LiveStatistics(live, store).refresh()
    before = live.knowledge.timeline._counts_of_day.cache_info()
    live.inference.recommend(Query(state_of(bundle.history, 0, now), k=3))
    after = live.knowledge.timeline._counts_of_day.cache_info()
    assert (after.misses, after.hits) == (before.misses, before.hits + 1)


def test_a_cap_on_what_no_item_has_is_told(
    bundle: ModelBundle, store: EventStore, warned: pytest.LogCaptureFixture
) -> None:
    LiveModel(bundle, RecommendationSettings(caps={"prise": 1, "price": 1}), store)
    assert "'prise'" in warned.text
    assert "'price'" not in warned.text
