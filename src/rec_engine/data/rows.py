"""A matrix that can be added to while the most of it stays where it is: mapped from a file, shared by processes."""

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray, LongArray
from rec_engine.data.search_kernels import products


class GrowingRows:
    """The rows of a matrix that does not change, and room for more of them.

    Args:
        base: (n, dim) float32.
        capacity: rows in all; those that nobody has set are zeros.
    """

    def __init__(self, base: FloatArray, capacity: int) -> None:
        self._base = base
        self._capacity = capacity
        self._more = np.zeros((0, base.shape[1]), dtype=np.float32)

    def __len__(self) -> int:
        return self._capacity

    @property
    def shape(self) -> tuple[int, int]:
        """Capacity and width."""
        return self._capacity, self._base.shape[1]

    def __getitem__(self, codes: IntArray | LongArray | int | list[int]) -> FloatArray:
        """Return the rows of these codes."""
        n_base = len(self._base)
        places = np.asarray(codes)
        if not len(self._more) or not (places >= n_base).any():
            rows: FloatArray = self._base.take(places, axis=0)
            return rows
        is_more = places >= n_base
        of_base = self._base[np.where(is_more, 0, places)]
        return np.where(is_more[..., None], self._more[np.where(is_more, places - n_base, 0)], of_base)

    def products(self, codes: IntArray, vector: FloatArray) -> FloatArray:
        """Return (n,) float32 inner products of the rows of codes (n,) with a vector (dim,)."""
        return products(self._base, self._more, codes, vector)

    def put(self, code: int, row: FloatArray) -> None:
        """Set one of the rows behind the base.

        Raises:
            IndexError: for a row of the base, or one beyond the capacity.
        """
        place = code - len(self._base)
        if not 0 <= place < self._capacity - len(self._base):
            raise IndexError(f"row {code} is none of {len(self._base)} to {self._capacity - 1}")
        if not len(self._more):
            self._more = np.zeros((self._capacity - len(self._base), self._base.shape[1]), dtype=np.float32)
        self._more[place] = row


Rows = FloatArray | GrowingRows
"""What rows are read from by codes."""


def inner_products(rows: Rows, codes: IntArray, vector: FloatArray) -> FloatArray:
    """Return (n,) float32 inner products of the rows of codes (n,) with a vector (dim,)."""
    if isinstance(rows, GrowingRows):
        return rows.products(codes, vector)
    return products(rows, rows[:0], codes, vector)
