"""Candidates from several sources, each remembering who offered it and at what score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.data.state import UserState
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.filters import Eligible

FIRST_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Candidates:
    """Distinct eligible items in ascending code order.

    Attributes:
        item_codes: (n_candidates,) int32.
        scores: (n_sources, n_candidates) float32, nan where that source did not offer the item.
        sources: the n_sources names.
    """

    item_codes: IntArray
    scores: FloatArray
    sources: tuple[str, ...]

    def score_of(self, source: str) -> FloatArray:
        """Return (n_candidates,) float32 of one source, nan where it did not offer the item."""
        scores: FloatArray = self.scores[self.sources.index(source)]
        return scores


class Source(Protocol):
    """Anything that can name items for a user."""

    @property
    def name(self) -> str:
        """What the answer calls it."""
        ...

    def retrieve(self, state: UserState, eligible: Eligible, k: int) -> tuple[IntArray, FloatArray]:
        """Return codes and scores, (m,) each with m <= k, best first, every item eligible."""
        ...


def recall(sources: Sequence[Source], state: UserState, eligible: Eligible, k: int) -> Candidates:
    """Return what the sources offer together, each up to k items."""
    offers = [source.retrieve(state, eligible, k) for source in sources]
    item_codes = np.unique(np.concatenate([codes for codes, _ in offers]))
    scores = np.full((len(sources), len(item_codes)), np.nan, dtype=np.float32)
    for row, (codes, offered) in enumerate(offers):
        scores[row, np.searchsorted(item_codes, codes)] = offered
    return Candidates(item_codes, scores, tuple(source.name for source in sources))


@dataclass(frozen=True, slots=True)
class TowerSource:
    """The items whose vectors are nearest to the user's; nothing for a user of whom nothing positive is known.

    Attributes:
        index: search by vector.
        user_vector: state to (dim,) float32, or None where nothing is known of the user.
        min_score: cosine below which an item is not offered.
    """

    index: FAISSIndex
    user_vector: Callable[[UserState], FloatArray | None]
    min_score: float = -1.0
    name: str = "tower"

    def retrieve(self, state: UserState, eligible: Eligible, k: int) -> tuple[IntArray, FloatArray]:
        """Return codes and cosines of at most k items, best first."""
        vector = self.user_vector(state)
        if vector is None:
            return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.float32)
        scores, codes = self.index.search(vector[None], k, eligible)
        offered = (codes[0] >= 0) & (scores[0] >= self.min_score)
        return codes[0][offered], scores[0][offered]


class PopularitySource:
    """The most popular eligible items: always min(k, eligible) of them, so that an answer can be complete.

    Args:
        popularity: (n_items,) float32, higher is more popular; equal ones are ordered by code.
    """

    name = "popularity"

    def __init__(self, popularity: FloatArray) -> None:
        self.popularity = popularity
        self.order = np.argsort(-popularity, kind="stable").astype(np.int32)

    def retrieve(self, state: UserState, eligible: Eligible, k: int) -> tuple[IntArray, FloatArray]:  # noqa: ARG002
        """Return codes and popularity of min(k, eligible) items, best first."""
        if eligible.codes is not None:
            best = np.argsort(-self.popularity[eligible.codes], kind="stable")[:k]
            return eligible.codes[best], self.popularity[eligible.codes[best]]
        found: list[IntArray] = []
        n_found, first, size = 0, 0, FIRST_CHUNK
        while n_found < k and first < len(self.order):
            chunk = self.order[first : first + size]
            found.append(chunk[eligible.keeps(chunk)])
            n_found, first, size = n_found + len(found[-1]), first + size, size * 2
        codes = np.concatenate(found)[:k]
        return codes, self.popularity[codes]
