"""What the past of one user means at one moment."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray, Interactions, LongArray
from rec_engine.data.showings import NOTHING_SHOWN, Showings

COLD = -1


@dataclass(frozen=True)
class UserState:
    """One user at one moment.

    Attributes:
        user_code: COLD for a user that was not in training.
        item_codes: (history_len,) int32, oldest first.
        weights: (history_len,) float32, negative for negative feedback.
        timestamps: (history_len,) int64, Unix seconds.
        now: Unix seconds of the request.
        shown: what he was shown; what has not settled at `now` may be missing, and does not count.
    """

    user_code: int
    item_codes: IntArray
    weights: FloatArray
    timestamps: LongArray
    now: int
    shown: Showings = NOTHING_SHOWN

    @cached_property
    def liked(self) -> IntArray:
        """The items with a positive weight, oldest first."""
        return self.item_codes[self.weights > 0]

    @property
    def disliked(self) -> IntArray:
        """The items with a negative weight, oldest first."""
        return self.item_codes[self.weights < 0]

    @cached_property
    def liked_at(self) -> LongArray:
        """(len(liked),) int64, Unix seconds of the items with a positive weight."""
        return self.timestamps[self.weights > 0]

    def then(self, item_codes: IntArray) -> "UserState":
        """Return the state after the user met these items as well, just now."""
        n = len(item_codes)
        if not n:
            return self
        return replace(
            self,
            item_codes=np.concatenate([self.item_codes, item_codes]),
            weights=np.concatenate([self.weights, np.ones(n, dtype=np.float32)]),
            timestamps=np.concatenate([self.timestamps, np.full(n, self.now, dtype=np.int64)]),
        )


def state_of(interactions: Interactions, user_code: int, now: int, shown: Showings = NOTHING_SHOWN) -> UserState:
    """Return the state of a user after all his interactions, asking at `now`; one without history for COLD."""
    rows = slice(0, 0)
    if user_code != COLD:
        rows = slice(interactions.starts[user_code], interactions.starts[user_code + 1])
    return UserState(
        user_code=user_code,
        item_codes=interactions.item_codes[rows],
        weights=interactions.weights[rows],
        timestamps=interactions.timestamps[rows],
        now=now,
        shown=shown,
    )


def state_before(interactions: Interactions, user_code: int, now: int, shown: Showings = NOTHING_SHOWN) -> UserState:
    """Return the state of a user who asks at `now` (Unix seconds): nothing from then on is part of it."""
    whole = state_of(interactions, user_code, now, shown)
    n = int(np.searchsorted(whole.timestamps, now))
    return replace(whole, item_codes=whole.item_codes[:n], weights=whole.weights[:n], timestamps=whole.timestamps[:n])
