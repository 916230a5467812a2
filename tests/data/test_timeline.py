"""Statistics as of a moment know nothing of later moments."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from worlds import START, interactions

from rec_engine.data.dataset import Interactions
from rec_engine.data.timeline import SECONDS_A_DAY, Timeline

ITEMS = np.arange(5, dtype=np.int32)
rows = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40 * SECONDS_A_DAY)), max_size=8), min_size=1, max_size=5
)


def world(log: list[list[tuple[int, int]]]) -> Interactions:
    ordered = [sorted(user, key=lambda row: row[1]) for user in log]
    made = interactions([[item for item, _ in user] for user in ordered])
    times = np.array([START + time for user in ordered for _, time in user], dtype=np.int64)
    return Interactions(made.item_codes, times, made.events, made.values, made.weights, made.starts)


@given(rows, st.integers(-SECONDS_A_DAY, 60 * SECONDS_A_DAY))
def test_every_statistic_is_that_of_the_log_cut_at_the_moment(log: list[list[tuple[int, int]]], offset: int) -> None:
    known, moment = world(log), START + offset
    timeline = Timeline(known, 5)
    # Nothing is known of what comes after the last interaction: it counts as just after it.
    clamped = min(moment, int(known.timestamps.max(initial=START)) + 1)
    for item in ITEMS:
        times = known.timestamps[(known.item_codes == item) & (known.timestamps < moment)]
        assert timeline.counts(ITEMS, moment)[item] == len(times)
        past = timeline.past(ITEMS, moment, (7,))
        first, last = past.days_since_first[item], past.days_since_last[item]
        week_before = times[times < moment - 7 * SECONDS_A_DAY]
        assert past.counts[:, item].tolist() == [len(times), len(week_before)]
        if len(times):
            assert np.isclose(first, (clamped - times.min()) / SECONDS_A_DAY)
            assert np.isclose(last, (clamped - times.max()) / SECONDS_A_DAY)
        else:
            assert np.isnan([first, last]).all()


@given(rows, st.integers(0, 60 * SECONDS_A_DAY), st.integers(1, 30))
def test_recent_counts_are_never_of_the_future(log: list[list[tuple[int, int]]], offset: int, days: int) -> None:
    known, moment = world(log), START + offset
    counts = Timeline(known, 5).recent_counts(moment, days)
    past = known.item_codes[known.timestamps < moment]
    assert (counts <= np.bincount(past, minlength=5)).all()
    assert (counts >= 0).all()


def test_recent_counts_are_those_of_the_days_before_the_day() -> None:
    log = world([[(0, 0), (1, 3 * SECONDS_A_DAY), (2, 9 * SECONDS_A_DAY), (2, 20 * SECONDS_A_DAY)]])
    counts = Timeline(log, 5).recent_counts(START + 10 * SECONDS_A_DAY + 5, days=7)
    assert counts.tolist() == [0, 1, 1, 0, 0]


def test_negative_feedback_is_not_popularity() -> None:
    log = interactions([[0, 1]], [[1, -1]])
    assert Timeline(log, 2).counts(np.array([0, 1], dtype=np.int32), START + 100).tolist() == [1, 0]
