"""The log, on SQLite and PostgreSQL alike: order, idempotence, erasure, and nothing acknowledged is lost."""

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rec_engine.data.database import open_engines, require_file
from rec_engine.data.events import Erasure, Event, EventStore, Impression, ItemChange, user_hash
from rec_engine.data.group_commit import GroupCommit
from rec_engine.data.rules import RuleChange, StoredRules
from rec_engine.errors import ConfigError, ConflictError, DataError, StoreError


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


def test_a_users_events_after_a_position_and_what_was_met_after_it(store: EventStore) -> None:
    store.write([event("1"), event("2", user="bob", item="milk"), event("3", item="rum")])
    assert [[found.event_id for found in store.events_of("ann", after)] for after in (0, 1, 3)] == [
        ["1", "3"],
        ["3"],
        [],
    ]
    until, met = store.met_after(1)
    assert (until, [tuple(row) for row in met]) == (
        3,
        [("bob", "milk", "click", None, 1_600_000_000), ("ann", "rum", "click", None, 1_600_000_000)],
    )


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


def test_what_another_writes_is_noticed(store: EventStore) -> None:
    reader = EventStore(store.url)
    for number in (1, 2):
        store.write([event(f"{number}")])
        assert reader.latest() == reader.position() == number
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


def test_what_another_reader_keeps_in_the_write_ahead_log_goes_once_he_lets_go(tmp_path: Path) -> None:
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    writer = GroupCommit(store)
    writer.submit([event("1", user="ann-of-the-shop")]).result(timeout=10)
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchall()
        writer.submit([Erasure("ann-of-the-shop", "hash")]).result(timeout=10)
        assert store.holds_erased
        assert holding(tmp_path, b"ann-of-the-shop")
        reader.execute("ROLLBACK")
    end = time.monotonic() + 10
    while store.holds_erased:
        assert time.monotonic() < end, "the log is not emptied"
        time.sleep(0.05)
    assert holding(tmp_path, b"ann-of-the-shop") == []
    writer.close()
    store.close()


def test_what_was_erased_before_a_crash_goes_at_the_next_start(tmp_path: Path) -> None:
    code = """
import os, sys
from rec_engine.data.events import Erasure, Event, EventStore
EventStore.forget = lambda store: os._exit(0)
store = EventStore(sys.argv[1])
store.write([Event("1", "ann-of-the-shop", "tea", "click", 1)])
store.write([Erasure("ann-of-the-shop", "hash")])
"""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    subprocess.run([sys.executable, "-c", code, url], check=True)
    assert holding(tmp_path, b"ann-of-the-shop")
    store = EventStore(url)
    GroupCommit(store).close()
    assert holding(tmp_path, b"ann-of-the-shop") == []
    store.close()


def holding(directory: Path, text: bytes) -> list[str]:
    return [file.name for file in directory.iterdir() if text in file.read_bytes()]


@pytest.mark.parametrize("how", ["removed", "replaced", "its write-ahead log removed"])
def test_nothing_is_acknowledged_that_the_path_does_not_hold(tmp_path: Path, how: str) -> None:
    path, aside = tmp_path / "events.db", tmp_path / "aside.db"
    store = EventStore(f"sqlite:///{path}")
    store.write([event("1")])
    if how == "replaced":
        with closing(sqlite3.connect(path)) as original, closing(sqlite3.connect(aside)) as copy:
            original.backup(copy)
        aside.rename(path)
    else:
        (Path(f"{path}-wal") if "log" in how else path).unlink()
    writer = GroupCommit(store)
    with pytest.raises(StoreError, match="removed or replaced") as refused:
        writer.submit([event("2")]).result(timeout=10)
    assert "restart" in refused.value.hint
    writer.close()
    if how != "its write-ahead log removed":
        with pytest.raises(StoreError, match="removed or replaced"):
            store.latest()
    store.close()


def test_a_database_that_is_put_back_is_written_to_again(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = EventStore(f"sqlite:///{path}")
    path.rename(tmp_path / "away.db")
    with pytest.raises(StoreError):
        store.write([event("1")])
    assert not path.exists()
    (tmp_path / "away.db").rename(path)
    store.write([event("2")])
    assert names(store) == ["2"]
    store.close()


def test_a_log_keeps_its_id_and_never_goes_back(store: EventStore) -> None:
    store.write([event("1")])
    store.go_on_from(10)
    store.go_on_from(5)
    store.write([event("2")])
    again = EventStore(store.url)
    assert again.log_id == store.log_id
    assert again.position() == 11
    again.close()


def test_a_write_that_was_checked_beside_other_items_is_refused(store: EventStore) -> None:
    tea = ItemChange("tea", "visible", "{}")
    store.write([tea])
    seen = store.position()
    store.write([event("1"), tea], items_as_of=seen)
    with pytest.raises(ConflictError):
        store.write([event("2"), tea], items_as_of=seen)
    assert names(store) == ["1"]
    store.write([event("3"), tea], items_as_of=store.position())


def test_one_refused_write_does_not_refuse_those_beside_it(store: EventStore) -> None:
    writer = GroupCommit(store)
    tea = ItemChange("tea", "visible", "{}")
    done = [writer.submit([tea], items_as_of=0) for _ in range(5)]
    events = [writer.submit([event(str(place))]) for place in range(5)]
    errors = [refused.exception(timeout=10) for refused in done]
    assert [type(error) for error in errors if error] == [ConflictError] * 4
    assert [kept.result(timeout=10) for kept in events] == [None] * 5
    writer.close()


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


def test_who_no_longer_waits_does_not_stop_what_others_wait_for(store: EventStore) -> None:
    writer = GroupCommit(store)
    for place in range(50):
        writer.submit([event(f"left {place}")]).cancel()
        writer.submit([event(f"waited for {place}")]).result(timeout=10)
    writer.close()
    assert sum(name.startswith("waited for") for name in names(store)) == 50


def test_an_error_that_nobody_foresaw_is_told_and_writing_goes_on(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("rec_engine"), "propagate", True)
    writer = GroupCommit(store)
    with pytest.raises(UnicodeEncodeError):
        writer.submit([event("1", user="half a \ud800")]).result(timeout=10)
    writer.note(Impression("r", "half a \ud800", 1, "v", "[]", 0))
    writer.submit([event("2")]).result(timeout=10)
    writer.close()
    assert names(store) == ["2"]
    assert writer.n_dropped == 1
    assert "Traceback" in caplog.text


WRITE_UNTIL_KILLED = """
import os, random, signal, sys, time
from rec_engine.data.events import Event, EventStore
from rec_engine.data.group_commit import GroupCommit

def write(turn, told):
    writer = GroupCommit(EventStore(sys.argv[1]))
    for first in range(0, 10**9, 7):
        batch = [Event(f"{turn}-{first + n}", "ann", "tea", "click", 1) for n in range(7)]
        writer.submit(batch).result()
        os.write(told, b"%d\\n" % (first + 7))

chance = random.Random(0)
for turn in range(10):
    reads, told = os.pipe()
    if not (child := os.fork()):
        write(turn, told)
    os.close(told)
    with open(reads) as lines:
        heard = [lines.readline() for _ in range(chance.randrange(1, 30))]
        time.sleep(0.003 * chance.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print([*heard, *lines][-1], end="")
"""


def test_nothing_acknowledged_is_lost_when_the_process_is_killed_ten_times(store: EventStore) -> None:
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, store.url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert len(told) == 10
    for turn, acknowledged in enumerate(map(int, told)):
        written = [name for name in names(store) if name.startswith(f"{turn}-")]
        assert acknowledged > 0
        assert written[:acknowledged] == [f"{turn}-{place}" for place in range(acknowledged)]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://host/name", "mysql is not supported"),
        ("events.db", "Could not parse"),
        ("mongodb://host/name", "mongodb"),
        ("postgresql://user:se@cr:et@host/name", "the port is not a number"),
    ],
)
def test_a_url_that_cannot_be_used_is_named(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        EventStore(url)
    assert "sqlite:///" in caught.value.hint
    assert "et@" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@127.0.0.1:1/name",
        "postgresql://127.0.0.1:1/name?user=user&password=secret",
        "postgresql://127.0.0.1:1/name?sslkey=client.key&sslpassword=secret",
    ],
)
def test_a_database_that_does_not_answer_is_a_store_error_without_its_password(url: str) -> None:
    with pytest.raises(StoreError, match="127") as caught:
        EventStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///{}?password=secret", "sqlite://user:secret@host/{}"])
def test_a_file_that_is_not_there_is_named_without_a_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="nothing.db") as caught:
        require_file(url.format(tmp_path / "nothing.db"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("password", ["pass@secret", "p@ss/secret", "p@ss:5432/secret"])
def test_a_password_that_is_not_quoted_is_not_taken_for_a_host(password: str) -> None:
    with pytest.raises(ConfigError, match="more than one @") as caught:
        EventStore(f"postgresql://user:{password}@127.0.0.1:1/name")
    assert "secret" not in str(caught.value)
    assert "%40" in caught.value.hint


def test_a_password_in_the_query_is_used(postgres_url: str) -> None:
    writer, *_ = open_engines(f"{postgres_url}&password=secret")
    assert "secret" in writer.dialect.create_connect_args(writer.url)[1].values()
