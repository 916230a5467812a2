"""How often people looked at each item when it was shown, hour by hour: what the features know of items as a whole.

A showing counts as `showings` has it, once for a user, an item and an hour by the clock; of the users nothing is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import IntArray
from rec_engine.data.showings import SETTLING_SECONDS, ShowingLog

WINDOW_HOURS = 30 * 24
"""What was shown longer ago says nothing of how an item does lately."""
LATE_HOURS = 24
"""How far from the order of time the log may be."""
KEPT_HOURS = WINDOW_HOURS + LATE_HOURS
"""Of the latest, what is kept for answers that come later."""
MAX_ROWS = 5_000_000
"""Of the latest hours, what is kept at most: 80 MB."""


@dataclass(frozen=True, slots=True)
class ItemLooks:
    """Looks at items, one row an item and hour, by (item, hour).

    Attributes:
        item_codes: (n,) int32.
        hours: (n,) int32, Unix seconds // SETTLING_SECONDS.
        looks: (n,) float64, the `looks` of all showings of that item in that hour; sums of as many float32 numbers as
            there may be are as good as exact, in whatever order they were added up.
    """

    item_codes: IntArray
    hours: IntArray
    looks: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.item_codes)

    @classmethod
    def summed(cls, item_codes: IntArray, hours: NDArray[np.integer], looks: NDArray[np.floating]) -> "ItemLooks":
        """Return the rows of looks (n,) at items (n,) in hours (n,), in any order."""
        order = np.lexsort((hours, item_codes))
        items, hours = item_codes[order], hours[order]
        is_first = np.ones(len(order), dtype=np.bool_)
        is_first[1:] = (items[1:] != items[:-1]) | (hours[1:] != hours[:-1])
        firsts = np.flatnonzero(is_first)
        sums = np.add.reduceat(looks[order].astype(np.float64), firsts) if len(firsts) else np.empty(0)
        return cls(items[firsts], hours[firsts].astype(np.int32), sums)

    @classmethod
    def of(cls, shown: ShowingLog) -> "ItemLooks":
        """Return the looks of a whole log."""
        return cls.summed(shown.item_codes, shown.timestamps // SETTLING_SECONDS, shown.looks)

    @classmethod
    def joined(cls, parts: Sequence["ItemLooks"]) -> "ItemLooks":
        """Return the looks of all parts together."""
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__)
        return cls.summed(*columns)

    @property
    def last_hour(self) -> int:
        """The latest hour of which anything is known; 0 where nothing is."""
        return int(self.hours.max(initial=0))

    def between(self, begin: int, end: int) -> "ItemLooks":
        """Return the rows of the hours from `begin` to before `end`."""
        kept = (self.hours >= begin) & (self.hours < end)
        return ItemLooks(self.item_codes[kept], self.hours[kept], self.looks[kept])

    def recent(self, hour: int) -> "ItemLooks":
        """Return what answers after an hour go by, MAX_ROWS at most; what is a day later was shown by a wrong clock."""
        begin, end = min(hour, self.last_hour) - KEPT_HOURS, hour + LATE_HOURS + 1
        if len(self) > MAX_ROWS:
            place = len(self) - MAX_ROWS - 1
            begin = max(begin, int(np.partition(self.hours, place)[place]) + 1)
        return self.between(begin, end)

    def fits(self, n_items: int) -> bool:
        """Return whether these are rows of a catalogue of so many items: compiled loops trust their codes."""
        are_codes = self.item_codes.min(initial=0) >= 0 and self.item_codes.max(initial=-1) < n_items
        return bool(are_codes) and len(self.item_codes) == len(self.hours) == len(self.looks)

    def save(self, directory: Path) -> None:
        """Write the columns into a new directory."""
        directory.mkdir()
        for name in ItemLooks.__slots__:
            np.save(directory / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, directory: Path) -> "ItemLooks":
        """Return what `save` wrote."""
        return cls(**{name: np.load(directory / f"{name}.npy") for name in cls.__slots__})


NO_LOOKS = ItemLooks(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float64))
