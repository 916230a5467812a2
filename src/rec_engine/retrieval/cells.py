"""Vectors in cells around centroids, a byte a number: a search reads the nearest cells and nothing else.

Scores from bytes are not exact: more items are found than are wanted, and whoever asked scores them again.

References:
    Sivic and Zisserman, Video Google: a text retrieval approach to object matching in videos, 2003: inverted files.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray, IntArray, LongArray, are_offsets
from rec_engine.data.search_kernels import near_items
from rec_engine.retrieval.filters import Eligible

ARRAYS = ("centroids", "starts", "items", "rows", "steps")
MORE = 20
"""Items found beyond half as many again as are wanted."""
LARGEST_BYTE, LARGEST_WORD = 127, 2**15 - 1
LARGEST_SUM = 2**31 // (LARGEST_BYTE + 1)
"""What a query's numbers may add up to, so that no score leaves 32 bits."""


class Engine(Protocol):
    """What a search among all items goes through."""

    def near(self, query: FloatArray, breadth: int, k: int, eligible: Eligible) -> IntArray:
        """Return eligible items that are near a query (dim,): k and some more, or fewer; among them the k nearest."""
        ...

    def add(self, vectors: FloatArray) -> None:
        """Put vectors (n, dim) behind the others."""
        ...

    def save(self, directory: Path) -> None:
        """Write it."""
        ...


@dataclass(slots=True)
class Cells:
    """An inverted file.

    Attributes:
        centroids: (n_cells, dim) int8, in units of `steps`.
        starts: (n_cells + 1,) int64; cell c owns rows starts[c] to starts[c + 1].
        items: (n,) int32, the item of each row.
        rows: (n, dim) int8, the vectors in units of `steps`.
        steps: (dim,) float32.
    """

    centroids: NDArray[np.int8]
    starts: LongArray
    items: IntArray
    rows: NDArray[np.int8]
    steps: FloatArray
    _added: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int32))

    @classmethod
    def of(cls, vectors: FloatArray, centroids: FloatArray, cell_of_item: LongArray) -> "Cells":
        """Return (n, dim) vectors in the cells (n,) of these centroids (n_cells, dim)."""
        items = np.argsort(cell_of_item, kind="stable").astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(cell_of_item, minlength=len(centroids)))])
        steps = np.maximum(np.abs(vectors).max(axis=0), np.finfo(np.float32).tiny) / np.float32(LARGEST_BYTE)
        in_bytes = np.rint(centroids / steps).clip(-LARGEST_BYTE, LARGEST_BYTE).astype(np.int8)
        rows = np.rint(vectors / steps).astype(np.int8)[items]
        return cls(in_bytes, starts.astype(np.int64), items, rows, steps.astype(np.float32))

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.centroids)

    @property
    def shape(self) -> tuple[int, int]:
        """Number and width of the vectors that the cells were made of."""
        return len(self.rows), self.rows.shape[1]

    def near(self, query: FloatArray, breadth: int, k: int, eligible: Eligible) -> IntArray:
        """Return the eligible items in the nearest cells that have the highest scores, in no order.

        They are k and half as many more, or as many as there are; and all of those that were added.

        Args:
            query: (dim,) float32.
            breadth: cells that are looked at.
            k: items wanted.
            eligible: items that may be found.
        """
        arrays = self.rows.reshape(-1), self.centroids.reshape(-1), self.starts, self.items
        n = k + k // 2 + MORE
        found = near_items(arrays, self._in_steps(query), breadth, k, n, eligible.bits)
        return np.concatenate([found, self._added[eligible.keeps(self._added)]]) if len(self._added) else found

    def add(self, vectors: FloatArray) -> None:
        """Know of vectors (n, dim) behind the others, which belong to no cell: every search finds them."""
        first = len(self.items) + len(self._added)
        added = np.arange(first, first + len(vectors), dtype=np.int32)
        self._added = np.concatenate([self._added, added])

    def _in_steps(self, query: FloatArray) -> NDArray[np.int16]:
        """Return (dim,) int16, the query as the bytes' partner: as exact as the sum of the products allows."""
        partner = query * self.steps
        size = np.abs(partner)
        scale = min(LARGEST_WORD / max(size.max(), 1e-30), LARGEST_SUM / max(size.sum(), 1e-30))
        words: NDArray[np.int16] = np.trunc(partner * scale).astype(np.int16)
        return words

    def save(self, directory: Path) -> None:
        """Write the arrays as they are, so that processes can share them without reading them."""
        directory.mkdir()
        for name in ARRAYS:
            np.save(directory / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, directory: Path) -> "Cells":
        """Return what `save` wrote, mapped from its files.

        Raises:
            OSError: if a file is missing; so, or ValueError or EOFError, if one is damaged or does not fit the others.
        """
        found = cls(*(np.asarray(np.load(directory / f"{name}.npy", mmap_mode="r")) for name in ARRAYS))
        found._check()
        return found

    def _check(self) -> None:
        """Refuse arrays that do not fit together: the compiled search trusts every number in them."""
        types = {"centroids": np.int8, "starts": np.int64, "items": np.int32, "rows": np.int8, "steps": np.float32}
        for name, kind in types.items():
            array, n_axes = getattr(self, name), 2 if kind == np.int8 else 1
            if array.dtype != kind or array.ndim != n_axes or not array.size:
                raise ValueError(f"{name}: {array.dtype} of shape {array.shape}")
        n, dim = self.shape
        if (self.centroids.shape[1], *self.steps.shape, *self.items.shape) != (dim, dim, n):
            raise ValueError(f"{n} rows of {dim} bytes, {len(self.items)} items, {len(self.steps)} steps")
        if len(self.starts) != self.n_cells + 1 or not are_offsets(self.starts, n):
            raise ValueError(f"starts: not where {self.n_cells} cells of {n} rows begin")
        if self.items.min() < 0 or self.items.max() >= n or np.bincount(self.items).max() > 1:
            raise ValueError(f"items: not each of {n} once")
        if not (np.isfinite(self.steps) & (self.steps > 0)).all():
            raise ValueError("steps: not all of them are above zero")
