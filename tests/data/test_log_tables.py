"""Training data from the log is what a service that follows the log has: the same histories, the same items."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec_engine.data.columns import EVENTS
from rec_engine.data.dataset import LogMark, RecommendationDataset
from rec_engine.data.event_table import clean_events, log_rows
from rec_engine.data.events import Change, Erasure, Event, EventStore, ItemChange, user_hash
from rec_engine.data.live import LiveHistories
from rec_engine.data.log_tables import with_log
from rec_engine.data.schema import migrate
from rec_engine.data.state import state_of
from rec_engine.data.validation import Tables, accepted_tables
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings

SETTINGS = DataSettings(min_rating=3)
START = 1_600_000_000
NOTHING = accepted_tables(
    pl.DataFrame(schema=dict.fromkeys(("user_id", "item_id", "timestamp"), pl.Int64)), None, None, SETTINGS
)


def files(rows: Sequence[tuple[object, object, float]], items: pl.DataFrame | None = None) -> Tables:
    frame = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row", strict=False)
    return accepted_tables(frame.with_columns(event=pl.lit("click")), None, items, SETTINGS)


def event(name: str, user: str, item: str, at: int = START, kind: str = "click", value: float | None = None) -> Event:
    return Event(name, user, item, kind, at, value)


def histories(tables: Tables) -> dict[str, list[tuple[str, int, float]]]:
    """Return item, time and weight of everything that each user did, in order."""
    dataset = RecommendationDataset.from_clean(tables, SETTINGS)
    found = {}
    for code, user in enumerate(dataset.user_ids.ids.to_list()):
        state = state_of(dataset.interactions, code, 0)
        items = [str(dataset.item_ids[item]) for item in state.item_codes.tolist()]
        found[str(user)] = list(zip(items, state.timestamps.tolist(), state.weights.tolist(), strict=True))
    return found


USERS, ITEMS = ("1", "2", "3"), ("10", "11", "12")
file_rows = st.tuples(st.integers(1, 2), st.integers(10, 12), st.integers(0, 6).map(lambda half: START + half / 2))
changes: st.SearchStrategy[tuple[str, str, int, str, float | None] | str] = st.one_of(
    st.tuples(
        st.sampled_from(USERS),
        st.sampled_from(ITEMS),
        st.integers(START, START + 3),
        st.sampled_from(EVENTS),
        st.none() | st.sampled_from([1.0, 5.0]),
    ),
    st.sampled_from(USERS),
)


@settings(max_examples=60)
@given(past=st.lists(file_rows, min_size=1, max_size=12), after=st.lists(changes, max_size=15))
def test_histories_are_those_of_a_service_that_follows_the_log(
    tmp_path_factory: pytest.TempPathFactory,
    past: list[tuple[int, int, float]],
    after: list[tuple[str, str, int, str, float | None] | str],
) -> None:
    store = EventStore(f"sqlite:///{tmp_path_factory.mktemp('log') / 'events.db'}")
    written: list[Change] = [
        Erasure(each, user_hash(each))
        if isinstance(each, str)
        else Event(str(place), *each[:2], each[3], each[2], each[4])
        for place, each in enumerate(after)
    ]
    for change in written:
        store.write([change])
    rows = [*past, (99, 10, START), (99, 11, START), (99, 12, START)]  # every item is known
    base = RecommendationDataset.from_clean(files(rows), SETTINGS)
    live = LiveHistories(base.interactions, base.user_ids, base.item_ids.code, settings=SETTINGS, store=store, since=0)
    live.follow(store.news(0))
    tables, mark = with_log(files(rows), store.url)
    trained = histories(tables)
    assert mark == LogMark(store.log_id, store.position())
    for user in (*USERS, "99"):
        known = live.user(user)
        items = [str(base.item_ids[item]) for item in known.item_codes.tolist()]
        followed = list(zip(items, known.timestamps.tolist(), known.weights.tolist(), strict=True))
        assert trained.get(user, []) == followed
    store.close()


def test_a_log_alone_is_training_data(store: EventStore) -> None:
    store.write(
        [event("1", "ann", "tea"), event("2", "ann", "rum", START + 5), event("3", "bob", "tea", kind="dislike")]
    )
    tables, mark = with_log(NOTHING, store.url)
    assert mark.position == 3
    assert histories(tables) == {
        "ann": [("tea", START, 1.0), ("rum", START + 5, 1.0)], "bob": [("tea", START, -1.0)]
    }  # fmt: skip


def test_events_of_an_unknown_type_are_no_training_data(store: EventStore) -> None:
    store.write([event("a", "1", "10"), event("b", "1", "11", kind="long_look"), event("c", "1", "12")])
    tables, _ = with_log(NOTHING, store.url)
    assert tables.interactions["item_id"].to_list() == [10, 12]


def test_rows_that_were_ingested_as_well_count_once(store: EventStore) -> None:
    rows: list[tuple[object, object, float]] = [(1, 10, START), (1, 11, START + 0.5), (2, 10, START)]
    frame = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row").with_columns(event=pl.lit("click"))
    ingested = log_rows(clean_events(frame, SETTINGS, START).frame)
    store.write([Event(**row) for row in ingested.to_dicts()])
    store.write([event("new", "1", "10", START + 9)])
    assert len(with_log(files(rows), store.url)[0].interactions) == 4
    assert len(with_log(NOTHING, store.url)[0].interactions) == 4


def test_erased_users_are_in_no_table(store: EventStore) -> None:
    store.write([event("1", "7", "10"), Erasure("7", user_hash(7)), Erasure("8", user_hash(8)), event("2", "8", "10")])
    users = pl.DataFrame({"user_id": [7, 8, 9], "age": [1, 2, 3]})
    rows = pl.DataFrame({"user_id": [7, 8, 9], "item_id": [10, 10, 10], "timestamp": [START] * 3})
    tables, _ = with_log(accepted_tables(rows, users, None, SETTINGS), store.url)
    assert tables.users.rows() == [(9, 3)]
    assert sorted(tables.interactions["user_id"].to_list()) == [8, 9]  # what 8 did afterwards


def test_items_are_as_they_were_last_sent(store: EventStore) -> None:
    table = pl.DataFrame(
        {"item_id": [1, 2, 3], "title": ["A", "B", "C"], "price": [1.5, 2.5, 3.5], "brand": ["x", "y", "z"]}
    )
    about = {"title": "New B", "description": None, "categories": ["Tea"], "price": 4}
    store.write(
        [
            ItemChange("2", "visible", json.dumps(about)),
            ItemChange("3", "deleted", "{}"),
            ItemChange("4", "hidden", json.dumps({"title": "D", "price": 7, "colour": "red"})),
            event("1", "ann", "4"),
        ]
    )
    items = with_log(files([(1, 1, START)], table), store.url)[0].items.sort("item_id")
    assert items.select("item_id", "title", "price", "brand", "colour").rows() == [
        (1, "A", 1.5, "x", None), (2, "New B", 4.0, None, None), (3, "C", 3.5, "z", None), (4, "D", 7.0, None, "red"),
    ]  # fmt: skip
    assert items["categories"].to_list()[1] == ["Tea"]


def test_with_a_table_of_items_only_known_items_count(store: EventStore) -> None:
    table = pl.DataFrame({"item_id": [1]})
    store.write(
        [ItemChange("3", "visible", "{}"), *(event(item, "7", item) for item in ("1", "2", "3", "no such item"))]
    )
    tables, _ = with_log(files([(1, 2, START)], table), store.url)
    assert tables.interactions.filter(user_id=7)["item_id"].to_list() == [1, 2, 3]
    assert len(with_log(files([(1, 2, START)]), store.url)[0].interactions) == 5


def test_a_long_log_is_read_in_stretches(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rec_engine.data.log_frames.STRETCH", 7)
    monkeypatch.setattr("rec_engine.data.log_tables.STRETCH", 7)
    store.write([event(str(place), "ann", str(place)) for place in range(50)])
    items = with_log(NOTHING, store.url)[0].interactions["item_id"].to_list()
    assert items == list(range(50))


def test_an_empty_log_adds_nothing_and_none_is_an_error(store: EventStore, tmp_path: Path) -> None:
    tables, mark = with_log(files([(1, 2, START)]), store.url)
    assert (len(tables.interactions), mark.position) == (1, 0)
    with pytest.raises(DataError, match="no event store"):
        with_log(NOTHING, f"sqlite:///{tmp_path / 'gone.db'}")


def test_a_log_of_an_earlier_release_is_said_to_be_one_and_to_migrate_gives_it_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    store = EventStore(f"sqlite:///{path}")
    store.write([event("1", "ann", "5")])
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE log_identity")
        connection.execute("DROP TABLE log_revision")
    with pytest.raises(DataError, match="earlier release"):
        with_log(NOTHING, store.url)
    migrate(store.url)
    assert with_log(NOTHING, store.url)[0].interactions["item_id"].to_list() == [5]
