"""What the past means at one moment: a user's state and the items' statistics."""

from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray, Interactions, LongArray

COLD = -1
RECENT_DAYS = 30
SECONDS_A_DAY = 86_400


@dataclass(frozen=True, slots=True)
class UserState:
    """One user at one moment.

    Attributes:
        user_code: COLD for a user that was not in training.
        item_codes: (history_len,) int32, oldest first.
        weights: (history_len,) float32, negative for negative feedback.
    """

    user_code: int
    item_codes: IntArray
    weights: FloatArray

    @property
    def liked(self) -> IntArray:
        """The items with a positive weight, oldest first."""
        return self.item_codes[self.weights > 0]

    def then(self, item_codes: IntArray) -> "UserState":
        """Return the state after the user met these items as well."""
        return UserState(
            user_code=self.user_code,
            item_codes=np.concatenate([self.item_codes, item_codes]),
            weights=np.concatenate([self.weights, np.ones(len(item_codes), dtype=np.float32)]),
        )


def state_of(interactions: Interactions, user_code: int) -> UserState:
    """Return the state of a user after all his interactions; an empty one for COLD."""
    if user_code == COLD:
        return UserState(COLD, np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32))
    rows = slice(interactions.starts[user_code], interactions.starts[user_code + 1])
    return UserState(user_code, interactions.item_codes[rows], interactions.weights[rows])


@dataclass(frozen=True, slots=True)
class ItemStats:
    """Statistics of the items as of a cut-off: nothing at or after it is counted.

    Attributes:
        cut_off: Unix seconds.
        n_users: (n_items,) float32, distinct users with a positive interaction.
        n_recent: (n_items,) float32, positive interactions in the last RECENT_DAYS before the cut-off.
        first_seen: (n_items,) int64, Unix seconds of the first interaction; the cut-off where there is none.
        last_seen: (n_items,) int64, of the last one.
    """

    cut_off: int
    n_users: FloatArray
    n_recent: FloatArray
    first_seen: LongArray
    last_seen: LongArray


def item_stats(interactions: Interactions, n_items: int, cut_off: int) -> ItemStats:
    """Return the statistics of the positive interactions before `cut_off` (Unix seconds)."""
    past = interactions.where((interactions.weights > 0) & (interactions.timestamps < cut_off))
    pairs = np.unique(past.user_codes.astype(np.int64) * n_items + past.item_codes)
    is_recent = past.timestamps >= cut_off - RECENT_DAYS * SECONDS_A_DAY
    first_seen = np.full(n_items, cut_off, dtype=np.int64)
    last_seen = np.full(n_items, np.iinfo(np.int64).min, dtype=np.int64)
    np.minimum.at(first_seen, past.item_codes, past.timestamps)
    np.maximum.at(last_seen, past.item_codes, past.timestamps)
    return ItemStats(
        cut_off=cut_off,
        n_users=np.bincount(pairs % n_items, minlength=n_items).astype(np.float32),
        n_recent=np.bincount(past.item_codes[is_recent], minlength=n_items).astype(np.float32),
        first_seen=first_seen,
        last_seen=np.where(last_seen < first_seen, cut_off, last_seen),
    )
