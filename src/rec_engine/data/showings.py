"""What users were shown, as the ranker may know of it: once an hour for each item, and not before an hour has passed.

An item that was shown often and never taken is probably not wanted, and showing it again is waste. The click that an
impression leads to nearly always comes within the hour, so that what has settled counts neither for nor against it.
Within a visit nothing changes, and what was read of a user stays complete for an hour.

References:
    Lee et al., Modeling impression discounting in large-scale recommender systems, KDD 2014.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from rec_engine.data.dataset import BoolArray, FloatArray, IntArray, LongArray

SETTLING_SECONDS = 3_600
"""How long ago an item must have been shown to count; of one hour by the clock the first time counts alone."""
KEPT_SECONDS = 90 * 86_400
"""What was shown longer ago is forgotten: people and items change."""


@dataclass(frozen=True, slots=True)
class Showings:
    """What one user was shown, each item at most once an hour.

    Attributes:
        item_codes: (n,) int32.
        looks: (n,) float32, how likely somebody looks at that position, against the first one.
        timestamps: (n,) int64, Unix seconds, ascending.
    """

    item_codes: IntArray
    looks: FloatArray
    timestamps: LongArray

    def __len__(self) -> int:
        return len(self.item_codes)

    @classmethod
    def of(cls, item_codes: IntArray, positions: IntArray, timestamps: LongArray) -> "Showings":
        """Return the showings of one user's impressions (n,) in any order; codes below 0 are left out."""
        is_first = first_of_hour(np.zeros(len(item_codes), dtype=np.int32), item_codes, timestamps)
        order = np.flatnonzero(is_first)
        order = order[np.argsort(timestamps[order], kind="stable")]
        return cls(item_codes[order], looks_at(positions[order]), timestamps[order])

    def settled(self, now: int) -> "Showings":
        """Return what counts for a request at `now` (Unix seconds)."""
        first, last = np.searchsorted(self.timestamps, (now - KEPT_SECONDS, now - SETTLING_SECONDS), side="right")
        return Showings(self.item_codes[first:last], self.looks[first:last], self.timestamps[first:last])


NOTHING_SHOWN = Showings(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class ShowingLog:
    """What everybody was shown, by (user, time).

    Attributes:
        item_codes: (n,) int32.
        looks: (n,) float32, see `Showings`.
        timestamps: (n,) int64, Unix seconds.
        starts: (n_users + 1,) int64; user u owns rows starts[u] to starts[u + 1]. Users whom the model does not know
            may come after those whom it knows.
    """

    item_codes: IntArray
    looks: FloatArray
    timestamps: LongArray
    starts: LongArray

    def __len__(self) -> int:
        return len(self.item_codes)

    @classmethod
    def from_impressions(cls, frame: pl.DataFrame, n_users: int) -> "ShowingLog":
        """Return the showings of impressions: codes of user and item, from 0 on, position and timestamp.

        There are n_users at least.
        """
        users, items = (frame[name].cast(pl.Int32).to_numpy() for name in ("user", "item"))
        timestamps = frame["timestamp"].cast(pl.Int64).to_numpy()
        order = np.flatnonzero(first_of_hour(users, items, timestamps))
        order = order[np.lexsort((timestamps[order], users[order]))]
        counts = np.bincount(users[order], minlength=n_users)
        return cls(
            items[order],
            looks_at(frame["position"].cast(pl.Int32).to_numpy()[order]),
            timestamps[order],
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def of_user(self, user_code: int) -> Showings:
        """Return what a user was shown; nothing for one of whom the log knows nothing."""
        if not 0 <= user_code < len(self.starts) - 1:
            return NOTHING_SHOWN
        rows = slice(self.starts[user_code], self.starts[user_code + 1])
        return Showings(self.item_codes[rows], self.looks[rows], self.timestamps[rows])

    def of_first(self, n_users: int) -> "ShowingLog":
        """Return what the first n_users were shown."""
        starts = self.starts[: n_users + 1]
        rows = slice(0, starts[-1])
        return ShowingLog(self.item_codes[rows], self.looks[rows], self.timestamps[rows], starts)

    def where(self, kept: BoolArray) -> "ShowingLog":
        """Return the rows where `kept` (n,) is true; the users stay the same."""
        before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        return ShowingLog(self.item_codes[kept], self.looks[kept], self.timestamps[kept], before[self.starts])


NO_SHOWINGS = ShowingLog(
    NOTHING_SHOWN.item_codes, NOTHING_SHOWN.looks, NOTHING_SHOWN.timestamps, np.zeros(1, dtype=np.int64)
)


def looks_at(positions: IntArray) -> FloatArray:
    """Return (n,) float32: how likely somebody looks at positions (from 1), as 1 / sqrt(position)."""
    looks: FloatArray = (1 / np.sqrt(np.maximum(positions, 1))).astype(np.float32)
    return looks


def first_of_hour(users: IntArray | LongArray, items: IntArray, timestamps: LongArray) -> BoolArray:
    """Return (n,) bool: which impressions of known users and items are the first of their user, item and hour."""
    is_first = np.zeros(len(items), dtype=np.bool_)
    known = np.flatnonzero((users >= 0) & (items >= 0))
    order = known[np.lexsort((timestamps[known], items[known], users[known]))]
    users, items, hours = users[order], items[order], timestamps[order] // SETTLING_SECONDS
    is_new = np.ones(len(order), dtype=np.bool_)
    is_new[1:] = (users[1:] != users[:-1]) | (items[1:] != items[:-1]) | (hours[1:] != hours[:-1])
    is_first[order[is_new]] = True
    return is_first
