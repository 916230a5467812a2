"""State is a pure function of the log."""

import numpy as np
from worlds import interactions

from rec_engine.data.dataset import Interactions
from rec_engine.data.state import COLD, RECENT_DAYS, SECONDS_A_DAY, item_stats, state_of

LOG = interactions([[0, 1, 1, 2], [1, 3]], [[1, 2, 1, -1], [1, 1]])
START = 1_600_000_000


def test_state_is_the_users_whole_history() -> None:
    state = state_of(LOG, 0)
    assert state.item_codes.tolist() == [0, 1, 1, 2]
    assert state.liked.tolist() == [0, 1, 1]


def test_unknown_user_has_an_empty_state_that_can_grow() -> None:
    state = state_of(LOG, COLD).then(np.array([3, 1], dtype=np.int32))
    assert (state.user_code, state.liked.tolist()) == (COLD, [3, 1])
    assert len(state_of(LOG, COLD).item_codes) == 0


def test_statistics_count_distinct_users_and_leave_out_negative_feedback() -> None:
    stats = item_stats(LOG, 5, cut_off=START + 100)
    assert stats.n_users.tolist() == [1, 2, 0, 1, 0]
    assert stats.n_recent.tolist() == [1, 3, 0, 1, 0]
    assert stats.first_seen.tolist() == [START, START, START + 100, START + 1, START + 100]
    assert stats.last_seen.tolist() == [START, START + 2, START + 100, START + 1, START + 100]


def test_nothing_at_or_after_the_cut_off_is_counted() -> None:
    stats = item_stats(LOG, 5, cut_off=START + 1)
    assert stats.n_users.tolist() == [1, 1, 0, 0, 0]
    assert stats.last_seen.max() <= START + 1


def test_recent_means_the_last_days_before_the_cut_off() -> None:
    old = Interactions(
        LOG.item_codes,
        LOG.timestamps - 2 * RECENT_DAYS * SECONDS_A_DAY,
        LOG.events,
        LOG.values,
        LOG.weights,
        LOG.starts,
    )
    stats = item_stats(old, 5, cut_off=START)
    assert stats.n_users.sum() == 4
    assert stats.n_recent.sum() == 0
