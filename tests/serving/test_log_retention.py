"""A service keeps its log to the days that its settings name; one of its workers at a time does it."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import service
from proposals import proposed

from rec_engine.bundle import ModelBundle
from rec_engine.data import pruning
from rec_engine.data.events import Event, EventStore, Impression
from rec_engine.data.experiment_log import ExperimentLog
from rec_engine.errors import DataError, StoreError
from rec_engine.experiments.lifecycle import Lifecycle
from rec_engine.serving import log_retention
from rec_engine.serving.log_retention import LogRetention
from rec_engine.utils.config import ServingConfig, StoreSettings

DAY = 86_400
NOW = 1_700_000_000


@pytest.fixture
def filled(store: EventStore) -> EventStore:
    """An event and an impression of each of 100 days."""
    fill(store, NOW)
    return store


def fill(store: EventStore, now: int) -> None:
    for day in range(100):
        at = now - day * DAY
        store.write([Event(f"e-{day}", "ann", "101", "click", at), Impression(f"r-{day}", "ann", at, "v", "[]", 10**6)])


def counts(store: EventStore) -> tuple[int, int]:
    return store.count(Event), store.count(Impression)


def test_each_kind_is_kept_for_its_days(filled: EventStore) -> None:
    settings = StoreSettings(keep_events_days=50, keep_impressions_days=10)
    retention = LogRetention(filled.url, settings, lambda: NOW)
    assert retention.prune_once()
    assert counts(filled) == (51, 11)
    assert dict(retention.take()) == {("pruned_rows_total", "events"): 49, ("pruned_rows_total", "impressions"): 89}
    assert dict(retention.take()) == {}
    with closing(ExperimentLog(filled.url)) as log:
        assert log.pruned_before(with_impressions=False) == NOW - 50 * DAY
        assert log.pruned_before(with_impressions=True) == NOW - 10 * DAY


def test_what_the_settings_do_not_name_stays(filled: EventStore) -> None:
    LogRetention(filled.url, StoreSettings(keep_impressions_days=10), lambda: NOW).prune_once()
    assert counts(filled) == (100, 11)


def test_one_worker_does_it_and_again_after_a_day(filled: EventStore) -> None:
    settings = StoreSettings(keep_events_days=50)
    now = [NOW]
    first, second = (LogRetention(filled.url, settings, lambda: now[0]) for _ in range(2))
    assert [first.prune_once(), second.prune_once(), first.prune_once()] == [True, False, False]
    assert counts(filled)[0] == 51
    now[0] += DAY
    assert [second.prune_once(), first.prune_once()] == [True, False]
    assert counts(filled)[0] == 50


def test_who_fails_in_his_turn_tries_again_within_the_day(filled: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = StoreSettings(keep_events_days=50, keep_impressions_days=10)
    first, second = (LogRetention(filled.url, settings, lambda: NOW) for _ in range(2))

    def fail(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(log_retention, "prune", fail)
        with pytest.raises(StoreError):
            first.prune_once()
    assert not second.prune_once()
    assert first.prune_once()
    assert counts(filled) == (51, 11)
    assert not first.prune_once()


def test_what_a_running_experiment_measures_stays(filled: EventStore) -> None:
    started = NOW - 60 * DAY
    with closing(ExperimentLog(filled.url)) as log:
        lifecycle = Lifecycle(log, lambda: started)
        lifecycle.create(proposed(reads_service=True, target_metrics=["ctr"], window_days=5).experiment(0))
        lifecycle.start("exp")
    LogRetention(filled.url, StoreSettings(keep_events_days=10), lambda: NOW).prune_once()
    assert 61 <= counts(filled)[0] < 100


def test_a_closed_one_leaves_the_rest_to_the_next(filled: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "STRETCH", 10)
    retention = LogRetention(filled.url, StoreSettings(keep_events_days=50), lambda: NOW)
    retention.close()
    retention.prune_once()
    assert counts(filled)[0] == 100


def test_a_log_that_was_removed_is_not_made_again(tmp_path: Path) -> None:
    retention = LogRetention(f"sqlite:///{tmp_path / 'gone.db'}", StoreSettings(keep_events_days=50), lambda: NOW)
    with pytest.raises(DataError):
        retention.prune_once()
    assert list(tmp_path.iterdir()) == []


def test_the_service_prunes_beside_its_requests_and_counts_it(
    bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_retention, "FIRST_SECONDS", 0.1)
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    fill(store, int(time.time()) + DAY // 2)
    config = ServingConfig(store=StoreSettings(keep_events_days=30))
    with service(bundle, store, config=config) as client:
        for _ in range(600):
            figures = client.get("/stats").json()["rec_engine_pruned_rows_total"]
            if figures:
                break
            time.sleep(0.05)
        assert figures == [{"kind": "events", "value": 69.0}]
        assert client.post("/recommend", json={"user_id": "ann"}).status_code == 200
        assert counts(store) == (31, 100)


def test_those_who_write_wait_for_no_long_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "STRETCH", 10)
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    fill(store, NOW)
    n_left = []

    def is_over() -> bool:
        with closing(sqlite3.connect(tmp_path / "events.db", timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")  # at once, or it fails: nothing is locked between two stretches
            n_left.append(other.execute("SELECT count(*) FROM events").fetchone()[0])
        return False

    pruning.prune(store.url, NOW - 50 * DAY, is_over=is_over)
    assert n_left[:5] == [100, 100, 100, 100, 100]  # the latest were written first: nothing old among them
    assert n_left[5:10] == [100, 91, 81, 71, 61]
    store.close()
