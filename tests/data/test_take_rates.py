"""How often items were looked at and taken: as its definition says, as of any moment, and nothing that came later."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from plain_take_rates import HOUR, Shown, Taken, ToldRates, plain_rates

from rec_engine.data.dataset import FloatArray, Interactions
from rec_engine.data.item_looks import WINDOW_HOURS, ItemLooks
from rec_engine.data.showings import ShowingLog
from rec_engine.data.take_rates import TakeRates

NOW, N_ITEMS = 1_700_000_000, 6
AGES = st.one_of(st.integers(0, 4 * HOUR), st.integers(0, 80 * 24 * HOUR))
SHOWN = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, 9), AGES), min_size=1, max_size=30)
TAKEN = st.lists(st.tuples(st.integers(0, 4), AGES), max_size=30)


def at(ages: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return rows that end with an age in seconds with a moment instead; no two of them are of one moment."""
    moments = {NOW - age: (*rest, NOW - age) for *rest, age in ages}
    return list(moments.values())


def rates(shown: list[Shown], taken: list[Taken]) -> TakeRates | None:
    return ToldRates(shown, interactions_of(taken), N_ITEMS) if shown else None


def interactions_of(taken: list[Taken]) -> Interactions:
    items, times = np.array(sorted(taken, key=lambda each: each[1]), dtype=np.int64).reshape(-1, 2).T
    n, starts = len(taken), np.array([0, len(taken)], dtype=np.int64)
    values = np.full(n, np.nan, dtype=np.float32), np.ones(n, dtype=np.float32)
    return Interactions(items.astype(np.int32), times, np.ones(n, dtype=np.uint8), *values, starts)


def found(of: TakeRates | None, now: int) -> FloatArray:
    columns = np.zeros((2, N_ITEMS), dtype=np.float32)
    if of is not None:
        of.set(np.arange(N_ITEMS, dtype=np.int32), now, columns)
    return columns


@given(shown=SHOWN, taken=TAKEN, ago=AGES)
def test_rates_are_those_of_the_definition(
    shown: list[tuple[int, ...]], taken: list[tuple[int, ...]], ago: int
) -> None:
    was_shown: list[Shown] = [(a, b, c, d) for a, b, c, d in at(shown)]
    was_taken: list[Taken] = [(a, b) for a, b in at(taken)]
    columns = found(rates(was_shown, was_taken), NOW - ago)
    expected = np.array(plain_rates(was_shown, was_taken, NOW - ago, N_ITEMS)).T
    assert np.allclose(columns, expected, rtol=2e-6, atol=2e-6)


@given(shown=SHOWN, taken=TAKEN, ago=st.integers(0, 40 * 24 * HOUR), later=st.tuples(SHOWN, TAKEN))
def test_nothing_that_is_shown_or_taken_later_changes_a_rate(
    shown: list[tuple[int, ...]],
    taken: list[tuple[int, ...]],
    ago: int,
    later: tuple[list[tuple[int, ...]], list[tuple[int, ...]]],
) -> None:
    now = NOW - ago
    before_shown: list[Shown] = [(a, b, c, d) for a, b, c, d in at(shown) if d < now]
    before_taken: list[Taken] = [(a, b) for a, b in at(taken) if b < now] + [(0, now - 1)]
    alone = found(rates(before_shown, before_taken), now)
    then_shown: list[Shown] = [(a, b, c, now + age) for a, b, c, age in later[0]]
    then_taken: list[Taken] = [(a, now + age) for a, age in later[1]]
    both = found(rates(before_shown + then_shown, before_taken + then_taken), now)
    assert np.array_equal(alone, both)
    settled = (now - HOUR) // HOUR * HOUR
    too_new: list[Shown] = [(a, b, c, settled + age % HOUR) for a, b, c, age in shown]
    assert np.array_equal(alone, found(rates(before_shown + too_new, before_taken), now)) or not before_shown


@given(shown=SHOWN, taken=TAKEN, ago=AGES)
def test_what_is_at_hand_is_what_would_be_worked_out(
    shown: list[tuple[int, ...]], taken: list[tuple[int, ...]], ago: int
) -> None:
    was_taken: list[Taken] = [(a, b) for a, b in at(taken)]
    of = rates([(a, b, c, d) for a, b, c, d in at(shown)], was_taken)
    assert of is not None
    asked, later = found(of, NOW - ago), found(of, NOW)
    of.make_ready(NOW - ago)
    assert np.array_equal(found(of, NOW - ago), asked)
    assert np.array_equal(found(of, NOW), later)


@given(shown=SHOWN, cut=AGES)
def test_looks_of_parts_are_together_those_of_the_whole(shown: list[tuple[int, ...]], cut: int) -> None:
    frame = pl.DataFrame(at(shown), schema=["user", "item", "position", "timestamp"], orient="row")
    whole = ItemLooks.of(ShowingLog.from_impressions(frame, 3))
    hour = (NOW - cut) // HOUR
    joined = ItemLooks.joined([whole.between(hour, whole.last_hour + 1), whole.between(0, hour)])
    for name in ItemLooks.__slots__:
        assert np.array_equal(getattr(joined, name), getattr(whole, name))


def test_an_item_that_is_often_taken_because_it_is_often_shown_is_not_above_one_that_is_not() -> None:
    day = NOW // HOUR * HOUR - 24 * HOUR
    shown: list[Shown] = [(user, 0, 1, day + user * HOUR // 2) for user in range(40)]
    shown += [(user, 1, 1, day + user) for user in range(4)]
    taken: list[Taken] = [(0, day + n * HOUR // 2 + 9) for n in range(0, 40, 4)] + [(1, day + n) for n in range(3)]
    columns = found(rates(shown, [*taken, (5, NOW)]), NOW)
    assert columns[0, 0] > columns[0, 1] > columns[0, 2] == 0
    assert columns[1, 1] > 0 > columns[1, 0]
    assert columns[1, 2] == 0


def test_of_a_window_before_the_first_showing_nothing_is_claimed() -> None:
    of = rates([(0, 1, 1, NOW)], [(1, NOW - HOUR * n) for n in range(WINDOW_HOURS)])
    assert (found(of, NOW) == 0).all()
    assert (found(of, NOW - 40 * 24 * HOUR) == 0).all()
    assert (found(of, NOW + 90 * 24 * HOUR)[0] == 0).all()
