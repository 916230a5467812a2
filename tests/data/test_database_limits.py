"""PostgreSQL that makes a statement wait: it is given up, and what was refused is not there."""

import time

import pytest
from conftest import empty_database

from rec_engine.data import database
from rec_engine.data.database import opened
from rec_engine.data.events import Event, EventStore
from rec_engine.errors import StoreError


def test_a_statement_that_waits_for_a_lock_is_given_up_and_later_ones_are_written(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", 300)
    url = empty_database(postgres_url)
    store = EventStore(url)
    with opened(url) as (_, writer, _, _), writer.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE events")
        started = time.monotonic()
        with pytest.raises(StoreError, match="statement timeout"):
            store.write([Event("e-1", "ann", "tea", "click", 1)])
        with pytest.raises(StoreError, match="statement timeout"):
            store.events_of("ann")
        assert time.monotonic() - started < 5
    store.write([Event("e-2", "ann", "tea", "click", 1)])
    assert [event.event_id for event in store.events_of("ann")] == ["e-2"]
    store.close()
