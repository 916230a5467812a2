"""Which items may be shown at all: an exact set, made before any search."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import BoolArray, IntArray
from rec_engine.data.kernels import cleared

NARROW = 5_000
"""Sets up to this size carry their codes: scanning them is exact, and cheaper than unpacking a million bits."""


@dataclass(frozen=True, slots=True)
class Eligible:
    """A set of items.

    Attributes:
        bits: (ceil(n_items / 8),) uint8 as FAISS reads them: item c is bit c & 7 of byte c >> 3; the last byte's spare
            bits are 0.
        n_items: size of the catalogue.
        codes: ascending int32 codes of a narrow set, None for a wide one.
        size: number of items, None where nobody has counted them yet.
    """

    bits: NDArray[np.uint8]
    n_items: int
    codes: IntArray | None = None
    size: int | None = None

    @classmethod
    def of_mask(cls, mask: BoolArray) -> "Eligible":
        """Return the items where (n_items,) `mask` is true."""
        bits = np.packbits(mask, bitorder="little")
        size = int(np.count_nonzero(mask))
        codes = np.flatnonzero(mask).astype(np.int32) if size <= NARROW else None
        return cls(bits, len(mask), codes, size)

    @classmethod
    def of_codes(cls, codes: IntArray, n_items: int) -> "Eligible":
        """Return the set of these items, in any order and with repetitions."""
        mask = np.zeros(n_items, dtype=np.bool_)
        mask[codes] = True
        return cls.of_mask(mask)

    @classmethod
    def everything(cls, n_items: int) -> "Eligible":
        """Return the whole catalogue."""
        return cls.of_mask(np.ones(n_items, dtype=np.bool_))

    def keeps(self, codes: IntArray) -> BoolArray:
        """Return (n,) bool: which of these items are in the set."""
        kept: BoolArray = (self.bits[codes >> 3] >> (codes & 7).astype(np.uint8) & 1).astype(np.bool_)
        return kept

    def without(self, codes: IntArray) -> "Eligible":
        """Return the set less these items."""
        if not len(codes):
            return self
        bits, n_gone = cleared(self.bits, np.array(codes, dtype=np.int32))
        smaller = Eligible(bits, self.n_items, size=None if self.size is None else self.size - n_gone)
        return smaller if self.codes is None else replace(smaller, codes=self.codes[smaller.keeps(self.codes)])

    def including(self, codes: IntArray) -> "Eligible":
        """Return the set and these items."""
        bits = self.bits.copy()
        np.bitwise_or.at(bits, codes >> 3, (1 << (codes & 7)).astype(np.uint8))
        larger = Eligible(bits, self.n_items)
        if self.codes is None or len(self.codes) + len(codes) > NARROW:
            return larger
        return replace(larger, codes=np.union1d(self.codes, codes).astype(np.int32))

    def widened(self, n_items: int) -> "Eligible":
        """Return the same items in a catalogue of more."""
        bits = np.zeros((n_items + 7) // 8, dtype=np.uint8)
        bits[: len(self.bits)] = self.bits
        return replace(self, bits=bits, n_items=n_items)

    def mask(self) -> BoolArray:
        """Return (n_items,) bool, whether each item is in the set."""
        return np.unpackbits(self.bits, count=self.n_items, bitorder="little").astype(np.bool_)

    def minus(self, other: "Eligible") -> "Eligible":
        """Return the items that are not in the other set."""
        kept = None if self.codes is None else self.codes[~other.keeps(self.codes)]
        return Eligible(self.bits & ~other.bits, self.n_items, kept)

    def intersection(self, other: "Eligible") -> "Eligible":
        """Return the items of both sets."""
        narrow = next((items for items in (self, other) if items.codes is not None), None)
        if narrow is None or narrow.codes is None:
            return Eligible(self.bits & other.bits, self.n_items)
        kept = narrow.codes[(other if narrow is self else self).keeps(narrow.codes)]
        return Eligible(self.bits & other.bits, self.n_items, kept)

    def union(self, other: "Eligible") -> "Eligible":
        """Return the items of either set."""
        both = None
        if self.codes is not None and other.codes is not None and len(self.codes) + len(other.codes) <= NARROW:
            both = np.union1d(self.codes, other.codes).astype(np.int32)
        return Eligible(self.bits | other.bits, self.n_items, both)

    def count(self) -> int:
        """Return the number of items."""
        if self.codes is not None:
            return len(self.codes)
        if self.size is not None:
            return self.size
        n_words = len(self.bits) // 8
        words, rest = self.bits[: 8 * n_words].view(np.uint64), self.bits[8 * n_words :]
        return int(np.bitwise_count(words).sum(dtype=np.int64) + np.bitwise_count(rest).sum(dtype=np.int64))

    def counted(self) -> "Eligible":
        """Return the same set, counted once for all who ask."""
        return replace(self, size=self.count())

    def item_codes(self) -> IntArray:
        """Return the ascending codes of the set, unpacked where it is a wide one."""
        if self.codes is not None:
            return self.codes
        return np.flatnonzero(np.unpackbits(self.bits, count=self.n_items, bitorder="little")).astype(np.int32)
