"""The log, on SQLite and PostgreSQL alike: order, idempotence, erasure, and nothing acknowledged is lost."""

import logging
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rec_engine.data.events import Erasure, Event, EventStore, Impression, ItemChange, user_hash
from rec_engine.data.group_commit import GroupCommit
from rec_engine.data.rules import RuleChange, StoredRules
from rec_engine.errors import ConfigError, StoreError


def event(name: str, user: str = "ann", item: str = "tea", timestamp: int = 1_600_000_000) -> Event:
    return Event(name, user, item, "click", timestamp)


def names(store: EventStore, user: str = "ann") -> list[str]:
    return [found.event_id for found in store.events_of(user)]


def test_events_come_back_as_they_were_written(store: EventStore) -> None:
    written = Event("1", "ann", "tea", "rating", 1_600_000_000, 4.5, "request", '{"device": "tv"}')
    store.write([written, event("2", user="bob")])
    (found,) = store.events_of("ann")
    assert found == replace(written, position=found.position)


def test_the_same_event_id_twice_changes_nothing(store: EventStore) -> None:
    store.write([event("1", item="tea"), event("1", item="milk")])
    store.write([event("1", item="rum"), event("2")])
    assert [(found.event_id, found.item_id) for found in store.events_of("ann")] == [("1", "tea"), ("2", "tea")]


def test_news_hold_what_came_after_a_position_in_order(store: EventStore) -> None:
    store.write([event("1"), ItemChange("tea", "visible", "{}")])
    seen = store.news(0)
    assert [found.event_id for found in seen.events] == ["1"]
    assert store.news(seen.position).events == ()
    store.write([ItemChange("tea", "hidden", '{"title": "Tea"}'), event("2"), Erasure("bob", "hash of bob")])
    news = store.news(seen.position)
    assert [found.event_id for found in news.events] == ["2"]
    assert [(item.item_id, item.status, item.attributes) for item in news.items] == [
        ("tea", "hidden", '{"title": "Tea"}')
    ]
    assert list(news.erased) == ["hash of bob"]
    assert news.position == store.position()


def test_whoever_hears_of_a_rule_hears_all_of_them(store: EventStore) -> None:
    assert store.standing().rules is None
    store.write([RuleChange("a", "1"), event("1"), RuleChange("b", "2")])
    seen = store.news(0)
    assert seen.rules == StoredRules(3, {"a": "1", "b": "2"}) == store.standing().rules
    store.write([event("2")])
    assert store.news(seen.position).rules is None
    store.write([RuleChange("b", "3"), RuleChange("a", None)])
    assert store.news(4).rules == StoredRules(6, {"b": "3"})
    store.write([RuleChange("b", None)])
    assert store.news(6).rules == StoredRules(7, {}) == store.standing().rules


def test_a_change_by_another_is_noticed_once(store: EventStore) -> None:
    reader = EventStore(store.url)
    reader.has_changed()
    assert not reader.has_changed()
    store.write([event("1")])
    assert reader.has_changed()
    assert not reader.has_changed()
    reader.close()


def test_writers_side_by_side_never_share_a_position_and_hide_none(store: EventStore) -> None:
    def write(name: str) -> None:
        mine = EventStore(store.url)
        for place in range(20):
            mine.write([event(f"{name}{place}a"), event(f"{name}{place}b")])
        mine.close()

    writers = [threading.Thread(target=write, args=(name,)) for name in "wxyz"]
    for writer in writers:
        writer.start()
    seen: list[Event] = []
    position = 0
    while any(writer.is_alive() for writer in writers) or position < store.position():
        news = store.news(position)
        seen += news.events
        position = news.position
    assert len({found.event_id for found in seen}) == len(seen) == 160
    positions = [found.position for found in seen]
    assert positions == sorted(set(positions))


def test_an_erased_user_leaves_nothing_but_a_hash(store: EventStore) -> None:
    shown = Impression("r", "ann-of-the-shop", 1, "v", "[]", 0)
    store.write([event("1", user="ann-of-the-shop"), shown, event("2", user="bob")])
    store.write([Erasure("ann-of-the-shop", "hash")])
    assert store.events_of("ann-of-the-shop") == []
    assert (store.count(Event), store.count(Impression)) == (1, 0)
    store.write([event("3", user="ann-of-the-shop")])
    assert names(store, "ann-of-the-shop") == ["3"]


def test_an_impression_that_is_late_does_not_bring_an_erased_user_back(store: EventStore) -> None:
    store.write([event("1"), Erasure("ann", user_hash("ann"))])
    store.write([Impression("before", "ann", 1, "v", "[]", 1), Impression("other", "bob", 1, "v", "[]", 1)])
    assert store.count(Impression) == 1
    store.write([Impression("after", "ann", 1, "v", "[]", store.position())])
    assert store.count(Impression) == 2


def test_erased_users_are_not_in_the_files_of_the_database(tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    store.write([event(str(place), user="ann-of-the-shop") for place in range(50)])
    store.write([Erasure("ann-of-the-shop", "hash")])
    for file in tmp_path.iterdir():
        assert b"ann-of-the-shop" not in file.read_bytes(), file
    store.close()


def test_an_erasure_that_cannot_empty_the_write_ahead_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rec_engine.data.database.BUSY_TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(logging.getLogger("rec_engine"), "propagate", True)
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    store.write([event("1", user="ann-of-the-shop")])
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchall()
        store.write([Erasure("ann-of-the-shop", "hash")])
        assert "still holds what was erased" in caplog.text
        reader.execute("ROLLBACK")
    store.write([Erasure("ann-of-the-shop", "hash")])
    assert all(b"ann-of-the-shop" not in file.read_bytes() for file in tmp_path.iterdir())
    store.close()


def test_group_commit_acknowledges_what_is_written(store: EventStore) -> None:
    writer = GroupCommit(store)
    acknowledged = [writer.submit([event(str(place))]) for place in range(200)]
    for done in acknowledged:
        done.result(timeout=10)
    assert len(names(store)) == 200
    writer.note(Impression("r", "ann", 1, "v", "[]", 0))
    writer.close()
    assert store.count(Impression) == 1


def test_what_cannot_be_written_is_not_acknowledged(store: EventStore) -> None:
    writer = GroupCommit(store)
    unwritable = Event("1", None, "tea", "click", 1)  # type: ignore[arg-type]
    done = writer.submit([unwritable])
    with pytest.raises(StoreError, match="event store"):
        done.result(timeout=10)
    writer.submit([event("2")]).result(timeout=10)
    writer.close()
    assert names(store) == ["2"]


WRITE_UNTIL_KILLED = """
import sys
from rec_engine.data.events import Event, EventStore
from rec_engine.data.group_commit import GroupCommit
from rec_engine.data.rules import RuleChange, StoredRules
writer = GroupCommit(EventStore(sys.argv[1]))
place = 0
while True:
    batch = [Event(f"{sys.argv[2]}-{place + n}", "ann", "tea", "click", 1) for n in range(7)]
    writer.submit(batch).result()
    place += 7
    print(place, flush=True)
"""


def test_nothing_acknowledged_is_lost_when_the_process_is_killed(store: EventStore) -> None:
    for turn in range(3):
        command = [sys.executable, "-c", WRITE_UNTIL_KILLED, store.url, str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(20 + 5 * turn)]
            process.send_signal(signal.SIGKILL)
            acknowledged = int((lines + process.stdout.read().splitlines())[-1])
        written = [name for name in names(store) if name.startswith(f"{turn}-")]
        assert acknowledged > 0
        assert written[:acknowledged] == [f"{turn}-{place}" for place in range(acknowledged)]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://host/name", "mysql is not supported"),
        ("events.db", "Could not parse"),
        ("mongodb://host/name", "mongodb"),
    ],
)
def test_a_url_that_cannot_be_used_is_named(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        EventStore(url)
    assert "sqlite:///" in caught.value.hint


def test_a_database_that_does_not_answer_is_a_store_error_without_its_password() -> None:
    with pytest.raises(StoreError) as caught:
        EventStore("postgresql://user:secret@127.0.0.1:1/name")
    assert "secret" not in str(caught.value)
