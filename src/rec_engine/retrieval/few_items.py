"""A few of many items, found by their codes without memory for all the others."""

from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray, MaskArray
from rec_engine.data.kernels import numbered, places_of, values_at
from rec_engine.data.search_kernels import best_of
from rec_engine.retrieval.filters import Eligible


@dataclass(frozen=True, slots=True)
class Numbered:
    """Distinct items and the place of each among them.

    Attributes:
        table: as `kernels.numbered` makes it.
        n: number of items.
    """

    table: tuple[IntArray, IntArray, MaskArray]
    n: int

    @classmethod
    def of(cls, items: IntArray) -> "Numbered":
        """Return these distinct items (n,)."""
        return cls(numbered(items), len(items))

    def find(self, items: IntArray) -> IntArray:
        """Return (n_asked,) int32, the place of each of these items, -1 for one that is not among them."""
        keys, places, _ = self.table
        return places_of(keys, places, items)


@dataclass(frozen=True, slots=True)
class FewItems:
    """Items and a score of each; all others have 0.

    Attributes:
        items: (n,) int32 codes in any order; one may come twice, the second time with 0.
        values: (n,) float32 scores.
    """

    items: IntArray
    values: FloatArray

    def best(self, eligible: Eligible, k: int) -> IntArray:
        """Return at most k eligible items, those with the highest scores above 0, best first, equal ones by code."""
        return best_of(self.items, self.values, eligible.bits, k, 0.0)[0]

    def scores(self, item_codes: IntArray) -> FloatArray:
        """Return (n,) float32 scores of these distinct items (n,)."""
        return values_at(self.items, self.values, item_codes)


def distinct(items: IntArray) -> IntArray:
    """Return the distinct ones of some items (n,), ascending; np.unique takes five times as long for a few hundred."""
    ordered = np.sort(items)
    is_first = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]
