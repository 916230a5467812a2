"""What users were shown: once an hour for each item, an hour later, and the same to training and to the service."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.data import live_showings
from rec_engine.data.dataset import IdMap
from rec_engine.data.events import Erasure, EventStore, Impression, user_hash
from rec_engine.data.live_showings import COMPLETE_SECONDS, LiveShowings
from rec_engine.data.showing_log import load_showings
from rec_engine.data.showings import KEPT_SECONDS, NO_SHOWINGS, SETTLING_SECONDS, ShowingLog, Showings, looks_at
from rec_engine.errors import StoreError

NOW = 1_700_000_000
HOUR = SETTLING_SECONDS
IMPRESSIONS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-1, 4), st.integers(1, 10), st.integers(0, 6 * HOUR)), max_size=40
)
"""User, item, position, seconds before NOW."""
ITEM_IDS = IdMap(pl.Series("item_id", range(10)))
USER_IDS = IdMap(pl.Series("user_id", ["ann", "bob"]))


def plain(impressions: list[tuple[int, int, int, int]], user: int) -> list[tuple[int, float, int]]:
    """Return item, looks and moment of what counts as shown to a user, as the definition says."""
    found, hours = list[tuple[int, float, int]](), set[tuple[int, int]]()
    for of, item, position, seconds in sorted(impressions, key=lambda each: -each[3]):
        hour = item, (NOW - seconds) // HOUR
        if of == user and item >= 0 and hour not in hours:
            hours.add(hour)
            found.append((item, 1 / position**0.5, NOW - seconds))
    return found


def rows(showings: Showings) -> list[tuple[int, float, int]]:
    return list(zip(showings.item_codes.tolist(), showings.looks.tolist(), showings.timestamps.tolist(), strict=True))


def columns(impressions: list[tuple[int, int, int, int]]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "item": pl.Int32, "position": pl.Int32, "seconds": pl.Int64}
    return pl.DataFrame(impressions, schema=schema, orient="row").with_columns(timestamp=NOW - pl.col("seconds"))


@given(impressions=IMPRESSIONS)
def test_of_one_hour_an_item_counts_where_it_was_first_shown(impressions: list[tuple[int, int, int, int]]) -> None:
    log = ShowingLog.from_impressions(columns(impressions), n_users=3)
    for user in range(3):
        frame = columns([each for each in impressions if each[0] == user])
        items, positions, times = (frame[name].to_numpy() for name in ("item", "position", "timestamp"))
        alone = Showings.of(items, positions, times)
        assert len(alone) == len(log.of_user(user)) == len(plain(impressions, user))
        assert sorted(rows(alone)) == sorted(rows(log.of_user(user)))
        assert {(item, moment) for item, _, moment in rows(alone)} == {
            (item, moment) for item, _, moment in plain(impressions, user)
        }
        assert (np.diff(alone.timestamps) >= 0).all()


@given(impressions=IMPRESSIONS, asked=st.integers(0, 5 * HOUR))
def test_what_has_settled_does_not_depend_on_what_comes_later(
    impressions: list[tuple[int, int, int, int]], asked: int
) -> None:
    earlier = [each for each in impressions if each[3] >= asked]
    whole, part = (ShowingLog.from_impressions(columns(each), 3) for each in (impressions, earlier))
    for user in range(3):
        settled = whole.of_user(user).settled(NOW - asked)
        assert sorted(rows(settled)) == sorted(rows(part.of_user(user).settled(NOW - asked)))
        assert (settled.timestamps <= NOW - asked - HOUR).all()


def test_what_is_too_recent_and_what_is_forgotten_does_not_count() -> None:
    ages = np.array([KEPT_SECONDS + 1, KEPT_SECONDS, KEPT_SECONDS - 1, HOUR, HOUR - 1, 0])
    shown = Showings.of(np.arange(6, dtype=np.int32), np.ones(6, dtype=np.int32), NOW - ages)
    assert shown.settled(NOW).item_codes.tolist() == [2, 3]


def test_rows_of_a_log_are_chosen_and_unknown_users_were_shown_nothing() -> None:
    log = ShowingLog.from_impressions(columns([(0, 1, 1, 0), (0, 2, 4, 0), (2, 2, 1, 0)]), n_users=3)
    kept = log.where(log.item_codes == 2)
    assert [rows(kept.of_user(user)) for user in range(3)] == [[(2, 0.5, NOW)], [], [(2, 1.0, NOW)]]
    assert len(log.of_user(-1)) == len(log.of_user(3)) == len(NO_SHOWINGS.of_user(0)) == 0
    assert looks_at(np.array([1, 4, 100], dtype=np.int32)).tolist() == pytest.approx([1, 0.5, 0.1])


@dataclass(frozen=True, slots=True)
class Log:
    """A log of answers."""

    store: EventStore

    def show(self, user: str, moment: int, *items: object) -> None:
        """Write an answer: item ids, or whole rows."""
        listed = [item if isinstance(item, list) else [item, 0.5, 1.0, n] for n, item in enumerate(items, start=1)]
        self.store.write([Impression(f"{user} {moment}", user, moment, "v", json.dumps(listed), self.store.position())])

    def live(self) -> LiveShowings:
        """Return what a worker knows of it."""
        return LiveShowings(ITEM_IDS.code, self.store)


@pytest.fixture
def log(store: EventStore) -> Log:
    return Log(store)


def settled(live: LiveShowings, user: str, now: int) -> list[int]:
    return [int(item) for item in live.of_user(user, now).settled(now).item_codes]


def test_an_hour_later_it_counts_and_a_minute_later_it_does_not(log: Log) -> None:
    log.show("ann", NOW - HOUR, 3, 4)
    log.show("ann", NOW - 60, 5)
    log.show("bob", NOW - HOUR, 6)
    live = log.live()
    assert settled(live, "ann", NOW) == [3, 4]
    assert settled(live, "ann", NOW + HOUR - 61) == [3, 4]
    assert settled(live, "nobody", NOW) == []


def test_training_knows_too_what_strangers_were_shown_each_of_them_for_himself(log: Log) -> None:
    for user, moment in (("ann", NOW), ("x", NOW), ("y", NOW + 1), ("x", NOW + 2), ("x", NOW + HOUR)):
        log.show(user, moment, 3)
    shown = load_showings(log.store.url, USER_IDS, ITEM_IDS, since=NOW)
    assert len(shown) == 4
    assert rows(shown.of_user(0)) == [(3, 1.0, NOW)]
    assert rows(shown.of_user(1)) == []
    assert rows(shown.of_first(2).of_user(0)) == rows(shown.of_user(0))
    assert len(shown.of_first(2)) == 1
    strangers = [shown.of_user(code).timestamps.tolist() for code in range(2, len(shown.starts) - 1)]
    assert sorted(strangers) == [[NOW, NOW + HOUR], [NOW + 1]]


def test_what_another_worker_showed_is_there_once_it_has_settled(log: Log) -> None:
    live = log.live()
    assert settled(live, "ann", NOW) == []
    other = Log(EventStore(log.store.url))
    other.show("ann", NOW + 1, 7)
    other.store.close()
    assert settled(live, "ann", NOW + HOUR) == []
    assert settled(live, "ann", NOW + HOUR + 1) == [7]


@given(asked=st.lists(st.integers(-3 * HOUR, 3 * HOUR), max_size=12))
def test_a_user_is_read_rarely_and_always_complete(asked: list[int]) -> None:
    class Counted:
        """A store whose every minute shows another item, and that counts how often it is read."""

        n_reads = 0

        def shown_to(self, _: str, since: int, until: int, n: int) -> list[tuple[int, str]]:
            Counted.n_reads += 1
            return [
                (NOW + at, json.dumps([[at // 60 % 10, 0.5, 1.0, 1]]))
                for at in range(-4 * HOUR, at_now + 1, 60)
                if since < NOW + at <= until
            ][-n:]

    Counted.n_reads = 0
    live = LiveShowings(ITEM_IDS.code, Counted())  # type: ignore[arg-type]
    for at_now in sorted(asked):
        alone = LiveShowings(ITEM_IDS.code, Counted())  # type: ignore[arg-type]
        kept, read = (each.of_user("ann", NOW + at_now).settled(NOW + at_now) for each in (live, alone))
        assert rows(kept) == rows(read)
    assert Counted.n_reads - len(asked) <= 1 + 6 * HOUR // COMPLETE_SECONDS


def test_of_many_answers_the_latest_before_the_moment_are_read(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off-policy evaluation asks of moments of the past."""
    monkeypatch.setattr(live_showings, "MAX_ANSWERS", 2)
    for hours in range(8):
        log.show("ann", NOW - (8 - hours) * HOUR, hours)
    assert settled(log.live(), "ann", NOW) == [6, 7]
    assert settled(log.live(), "ann", NOW - 4 * HOUR) == [3]  # what was shown at the moment itself counts as read


@pytest.mark.parametrize(
    "damaged", ["null", "{", "[[]]", "[1, 2]", "[[3, 0.5, 1.0, null]]", "[[[3]]]", "[[3, 0.5, 1.0, 99999999999]]"]
)
def test_an_answer_that_is_not_written_as_such_tells_nothing_and_the_others_do(log: Log, damaged: str) -> None:
    log.show("ann", NOW - 3 * HOUR, 3)
    log.store.write([Impression("damaged", "ann", NOW - 2 * HOUR, "v", damaged, log.store.position())])
    assert settled(log.live(), "ann", NOW) == [3]


def test_users_are_let_go_where_they_take_too_much_room(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_showings, "MAX_ROWS", 5)
    for user in ("ann", "bob", "eve"):
        log.show(user, NOW - 2 * HOUR, 1, 2)
    live = log.live()
    assert [settled(live, user, NOW) for user in ("ann", "bob", "eve")] == [[1, 2]] * 3
    assert [len(live.kept(user)) for user in ("ann", "bob", "eve")] == [0, 2, 2]
    assert settled(live, "ann", NOW) == [1, 2]
    assert [len(live.kept(user)) for user in ("ann", "bob", "eve")] == [2, 0, 2]


def test_an_erased_user_was_shown_nothing(log: Log) -> None:
    live, before = log.live(), log.store.position()
    log.show("ann", NOW - HOUR, 3)
    assert settled(live, "ann", NOW) == [3]
    log.store.write([Erasure("ann", user_hash("ann"))])
    live.follow(log.store.news(before))
    assert len(live.kept("ann")) == 0
    assert settled(live, "ann", NOW) == []


def test_a_log_that_fails_is_told_and_what_was_read_stays(tmp_path: Path) -> None:
    log = Log(EventStore(f"sqlite:///{tmp_path / 'events.db'}"))
    log.show("ann", NOW - HOUR, 3)
    live = log.live()
    assert settled(live, "ann", NOW) == [3]
    (tmp_path / "events.db").rename(tmp_path / "away")
    with pytest.raises(StoreError):
        live.of_user("ann", NOW + HOUR)
    assert live.kept("ann").item_codes.tolist() == [3]
    log.store.close()


def test_training_and_the_service_see_the_same(log: Log) -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        user, moment = ("ann", "bob", "eve")[number % 3], NOW - int(rng.integers(30 * HOUR))
        log.show(user, moment - moment % 7 + number, *rng.permutation(12)[:4].tolist())  # 10 and 11 nobody knows
    log.show("ann", NOW - 2 * HOUR, *[])
    log.show("ann", NOW - 3 * HOUR - 5, ["7", 0.5, None, 11, "an arm"], [8, 0.5])  # of an interleaving; of old
    whole, live = load_showings(log.store.url, USER_IDS, ITEM_IDS, since=NOW), log.live()
    for code, user in enumerate(["ann", "bob"]):
        found = whole.of_user(code)
        assert len(found) > 40
        assert sorted(rows(found)) == sorted(rows(live.of_user(user, NOW + 60)))
    assert load_showings(log.store.url, USER_IDS, ITEM_IDS, since=NOW + 2 * KEPT_SECONDS).starts.tolist() == [0, 0, 0]
