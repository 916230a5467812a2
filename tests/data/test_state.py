"""State is a pure function of the log."""

import numpy as np
from worlds import LATER, START, interactions

from rec_engine.data.state import COLD, state_of

LOG = interactions([[0, 1, 1, 2], [1, 3]], [[1, 2, 1, -1], [1, 1]])


def test_state_is_the_users_whole_history() -> None:
    state = state_of(LOG, 0, LATER)
    assert state.item_codes.tolist() == [0, 1, 1, 2]
    assert state.liked.tolist() == [0, 1, 1]
    assert state.liked_at.tolist() == [START, START + 1, START + 2]


def test_unknown_user_has_an_empty_state_that_grows_at_the_time_of_the_request() -> None:
    state = state_of(LOG, COLD, LATER).then(np.array([3, 1], dtype=np.int32))
    assert (state.user_code, state.liked.tolist()) == (COLD, [3, 1])
    assert state.liked_at.tolist() == [LATER, LATER]
    assert len(state_of(LOG, COLD, LATER).item_codes) == 0
