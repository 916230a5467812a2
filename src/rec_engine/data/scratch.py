"""What need not fit into memory: files without a name, and arrays that are mapped from such.

They are gone once nobody holds them, so that nothing has to be cleared away, not even after a process that was killed.
"""

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rec_engine.errors import DataError

BLOCK_ROWS = 2**20
"""Rows of long arrays that are worked on at once."""


class _Scratch(np.memmap[Any, Any]):
    """Marks what was made here: files that are mapped for other reasons are not to be written beside."""


class ScratchFile:
    """Bytes that are written one after the other, then read in the same order.

    Args:
        directory: on whose disk they lie.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = TemporaryFile(dir=directory)  # noqa: SIM115 - `close` closes it

    def write(self, data: bytes | memoryview) -> int:
        """Write bytes after those that are there, and return how many.

        Raises:
            DataError: if there is no room on the disk.
        """
        try:
            return self._file.write(data)
        except OSError as error:
            raise _no_room(self._directory, len(data), error) from None

    def rewind(self) -> None:
        """Begin to read at the first byte."""
        self._file.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, all of them without a size."""
        return self._file.read(size)

    def close(self) -> None:
        """Give back the disk's room."""
        self._file.close()


def files_left() -> int:
    """Return how many more files this process may open."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if allowed == resource.RLIM_INFINITY else max(0, allowed - len(os.listdir("/dev/fd")))


def scratch_array(directory: Path, n: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return (n,) zeros that lie on the disk of a directory, and in memory as far as there is room.

    Raises:
        DataError: if there is no room on the disk.
    """
    n_bytes = n * np.dtype(dtype).itemsize
    if not n_bytes:
        return np.empty(0, dtype=dtype)
    try:
        with NamedTemporaryFile(prefix=".scratch-", dir=directory) as file:
            if hasattr(os, "posix_fallocate"):  # a disk that is full later would kill the process
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            return np.asarray(_Scratch(file.name, dtype=dtype, mode="r+", shape=(n,)))
    except OSError as error:
        raise _no_room(directory, n_bytes, error) from None


def _no_room(directory: Path, n_bytes: int, error: OSError) -> DataError:
    """Return what to say where a disk does not take so much."""
    return DataError(
        f"{directory}: {n_bytes / 2**30:.2f} GiB of interactions cannot be laid down there: {error.strerror}",
        hint="make room, or put the models on a larger disk with --model-dir",
    )


def empty_beside(array: NDArray[Any], n: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return (n,) to be filled: on disk where the array is in scratch, else in memory."""
    directory = _directory_of(array)
    return np.empty(n, dtype=dtype) if directory is None else scratch_array(directory, n, dtype)


def row_blocks(n: int) -> Iterator[slice]:
    """Yield ranges that together are the rows 0 to n, in order, BLOCK_ROWS at a time."""
    for first in range(0, n, BLOCK_ROWS):
        yield slice(first, min(first + BLOCK_ROWS, n))


def selected(array: NDArray[Any], kept: NDArray[np.bool_]) -> NDArray[Any]:
    """Return array[kept], on disk where the array is in scratch; kept has as many rows."""
    chosen, n_chosen = empty_beside(array, int(np.count_nonzero(kept)), array.dtype), 0
    for rows in row_blocks(len(array)):
        block = array[rows][kept[rows]]
        chosen[n_chosen : n_chosen + len(block)] = block
        n_chosen += len(block)
    return chosen


def _directory_of(array: NDArray[Any]) -> Path | None:
    """Return where the file lies that an array is a view of, None where it is not in scratch."""
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, _Scratch):
            return Path(str(base.filename)).parent
        base = base.base
    return None
