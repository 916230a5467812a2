"""Numbers of one worker that all workers of a server read: in a file that they map, which outlives a SIGKILL."""

import fcntl
import json
import math
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rec_engine.serving.metrics import BOUNDS_SECONDS, METRIC_BY_NAME, N_BUCKETS, Series
from rec_engine.utils.logger import get_logger

VALUES_BYTES, SIZE_BYTES = 2**17, 2**18
"""A worker's file: room for 500 histograms or 16,000 counters, then for their names."""
SPARE_PLACE = VALUES_BYTES // 8 - N_BUCKETS - 1
"""What there is no room for is counted here, where nobody reads."""
SUFFIX = ".counts"

logger = get_logger(__name__)


class SharedCounts:
    """The numbers of one worker, in a file that the others read: float64 values, then the names of their series.

    Each name is a line of JSON and stands for as many values as its metric has, in the same order. A worker holds a
    lock on its file; the kernel lets go of it however the worker ends, and the next worker takes the file over and
    counts on: no count is lost or goes back, and a thousand restarts leave no thousand files.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._path: Path | None = None
        if directory is None:
            self._map = mmap.mmap(-1, SIZE_BYTES)
        else:
            self._path, self._map = _free_file(directory)
        self.values = memoryview(self._map)[:VALUES_BYTES].cast("d")
        self._places: dict[Series, int] = {}
        self._n_values, self._names_end = 0, VALUES_BYTES
        for series, _ in series_of(self._map[:]):
            self._take_place(series)

    def place(self, series: Series) -> int:
        """Return where the values of a series begin."""
        if series not in self._places:
            line = json.dumps(series).encode()
            end = self._names_end + len(line)
            if end >= SIZE_BYTES or self._n_values + METRIC_BY_NAME[series[0]].n_values > SPARE_PLACE:
                logger.warning("no room is left to count %s", series)
                return SPARE_PLACE
            self._map[self._names_end : end] = line
            self._take_place(series)
            # Last, for a name without its end is none: this process may be killed at any moment.
            self._map[end : end + 1] = b"\n"
        return self._places[series]

    def contents(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the bytes of every worker's memory, this one's first, and whether the worker is alive."""
        yield self._map[:], True
        for path in sorted(self._directory.glob(f"*{SUFFIX}")) if self._directory else []:
            if path != self._path:
                with path.open("rb") as file:
                    is_alive = not _lock(file.fileno(), fcntl.LOCK_SH)
                    yield file.read().ljust(SIZE_BYTES, b"\0"), is_alive

    def close(self) -> None:
        """Leave the file to whichever worker comes next."""
        self.values.release()
        self._map.close()

    def _take_place(self, series: Series) -> None:
        metric = METRIC_BY_NAME[series[0]]
        self._places[series] = self._n_values
        if metric.is_gauge:
            self.values[self._n_values] = math.nan
        self._n_values += metric.n_values
        self._names_end += len(json.dumps(series)) + 1


def _free_file(directory: Path) -> tuple[Path, mmap.mmap]:
    """Return the first file that no worker holds, and its bytes, locked as long as they are mapped."""
    directory.mkdir(mode=0o700, exist_ok=True)
    number = 0
    while True:
        path = directory / f"{number}{SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if _lock(descriptor, fcntl.LOCK_EX):
                if os.fstat(descriptor).st_size < SIZE_BYTES:
                    # Not a hole in the file: where memory is full this fails now, a write to the map kills the process.
                    os.pwrite(descriptor, bytes(SIZE_BYTES), 0)
                # The map has a duplicate of the descriptor, which keeps the lock.
                return path, mmap.mmap(descriptor, SIZE_BYTES)
        finally:
            os.close(descriptor)
        number += 1


def _lock(descriptor: int, kind: int) -> bool:
    """Return whether the lock could be had; not by fcntl's lockf, for which a process never conflicts with itself."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def series_of(content: bytes) -> Iterator[tuple[Series, NDArray[np.float64]]]:
    """Yield the series of a worker's memory with their (n_values,) numbers."""
    values, place = np.frombuffer(content, count=VALUES_BYTES // 8), 0
    for line in content[VALUES_BYTES:].split(b"\n")[:-1]:
        series = tuple(json.loads(line))
        end = place + METRIC_BY_NAME[series[0]].n_values
        yield series, values[place:end]
        place = end


class Number:
    """One value of a worker."""

    __slots__ = ("_place", "_values")

    def __init__(self, values: "memoryview[float]", place: int) -> None:
        self._values = values
        self._place = place

    def add(self, n: float) -> None:
        """Let it grow."""
        self._values[self._place] += n

    def set(self, value: float) -> None:
        """Let it be this; nan is none."""
        self._values[self._place] = value


class Histogram:
    """The values of a histogram: its buckets and their sum."""

    __slots__ = ("_first", "_sum", "_values")

    def __init__(self, values: "memoryview[float]", place: int) -> None:
        self._values = values
        self._first = place
        self._sum = place + N_BUCKETS

    def observe(self, seconds: float) -> None:
        """Count one more."""
        self._values[self._first + bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self._values[self._sum] += seconds
