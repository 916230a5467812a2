"""Who did what, when, as parallel arrays; those of a past that does not fit into memory lie on disk."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rec_engine.data.scratch import BLOCK_ROWS, empty_beside, row_blocks, selected

IntArray = NDArray[np.int32]
LongArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
MaskArray = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Interactions:
    """Interactions sorted by (user, time, input order).

    The arrays are not to be changed: parts and the positive ones may be views of the same.

    Attributes:
        item_codes: (n,) int32.
        timestamps: (n,) int64, Unix seconds.
        events: (n,) uint8, places in EVENTS.
        values: (n,) float32, nan where the event has none.
        weights: (n,) float32, negative for negative feedback.
        starts: (n_users + 1,) int64; user u owns rows starts[u] to starts[u + 1].
    """

    item_codes: IntArray
    timestamps: LongArray
    events: NDArray[np.uint8]
    values: FloatArray
    weights: FloatArray
    starts: LongArray

    def __len__(self) -> int:
        return len(self.item_codes)

    @property
    def n_users(self) -> int:
        """Number of users, those without interactions included."""
        return len(self.starts) - 1

    @property
    def user_codes(self) -> IntArray:
        """(n,) int32, the user of each row."""
        codes: IntArray = empty_beside(self.item_codes, len(self), np.int32)
        for users in self.user_blocks():
            lengths = np.diff(self.starts[users.start : users.stop + 1])
            codes[self.rows_of(users)] = np.repeat(np.arange(users.start, users.stop, dtype=np.int32), lengths)
        return codes

    def items_of(self, user_code: int) -> IntArray:
        """Return the items of a user, oldest first."""
        return self.item_codes[self.starts[user_code] : self.starts[user_code + 1]]

    def first_times(self, otherwise: int) -> LongArray:
        """Return (n_users,) int64 Unix seconds of each user's first interaction, `otherwise` for users without any."""
        return self._times(self.starts[:-1], otherwise)

    def last_times(self, otherwise: int) -> LongArray:
        """Return the same of each user's last interaction."""
        return self._times(self.starts[1:] - 1, otherwise)

    def _times(self, places: LongArray, otherwise: int) -> LongArray:
        times = np.full(self.n_users, otherwise, dtype=np.int64)
        has_any = np.diff(self.starts) > 0
        times[has_any] = self.timestamps[places[has_any]]
        return times

    def user_blocks(self) -> Iterator[slice]:
        """Yield ranges of user codes, in order, which have about BLOCK_ROWS interactions each."""
        bounds = np.searchsorted(self.starts, np.arange(BLOCK_ROWS, len(self), BLOCK_ROWS))
        users = np.unique([0, *bounds, self.n_users]).tolist()
        yield from map(slice, users[:-1], users[1:])

    def rows_of(self, users: slice) -> slice:
        """Return where the interactions of a range of users lie."""
        return slice(int(self.starts[users.start]), int(self.starts[users.stop]))

    def of_range(self, users: slice) -> "Interactions":
        """Return the interactions of a range of users, of whom the first one is 0 then: views of these arrays."""
        rows = self.rows_of(users)
        return Interactions(
            item_codes=self.item_codes[rows],
            timestamps=self.timestamps[rows],
            events=self.events[rows],
            values=self.values[rows],
            weights=self.weights[rows],
            starts=self.starts[users.start : users.stop + 1] - rows.start,
        )

    def of_users(self, user_codes: IntArray | LongArray) -> "Interactions":
        """Return the interactions of users (n,), who are 0 to n then: in any order, also twice, -1 for none."""
        lengths = np.where(user_codes >= 0, self.starts[user_codes + 1] - self.starts[user_codes], 0)
        starts = offsets(lengths)
        places = np.arange(starts[-1]) + np.repeat(self.starts[user_codes] - starts[:-1], lengths)
        return Interactions(
            item_codes=self.item_codes[places],
            timestamps=self.timestamps[places],
            events=self.events[places],
            values=self.values[places],
            weights=self.weights[places],
            starts=starts,
        )

    def where(self, kept: BoolArray) -> "Interactions":
        """Return the rows where `kept` (n,) is true; the users stay the same."""
        counts = np.empty(self.n_users, dtype=np.int64)
        for users in self.user_blocks():
            rows = self.rows_of(users)
            counts[users] = np.diff(offsets(kept[rows])[self.starts[users.start : users.stop + 1] - rows.start])
        return Interactions(
            item_codes=selected(self.item_codes, kept),
            timestamps=selected(self.timestamps, kept),
            events=selected(self.events, kept),
            values=selected(self.values, kept),
            weights=selected(self.weights, kept),
            starts=offsets(counts),
        )

    def positive(self) -> "Interactions":
        """Return the interactions whose weight is above zero: what a user may be said to have liked."""
        if self.weights.min(initial=np.inf) > 0:
            return self
        return self.where(self.mask(lambda part: part.weights > 0))

    def mask(self, rule: Callable[["Interactions"], BoolArray]) -> BoolArray:
        """Return (n,) bool: what a rule says of the rows of some users at a time; it is given `of_range` of them."""
        found: BoolArray = empty_beside(self.weights, len(self), np.bool_)
        for users in self.user_blocks():
            found[self.rows_of(users)] = rule(self.of_range(users))
        return found

    def item_counts(self, n_items: int) -> LongArray:
        """Return (n_items,) int64: how often each item was met."""
        return counted(self.item_codes, n_items)


def counted(codes: NDArray[np.integer], n: int) -> LongArray:
    """Return (n,) int64: how often each code occurs, as np.bincount does, which copies all codes."""
    counts = np.zeros(n, dtype=np.int64)
    for rows in row_blocks(len(codes)):
        counts += np.bincount(codes[rows], minlength=n)
    return counts


def pairs(user_codes: IntArray, item_codes: IntArray) -> LongArray:
    """Return (n,) int64, a number for each user and item; the user is in its upper half.

    Pairs of an unknown item, code -1, are that of no known one.
    """
    return (user_codes.astype(np.int64) << 32) | item_codes


def offsets(lengths: NDArray[np.integer] | BoolArray) -> LongArray:
    """Return (n_groups + 1,) int64: where groups of these lengths begin and end, one after the other."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


ROW_DTYPES: dict[str, DTypeLike] = {
    "item_codes": np.int32,
    "timestamps": np.int64,
    "events": np.uint8,
    "values": np.float32,
    "weights": np.float32,
}


def stacked(
    parts: Iterable[Interactions], n_rows: int, empty: Callable[[int, DTypeLike], NDArray[Any]]
) -> Interactions:
    """Return the users of all parts, those of the first part first.

    Args:
        parts: gone through once, so that only one of them need be in memory.
        n_rows: of all of them, at most.
        empty: makes the arrays, such as `scratch_array` of a directory: length and dtype to (length,).
    """
    arrays = {name: empty(n_rows, dtype) for name, dtype in ROW_DTYPES.items()}
    lengths, n = [], 0
    for part in parts:
        for name, array in arrays.items():
            array[n : n + len(part)] = getattr(part, name)
        lengths.append(np.diff(part.starts))
        n += len(part)
    starts = offsets(np.concatenate([*lengths, np.empty(0, dtype=np.int64)]))
    return Interactions(**{name: array[:n] for name, array in arrays.items()}, starts=starts)
