"""Bulk writes keep the rules of the log: positions in the order of commits, known ids unchanged, nobody back."""

import threading

import polars as pl
import pytest

from rec_engine.data.bulk import BulkWriter
from rec_engine.data.events import Erasure, Event, EventStore, user_hash
from rec_engine.errors import StoreError

SCHEMA = {
    "event_id": pl.String, "user_id": pl.String, "item_id": pl.String, "event": pl.String, "timestamp": pl.Int64,
    "value": pl.Float64, "request_id": pl.String, "context": pl.String,
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rec_engine.data.bulk.SMALLEST", 4)
    monkeypatch.setattr("rec_engine.data.bulk.LARGEST", 4)


def rows(*events: Event) -> pl.DataFrame:
    return pl.DataFrame([{name: getattr(event, name) for name in SCHEMA} for event in events], schema=SCHEMA)


def event(name: str, user: str = "ann") -> Event:
    return Event(name, user, "tea", "click", 1_600_000_000)


def test_events_are_those_that_were_written(store: EventStore) -> None:
    whole = Event("1", "ann", 'a,"b"\n\\N\n\\.\n', "rating", 5, -0.25, "request", '{"text": "\\"\\n,"}')
    bare = Event("2", "ann", "", "view", 6)
    with BulkWriter(store.url) as writer:
        writer.write(rows(whole, bare))
    found = store.events_of("ann")
    assert rows(*found).equals(rows(whole, bare))
    assert (writer.n_new, writer.n_known, writer.n_erased) == (2, 0, 0)


def test_positions_go_on_from_the_log_in_the_order_of_the_rows(store: EventStore) -> None:
    store.write([event("before")])
    with BulkWriter(store.url) as writer:
        writer.write(rows(*(event(str(place)) for place in range(10))))
    store.write([event("after")])
    found = store.events_of("ann")
    assert [each.event_id for each in found] == ["before", *map(str, range(10)), "after"]
    assert [each.position for each in found] == list(range(1, 13))
    assert store.position() == 12


def test_what_the_log_knows_stays_as_it_is(store: EventStore) -> None:
    store.write([event("1")])
    with BulkWriter(store.url) as writer:
        writer.write(rows(event("1", "bob"), event("2"), event("2", "bob"), event("3")))
        writer.write(rows(event("1"), event("2"), event("3")))
    assert [each.event_id for each in store.events_of("ann")] == ["1", "2", "3"]
    assert store.events_of("bob") == []
    assert (writer.n_new, writer.n_known) == (2, 5)


def test_erased_users_are_not_brought_back_not_even_in_the_middle(store: EventStore) -> None:
    store.write([Erasure("ann", user_hash("ann"))])
    with BulkWriter(store.url) as writer:
        writer.write(rows(event("1"), event("2", "bob"), event("3", "cid")))
        store.write([Erasure("cid", user_hash("cid"))])
        writer.write(rows(event("4"), event("5", "bob"), event("6", "cid")))
    assert store.events_of("ann") == store.events_of("cid") == []
    assert [each.event_id for each in store.events_of("bob")] == ["2", "5"]
    assert (writer.n_new, writer.n_known, writer.n_erased) == (3, 0, 3)


def test_a_reader_misses_nothing_while_others_write_too(store: EventStore) -> None:
    def write_one_by_one() -> None:
        other = EventStore(store.url)
        for place in range(30):
            other.write([event(f"single {place}", "bob")])
        other.close()

    def write_many() -> None:
        with BulkWriter(store.url) as writer:
            for start in range(0, 200, 20):
                writer.write(rows(*(event(f"bulk {start + place}") for place in range(20))))

    threads = [threading.Thread(target=write_one_by_one), threading.Thread(target=write_many)]
    for thread in threads:
        thread.start()
    seen: list[Event] = []
    position = 0
    while any(thread.is_alive() for thread in threads) or position < store.position():
        news = store.news(position)
        seen += news.events
        position = news.position
    assert len({each.event_id for each in seen}) == len(seen) == 230
    assert [each.position for each in seen] == sorted({each.position for each in seen})


def test_little_is_written_at_once_as_soon_as_others_write_too(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rec_engine.data.bulk.LARGEST", 20)
    with BulkWriter(store.url) as writer:
        writer.write(rows(*(event(str(place)) for place in range(40))))
        assert writer._chunk == 20
        store.write([event("of another")])
        writer.write(rows(event("more")))
        assert writer._chunk == 4
    assert store.count(Event) == 42


def test_what_cannot_be_written_names_the_store_and_leaves_whole_chunks(store: EventStore) -> None:
    bad = rows(*(event(str(place)) for place in range(6))).with_columns(
        pl.when(pl.col("event_id") == "5").then(None).otherwise("item_id").alias("item_id")
    )
    with BulkWriter(store.url) as writer, pytest.raises(StoreError, match="event store"):
        writer.write(bad)
    assert [each.event_id for each in store.events_of("ann")] == ["0", "1", "2", "3"]
