"""How often people looked at each item, as of now: what the model was trained with, and what the log has since."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import BoolArray, IntArray, LongArray
from rec_engine.data.event_queries import LATEST_PLACE, SHOWN_AFTER
from rec_engine.data.events import EventStore, Row
from rec_engine.data.item_looks import KEPT_HOURS, LATE_HOURS, NO_LOOKS, ItemLooks
from rec_engine.data.showings import SETTLING_SECONDS, first_of_hour, looks_at
from rec_engine.data.shown_rows import placed
from rec_engine.retrieval.catalogue import Catalogue

ANSWERS_AT_ONCE = 1_000
MAX_ANSWERS = 1_000_000
"""The latest answers that are read at the start, in half a minute. Where there are more since the training, nothing
earlier counts: looks that are missing in between would make what was taken then look well."""
MAX_OPEN = 3_000_000
"""Showings of hours that are not over, of which each is kept so that none counts twice: 84 MB."""
MAX_UNKNOWN = 10_000
"""Latest showings of items that nobody knows yet: another worker may have been told of them before."""
LATE_ANSWERS = 200
"""Places before the last one that are read once more: where two workers write at once, the later one may be first."""

Showing = tuple[str, str, int, int]
"""User, item id, position and Unix seconds."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """Showings in the order of the log, (n,) each: a number that stands for the user, what he was shown, and when."""

    users: LongArray
    item_codes: IntArray
    positions: IntArray
    timestamps: LongArray

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def first_of_hours(cls, parts: Sequence["_Shown"]) -> "_Shown":
        """Return of all parts those that count; of two of the same moment it is the later one, as in training."""
        whole = cls(*(np.concatenate([getattr(part, name) for part in parts])[::-1] for name in cls.__slots__))
        kept = whole.where(first_of_hour(whole.users, whole.item_codes, whole.timestamps))
        return cls(*(getattr(kept, name)[::-1] for name in cls.__slots__))

    def where(self, kept: BoolArray) -> "_Shown":
        """Return the rows where `kept` (n,) is true."""
        return _Shown(*(getattr(self, name)[kept] for name in self.__slots__))

    def looks(self) -> ItemLooks:
        """Return how often people looked at the items."""
        return ItemLooks.summed(self.item_codes, self.timestamps // SETTLING_SECONDS, looks_at(self.positions))


_NO_CODES: IntArray = np.empty(0, dtype=np.int32)
_NO_NUMBERS: LongArray = np.empty(0, dtype=np.int64)
_NOTHING = _Shown(_NO_NUMBERS, _NO_CODES, _NO_CODES, _NO_NUMBERS)


class LiveLooks:
    """Looks as the log has them.

    Hours of which the training may have missed something, the last two that it knew, are counted from the log alone.
    Answers whose places an erasure or the removal of old answers has freed may be missed, and LATE_ANSWERS count twice
    after a clock was wrong by more than a day.

    Args:
        trained: what the model was trained with.
        catalogue: the items as they are now.
        store: the log.
        is_own_log: whether the model was trained with this log; all of another one counts on top.
    """

    def __init__(self, trained: ItemLooks, catalogue: Catalogue, store: EventStore, *, is_own_log: bool) -> None:
        self._catalogue, self._store = catalogue, store
        self._begin = trained.last_hour - 1 if is_own_log and len(trained) else 0
        self._closed = trained.between(0, self._begin) if self._begin else trained
        self._open = [_NOTHING]
        self._unknown: deque[Showing] = deque(maxlen=MAX_UNKNOWN)
        self._n_items = catalogue.n_items
        self._place: int | None = None
        self._last_hour = self._counted_hour = 0
        self._open_from = self._begin
        self._has_changed = self._has_more = False
        self.looks = trained

    def follow(self) -> bool:
        """Return whether there was anything new to read; it is read a piece at a time.

        Raises:
            StoreError: if the log cannot be read.
        """
        latest = self._latest_place()
        known = self._first_place(latest) if self._place is None else min(self._place, latest)
        self._place = known
        if latest == known:
            return False
        asked = {"after": max(0, known - LATE_ANSWERS), "n": ANSWERS_AT_ONCE + LATE_ANSWERS}
        rows = self._store.read(SHOWN_AFTER, asked)
        if not rows:
            return False
        dated = [row for row in rows if isinstance(row[2], int)]  # SQLite keeps what is none, if somebody writes it
        if dated:
            self._pass_on(dated[-1][2] // SETTLING_SECONDS)
        self._take(list(self._wanted(dated, known)))
        self._place = max(known, rows[-1][0])
        return self._place > known

    def count(self) -> bool:
        """Return whether `looks` has changed since the last call, as it does once an hour has passed.

        That is an hour of the log, or where nobody comes any more, of the clock.
        """
        self._take_what_waited()
        is_over = self._has_more and time.time() // SETTLING_SECONDS > self._last_hour
        if self._last_hour != self._counted_hour or is_over:
            self._count()
        has_changed, self._has_changed = self._has_changed, False
        return has_changed

    def _latest_place(self) -> int:
        return int(self._store.read(LATEST_PLACE)[0][0])

    def _first_place(self, latest: int) -> int:
        """Return a place after which all answers are that count here, by halving: they are in the order of time."""
        found = self._store.read(SHOWN_AFTER, {"after": latest - 1, "n": 1})
        if not found:
            return latest
        begin = max(self._begin, _hour(found[0]) - KEPT_HOURS)
        low, high = 0, latest
        while low < high:
            middle = (low + high) // 2
            row = self._store.read(SHOWN_AFTER, {"after": middle, "n": 1})
            if row and _hour(row[0]) < begin - 1:  # an hour more, for those that came late
                low = row[0][0]
            else:
                high = middle
        if low < latest - MAX_ANSWERS:
            self._closed = NO_LOOKS
        return max(low, latest - MAX_ANSWERS)

    def _pass_on(self, hour: int) -> None:
        """Take note of the hour of the latest answer; one that is a day earlier tells that a clock was wrong before."""
        is_back = self._last_hour - hour > LATE_HOURS
        self._last_hour = hour if is_back else max(self._last_hour, hour)

    def _wanted(self, rows: Sequence[Row], known: int) -> Iterator[Showing]:
        """Yield what answers showed: those up to a known place only of hours that are not over."""
        for place, user_id, timestamp, shown in rows:
            if timestamp // SETTLING_SECONDS >= (self._begin if place > known else self._open_from):
                for item_id, position in placed(shown):
                    yield user_id, str(item_id), position, timestamp

    def _take(self, showings: Sequence[Showing]) -> None:
        if not showings:
            return
        users, item_ids, positions, timestamps = zip(*showings, strict=True)
        codes = self._catalogue.codes_of_many(item_ids)
        self._unknown.extend(showings[place] for place in np.flatnonzero(codes < 0).tolist())
        numbers = np.array([hash(user) & (2**63 - 1) for user in users], dtype=np.int64)
        places, moments = np.array(positions, dtype=np.int32), np.array(timestamps, dtype=np.int64)
        self._open.append(_Shown(numbers, codes, places, moments))
        self._has_more = True
        if sum(map(len, self._open)) > MAX_OPEN:
            self._count()

    def _count(self) -> None:
        """Count what is known of all hours, and keep of those that are not over what is needed to count them again."""
        shown = _Shown.first_of_hours(self._open)
        self._counted_hour, self._has_changed, self._has_more = self._last_hour, True, False
        self._open_from = max(self._begin, self._counted_hour - 1)
        is_open = shown.timestamps // SETTLING_SECONDS >= self._open_from
        if is_open.sum() > MAX_OPEN // 2:  # there is no room to count them again
            is_open[:], self._open_from = False, self._counted_hour + 1
        still_open = shown.where(is_open)
        self._closed = ItemLooks.joined([self._closed, shown.where(~is_open).looks()]).recent(self._counted_hour)
        self._open = [still_open]
        self.looks = ItemLooks.joined([self._closed, still_open.looks()])

    def _take_what_waited(self) -> None:
        if self._catalogue.n_items != self._n_items:
            self._n_items = self._catalogue.n_items
            waited = list(self._unknown)
            self._unknown.clear()
            self._take(waited)


def _hour(row: Row) -> int:
    """Return the hour of an answer; the first of all where its time is no number."""
    return row[2] // SETTLING_SECONDS if isinstance(row[2], int) else 0
