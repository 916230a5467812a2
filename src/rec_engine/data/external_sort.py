"""Interactions that do not fit into memory, sorted: divided by user into files that do, which are sorted one by one.

Every row is written twice, once into its bucket and once to where it stays, however little memory there is.
"""

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from rec_engine.data.dataset import in_order
from rec_engine.data.interactions import IntArray, Interactions, LongArray, stacked
from rec_engine.data.scratch import ScratchFile, scratch_array
from rec_engine.data.validation import distinct_interactions
from rec_engine.utils.config import DataSettings
from rec_engine.utils.logger import with_progress

ROW = np.dtype(
    [
        ("user_id", np.int32),
        ("item_id", np.int32),
        ("timestamp", np.int64),
        ("event", np.uint8),
        ("value", np.float64),
        ("event_id", np.uint64),
    ]
)
"""Of a bucket: codes for ids and events, nan for no value, and a hash of the event's id."""


def bucket_bounds(sample: IntArray, n_users: int, n_buckets: int) -> LongArray:
    """Return (n + 1,) int64, n <= n_buckets: with which users buckets of about equally many rows begin and end.

    Args:
        sample: the users of some rows, evenly taken.
        n_users: of all rows.
        n_buckets: wanted; fewer where one user has the rows of several.
    """
    places = np.arange(1, n_buckets) * len(sample) // n_buckets
    return np.unique([0, *np.sort(sample)[places[: len(sample)]], n_users])


class Buckets:
    """Rows in input order, divided by user; to be entered, so that the files are closed.

    Args:
        directory: on whose disk the rows lie.
        bounds: of `bucket_bounds`.
    """

    def __init__(self, directory: Path, bounds: LongArray) -> None:
        self.directory, self.bounds = directory, bounds
        self.n_rows = 0
        self._files = [ScratchFile(directory) for _ in bounds[1:]]

    def __enter__(self) -> "Buckets":
        return self

    def __exit__(self, *raised: object) -> None:
        for file in self._files:
            file.close()

    def add(self, rows: pl.DataFrame) -> None:
        """Write what `coded` returns, with a hash (UInt64) as `event_id`, after what was written before.

        Raises:
            DataError: if there is no room on the disk.
        """
        packed = np.empty(len(rows), dtype=ROW)
        for name in ROW.names or ():
            packed[name] = rows[name].fill_null(np.nan).to_numpy() if name == "value" else rows[name].to_numpy()
        buckets = np.searchsorted(self.bounds, packed["user_id"], side="right") - 1
        order = np.argsort(buckets, kind="stable")
        ends = np.searchsorted(buckets[order], np.arange(len(self._files) + 1))
        for file, (first, end) in zip(self._files, pairwise(ends), strict=True):
            file.write(packed[order[first:end]].tobytes())
        self.n_rows += len(rows)

    def sorted(self, settings: DataSettings) -> Interactions:
        """Return the distinct rows sorted by user, time and input order, on disk; the buckets are empty then."""
        named = zip(self._files, pairwise(self.bounds.tolist()), strict=True)
        parts = (
            _sorted(file, first, end - first, settings)
            for file, (first, end) in with_progress(named, "interactions: sorting", len(self._files))
        )
        return stacked(parts, self.n_rows, partial(scratch_array, self.directory))


def _sorted(file: ScratchFile, first_user: int, n_users: int, settings: DataSettings) -> Interactions:
    file.rewind()
    packed = np.frombuffer(file.read(), dtype=ROW)
    file.close()
    rows = distinct_interactions(pl.DataFrame({name: packed[name] for name in ROW.names or ()}))
    return in_order(rows.with_columns(pl.col("user_id") - first_user), n_users, settings)
