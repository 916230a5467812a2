"""How often items were looked at lately, and how often one is taken for each look: the click-through rate of the past.

What is taken often may have been shown often, and what is shown often may never be taken: only both together tell how
attractive an item is. Hours count as a whole, from the end of the last one that is an hour ago back to 30 days before
it, though not to before the first showing that is known of: as of any moment later, what they held is the same.

References:
    Chapelle and Zhang, A dynamic Bayesian network click model for web search ranking, WWW 2009: a click beside what was
    looked at, not beside what was shown.
"""

from functools import cached_property

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray, LongArray
from rec_engine.data.interactions import counted, offsets
from rec_engine.data.item_looks import WINDOW_HOURS, ItemLooks
from rec_engine.data.kernels import places_at
from rec_engine.data.showings import SETTLING_SECONDS
from rec_engine.data.timeline import Timeline

PRIOR_LOOKS = 5.0
"""Looks of an item with the mean rate that each item is taken to have had before: so few looks claim little."""
PRIOR_TAKES, PRIOR_ALL_LOOKS = 1.0, 4.0
"""The same of all items together, of which one look in four led to something: no log begins with a rate of 0."""

Window = tuple[int, int]
"""First hour, and the one after the last."""


class TakeRates:
    """Answers as of any moment, for whole hours that had passed an hour before.

    Where nothing else is known than up to a moment, the window ends there: of what was shown later it is not known
    whether it was taken.

    Args:
        looks: at items, one row at least.
        timeline: when they were taken.
    """

    def __init__(self, looks: ItemLooks, timeline: Timeline) -> None:
        self._timeline = timeline
        self._first_hour = int(looks.hours.min())
        self._n_hours = looks.last_hour + 1 - self._first_hour
        self._keys = looks.item_codes.astype(np.int64) * (self._n_hours + 1) + (looks.hours - self._first_hour)
        self._starts = offsets(counted(looks.item_codes, timeline.n_items))
        self._looks_before = np.concatenate([[0.0], np.cumsum(looks.looks)])
        by_hour = np.bincount(looks.hours - self._first_hour, looks.looks, minlength=self._n_hours)
        self._all_looks_before = np.concatenate([[0.0], np.cumsum(by_hour)])
        self._at_hand: tuple[Window, FloatArray] | None = None

    def set(self, item_codes: IntArray, now: int, columns: FloatArray) -> None:
        """Set two columns (2, n) float32 to what is known of items (n,) at `now` (Unix seconds).

        With the looks at an item, how often it was taken, and the mean m = (takes + 1) / (looks + 4) of all items:
        log(1 + looks), and log(((takes + 5 m) / (looks + 5)) / m), which is 0 for an item of which nothing is known.
        Where nobody looked at anything both are 0 for all items: trees that were fitted without a gap would read one as
        0 anyway, and a column of one value costs them nothing.
        """
        window, at_hand = self._window(now), self._at_hand
        if at_hand is not None and at_hand[0] == window:
            columns[:] = at_hand[1].take(item_codes, axis=0).T
        else:
            self._work_out(item_codes, window, columns)

    def make_ready(self, now: int) -> None:
        """Work out what is known of all items, for requests of the same hour as `now` to find at hand."""
        table, window = np.empty((self._timeline.n_items, 2), dtype=np.float32), self._window(now)
        self._work_out(np.arange(self._timeline.n_items, dtype=np.int32), window, table.T)
        self._at_hand = window, table

    def _window(self, now: int) -> Window:
        end = min(now - SETTLING_SECONDS, self._timeline.end) // SETTLING_SECONDS
        return max(end - WINDOW_HOURS, self._first_hour), end

    def _work_out(self, item_codes: IntArray, window: Window, columns: FloatArray) -> None:
        begin, end = (min(max(hour - self._first_hour, 0), self._n_hours) for hour in window)
        all_looks = self._all_looks_before[end] - self._all_looks_before[begin]
        if not all_looks > 0:
            columns[:] = 0
            return
        takes_before = [self._takes_before[hour - self._first_hour] for hour in window]
        all_takes = takes_before[1] - takes_before[0]
        mean = (all_takes + PRIOR_TAKES) / (all_looks + PRIOR_ALL_LOOKS)
        moments = np.array([begin, end], dtype=np.int64)
        first, last = places_at(self._keys, self._starts, item_codes, moments, self._n_hours + 1)
        looks = self._looks_before[last] - self._looks_before[first]
        takes = self._timeline.counts_between(item_codes, *(hour * SETTLING_SECONDS for hour in window))
        columns[0] = np.log1p(looks)
        columns[1] = np.log((takes + PRIOR_LOOKS * mean) / ((looks + PRIOR_LOOKS) * mean))

    @cached_property
    def _takes_before(self) -> LongArray:
        """How often anything was taken before each hour, from the first one that is known of to a window's end."""
        return offsets(self._timeline.counts_by_hour(self._first_hour, self._n_hours + WINDOW_HOURS))
