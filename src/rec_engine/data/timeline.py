"""When each item was met: statistics as of any moment, so that no feature can know its own future."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray, Interactions, LongArray
from rec_engine.data.interactions import counted, offsets
from rec_engine.data.kernels import pasts_at, places_at
from rec_engine.data.scratch import empty_beside, row_blocks

SECONDS_A_DAY, SECONDS_AN_HOUR = 86_400, 3_600
DAYS_AT_HAND = 8


@dataclass(frozen=True, slots=True)
class Past:
    """What had happened to some items at a moment.

    Attributes:
        counts: (n_moments, n) float32, how often each item was met before that moment and before earlier ones.
        days_since_first: (n,) float32 days from the first time an item was met, nan where it was not met before.
        days_since_last: (n,) float32, from the last time, likewise.
    """

    counts: FloatArray
    days_since_first: FloatArray
    days_since_last: FloatArray


class Timeline:
    """The positive interactions of every item in time order.

    A moment after the last interaction counts as just after it: of what came later nothing is known here.

    Args:
        interactions: what is known.
        n_items: size of the catalogue.
        until: Unix seconds up to which it is known that nothing else happened.
    """

    def __init__(self, interactions: Interactions, n_items: int, until: int | None = None) -> None:
        past = interactions.positive()
        self._fill(past.item_codes, past.timestamps, n_items, until or 0)

    def then(self, item_codes: IntArray, timestamps: LongArray) -> "Timeline":
        """Return the timeline after these items (n,) were met as well, at these Unix seconds (n,), in any order."""
        known = np.repeat(np.arange(self.n_items), np.diff(self._starts))
        times = self._keys - known * self._span + self.begin
        longer = Timeline.__new__(Timeline)
        both = np.concatenate([known, item_codes]), np.concatenate([times, timestamps])
        Timeline._fill(longer, *both, self.n_items, self.end)
        return longer

    def _fill(self, items: IntArray | LongArray, times: LongArray, n_items: int, until: int) -> None:
        self.n_items = n_items
        self.begin = int(times.min()) if len(times) else 0
        self.end = max(int(times.max(initial=0)) + 1, until)
        self._span = self.end - self.begin + 1
        # One ascending row of (item, time) keys answers every question by binary search.
        self._keys = empty_beside(times, len(times), np.int64)
        for rows in row_blocks(len(times)):
            self._keys[rows] = items[rows].astype(np.int64) * self._span + (times[rows] - self.begin)
        self._keys.sort()
        self._starts = offsets(counted(items, n_items))
        self._counts_of_day = lru_cache(maxsize=DAYS_AT_HAND)(self._recent_counts)

    def counts(self, item_codes: IntArray, moment: int) -> FloatArray:
        """Return (n,) float32: how often each item was met before `moment` (Unix seconds)."""
        counts: FloatArray = (self._places(item_codes, [moment])[0] - self._starts[item_codes]).astype(np.float32)
        return counts

    def counts_between(self, item_codes: IntArray, begin: int, end: int) -> LongArray:
        """Return (n,) int64: how often each item was met from `begin` to before `end` (Unix seconds)."""
        before, after = self._places(item_codes, [begin, end])
        between: LongArray = after - before
        return between

    def counts_by_hour(self, first: int, n: int) -> LongArray:
        """Return (n,) int64: how often anything was met in each hour from `first` on (Unix seconds // 3600)."""
        counts = np.zeros(n, dtype=np.int64)
        for rows in row_blocks(len(self._keys)):
            hours = (self._keys[rows] % self._span + self.begin) // SECONDS_AN_HOUR - first
            counts += np.bincount(hours[(hours >= 0) & (hours < n)], minlength=n)
        return counts

    def past(self, item_codes: IntArray, moment: int, days_before: Sequence[int] = ()) -> Past:
        """Return what had happened to items (n,) before `moment` (Unix seconds), and so many days before that."""
        moments = self._all_within([moment, *(moment - days * SECONDS_A_DAY for days in days_before)])
        found = pasts_at(self._keys, self._starts, item_codes, moments, self._span, SECONDS_A_DAY)
        return Past(found[: len(moments)], found[-2], found[-1])

    def recent_counts(self, moment: int, days: int) -> FloatArray:
        """Return (n_items,) float32: how often each item was met in the `days` before the day of `moment`."""
        return self._counts_of_day(self._within(moment) // SECONDS_A_DAY * SECONDS_A_DAY + self.begin, days)

    def counts_within(self, moment: int, seconds: int) -> FloatArray:
        """Return (n_items,) float32: how often each item was met in the `seconds` before `moment`."""
        items = np.arange(self.n_items, dtype=np.int32)
        return self.counts(items, moment) - self.counts(items, moment - seconds)

    def _places(self, item_codes: IntArray, moments: Sequence[int]) -> LongArray:
        return places_at(self._keys, self._starts, item_codes, self._all_within(moments), self._span)

    def _all_within(self, moments: Sequence[int]) -> LongArray:
        return np.array([self._within(moment) for moment in moments], dtype=np.int64)

    def _within(self, moment: int) -> int:
        return min(max(moment, self.begin), self.end) - self.begin

    def _recent_counts(self, moment: int, days: int) -> FloatArray:
        items = np.arange(self.n_items, dtype=np.int32)
        return self.counts(items, moment) - self.counts(items, moment - days * SECONDS_A_DAY)
