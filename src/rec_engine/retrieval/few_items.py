"""A few of many items in a hash table, found by their codes without memory for all the others."""

from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.data.kernels import MaskArray, best_of, numbered, places_of, values_at
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
        keys: (2^b,) int32 codes, below 0 in an empty slot.
        values: (2^b,) float32 scores.
        slots: (n,) int32, which slots are not empty.
    """

    keys: IntArray
    values: FloatArray
    slots: IntArray

    @classmethod
    def of(cls, items: IntArray, scores: FloatArray) -> "FewItems":
        """Return these distinct items (n,) with these scores (n,)."""
        keys, places, _ = numbered(items)
        slots = np.flatnonzero(keys >= 0).astype(np.int32)
        values = np.zeros(len(keys), dtype=np.float32)
        values[slots] = scores[places[slots]]
        return cls(keys, values, slots)

    def best(self, eligible: Eligible, k: int) -> IntArray:
        """Return at most k eligible items, those with the highest scores above 0, best first, equal ones by code."""
        return best_of(self.keys[self.slots], self.values[self.slots], eligible.bits, k, 0.0)

    def scores(self, item_codes: IntArray) -> FloatArray:
        """Return (n,) float32 scores of these items (n,)."""
        return values_at(self.keys, self.values, item_codes)
