"""Item-to-item links: how strongly each item speaks for others, as the few strongest of each."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from rec_engine.data.dataset import FloatArray, IntArray, LongArray, are_offsets
from rec_engine.data.kernels import entries_between, entries_of_latest, summed_rows
from rec_engine.errors import BundleError
from rec_engine.retrieval.few_items import FewItems, Numbered

ARRAYS = ("data", "indices", "indptr")
COVISITATION, SIMILAR, NEXT, TOGETHER = LINK_NAMES = ("co-visitation", "similar", "next", "together")


@dataclass(frozen=True, slots=True)
class Links:
    """A sparse matrix of item to item.

    Attributes:
        strengths: (n_items, n_items) float32; row i holds what item i says about others, columns ascending.
    """

    strengths: sparse.csr_array
    _memory: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @classmethod
    def strongest(cls, strengths: "sparse.csr_array[Any, Any]", k: int) -> "Links":
        """Return the k strongest links of each item, negative ones by their size; equal ones by item code."""
        rows = strengths.copy()
        rows.sort_indices()
        starts, kept = rows.indptr, []
        for first, last in zip(starts[:-1], starts[1:], strict=True):
            order = np.argsort(-np.abs(rows.data[first:last]), kind="stable")[:k]
            kept.append(np.sort(order) + first)
        places = np.concatenate([*kept, np.empty(0, dtype=np.int64)])
        ends = offsets([len(row) for row in kept])
        pruned = (rows.data[places].astype(np.float32), rows.indices[places].astype(np.int32), ends)
        return cls(sparse.csr_array(pruned, shape=rows.shape))

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return int(self.strengths.shape[0])

    def widened(self, n_items: int) -> "Links":
        """Return the same links in a catalogue of more items, which have none yet."""
        matrix = self.strengths
        none = np.full(n_items - self.n_items, matrix.indptr[-1], matrix.indptr.dtype)
        indptr = np.concatenate([matrix.indptr, none])
        return Links(sparse.csr_array((matrix.data, matrix.indices, indptr), shape=(n_items, n_items)))

    def of(self, item_codes: IntArray, weights: FloatArray) -> FewItems:
        """Return the items that these items (n,) are linked to, each with the weighted sum of what it is told."""
        matrix = self.strengths
        arrays = matrix.indptr, matrix.indices, matrix.data
        return FewItems(*summed_rows(*arrays, item_codes, weights, self._sums_of_thread()))

    def between(self, item_codes: IntArray, others: IntArray) -> FloatArray:
        """Return (n, n_others) float32: what each of n items says about each of the others, 0 without a link.

        Args:
            item_codes: (n,) int32.
            others: (n_others,) int32, distinct.
        """
        matrix = self.strengths
        return entries_between(matrix.indptr, matrix.indices, matrix.data, item_codes, others)

    def pulls(self, latest: IntArray, others: Numbered, found: FloatArray) -> None:
        """Set (4, n_others) float32 to what the latest items of a history, the last one first, say about others.

        The rows: the last one alone, nan without any; the one before it, likewise; the strongest of all, at least 0;
        and all together, the m-th latest with 1 / m.
        """
        matrix = self.strengths
        entries_of_latest(matrix.indptr, matrix.indices, matrix.data, latest, others.table, found)

    def _sums_of_thread(self) -> FloatArray:
        """Return (n_items,) zeros to add up in; whoever does leaves zeros behind."""
        if not hasattr(self._memory, "sums"):
            self._memory.sums = np.zeros(self.n_items, dtype=np.float32)
        sums: FloatArray = self._memory.sums
        return sums

    def save(self, directory: Path) -> None:
        """Write the arrays as they are, so that processes can share them without reading them."""
        directory.mkdir()
        for name in ARRAYS:
            np.save(directory / f"{name}.npy", getattr(self.strengths, name))

    @classmethod
    def load(cls, directory: Path) -> "Links":
        """Return what `save` wrote, mapped from its files.

        Raises:
            BundleError: if a file is not readable, or does not fit the others.
        """
        try:
            arrays = [np.asarray(np.load(directory / f"{name}.npy", mmap_mode="r")) for name in ARRAYS]
            _check(*arrays)
        except (OSError, EOFError, ValueError) as error:
            raise BundleError(f"{directory}: not readable as links ({error})", hint="train again") from None
        n_items = len(arrays[2]) - 1
        return cls(sparse.csr_array(tuple(arrays), shape=(n_items, n_items)))


def offsets(lengths: Sequence[int]) -> IntArray | LongArray:
    """Return where rows of these lengths begin, and where the last one ends: int32 as long as it can hold that.

    Given int64, scipy widens the columns too.
    """
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    return starts.astype(np.int32) if starts[-1] <= np.iinfo(np.int32).max else starts


def _check(data: FloatArray, indices: IntArray, indptr: IntArray | LongArray) -> None:
    """Refuse arrays that are no matrix of item to item: the compiled loops trust every number in them."""
    integers = (np.int32, np.int64)
    are_of_type = data.dtype == np.float32 and indices.dtype in integers and indptr.dtype in integers
    if not are_of_type or not data.ndim == indices.ndim == indptr.ndim == 1:
        raise ValueError(f"{data.dtype} {data.shape}, {indices.dtype} {indices.shape}, {indptr.dtype} {indptr.shape}")
    if len(data) != len(indices) or not are_offsets(indptr, len(indices)):
        raise ValueError(f"{len(data)} numbers and {len(indices)} columns in rows that do not tell them apart")
    if len(data) and not (indices.min() >= 0 and indices.max() < len(indptr) - 1):
        raise ValueError(f"columns from {indices.min()} to {indices.max()} in a matrix of {len(indptr) - 1}")
    if len(data) and not np.isfinite([data.min(), data.max()]).all():
        raise ValueError("a strength is nan or infinite")
