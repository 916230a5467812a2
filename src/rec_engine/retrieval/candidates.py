"""Candidates from several sources, each remembering who offered it, at what score and on which rank."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.data.state import UserState
from rec_engine.data.timeline import Timeline
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.links import Links

FIRST_CHUNK = 512
RECENT_DAYS = 30


@dataclass(frozen=True, slots=True)
class Candidates:
    """Distinct eligible items in ascending code order.

    Attributes:
        item_codes: (n_candidates,) int32.
        scores: (n_sources, n_candidates) float32, each source's opinion of every candidate, whoever offered it; nan
            where it has none.
        ranks: (n_sources, n_candidates) float32 from 1, nan where that source did not offer the item.
        sources: the n_sources names.
    """

    item_codes: IntArray
    scores: FloatArray
    ranks: FloatArray
    sources: tuple[str, ...]

    def score_of(self, source: str) -> FloatArray:
        """Return (n_candidates,) float32, one source's opinion of every candidate."""
        scores: FloatArray = self.scores[self.sources.index(source)]
        return scores

    def rank_of(self, source: str) -> FloatArray:
        """Return (n_candidates,) float32 from 1, nan where the source did not offer the item."""
        ranks: FloatArray = self.ranks[self.sources.index(source)]
        return ranks


class Offer(Protocol):
    """What a source has for one user."""

    def best(self, eligible: Eligible, k: int) -> IntArray:
        """Return the codes of at most k items, best first, every one eligible."""
        ...

    def scores(self, item_codes: IntArray) -> FloatArray:
        """Return (n,) float32, the source's opinion of these items."""
        ...


class Source(Protocol):
    """Anything that can name items for a user."""

    @property
    def name(self) -> str:
        """What the answer calls it."""
        ...

    @property
    def share(self) -> float:
        """How many candidates it is asked for, as a share of what the request wants."""
        ...

    def ask(self, state: UserState) -> Offer | None:
        """Return what there is for this user; None for nothing."""
        ...


class CandidateGenerator:
    """The union of what all sources offer.

    Args:
        sources: who is asked; the last one must offer min(k, eligible) items, so that answers are complete.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        self.names = tuple(source.name for source in sources)

    def generate(self, state: UserState, eligible: Eligible, k: int, n_candidates: int) -> Candidates:
        """Return at least min(k, eligible) candidates.

        Args:
            state: whom they are for.
            eligible: what may be shown.
            k: wanted at least of every source.
            n_candidates: what a source with a share of 1 is asked for.
        """
        offers = [source.ask(state) for source in self.sources]
        wanted = [max(k, int(source.share * n_candidates)) for source in self.sources]
        nothing = np.empty(0, dtype=np.int32)
        best = [offer.best(eligible, n) if offer else nothing for offer, n in zip(offers, wanted, strict=True)]
        item_codes = np.unique(np.concatenate(best))
        scores = np.full((len(offers), len(item_codes)), np.nan, dtype=np.float32)
        ranks = scores.copy()
        for row, (offer, codes) in enumerate(zip(offers, best, strict=True)):
            if offer:
                scores[row] = offer.scores(item_codes)
                ranks[row, np.searchsorted(item_codes, codes)] = np.arange(1, len(codes) + 1)
        return Candidates(item_codes, scores, ranks, self.names)


@dataclass(frozen=True, slots=True)
class TowerSource:
    """The items whose vectors are nearest to the user's; nothing for a user of whom nothing positive is known.

    Attributes:
        index: search by vector.
        user_vector: state to (dim,) float32, or None where nothing is known of the user.
        min_score: cosine below which an item is not offered.
        only: the items that it may offer; all of them without it.
        name: what the answer calls it.
        share: of the candidates.
    """

    index: FAISSIndex
    user_vector: Callable[[UserState], FloatArray | None]
    min_score: float = -1.0
    only: Eligible | None = None
    name: str = "tower"
    share: float = 1.0

    def ask(self, state: UserState) -> Offer | None:
        """Return the search by the user's vector."""
        vector = self.user_vector(state)
        return None if vector is None else _Nearest(self, vector)


@dataclass(frozen=True, slots=True)
class _Nearest:
    source: TowerSource
    vector: FloatArray

    def best(self, eligible: Eligible, k: int) -> IntArray:
        allowed = eligible if self.source.only is None else eligible.intersection(self.source.only)
        scores, codes = self.source.index.search(self.vector[None], k, allowed)
        found: IntArray = codes[0][(codes[0] >= 0) & (scores[0] >= self.source.min_score)]
        return found

    def scores(self, item_codes: IntArray) -> FloatArray:
        cosines: FloatArray = self.source.index.rows[item_codes] @ self.vector
        return cosines


@dataclass(frozen=True, slots=True)
class LinkSource:
    """The items to which those of the user's history are linked.

    Attributes:
        links: item to item.
        name: what the answer calls it.
        last: how many latest items count, the m-th latest with 1 / m; without it all of them do, alike.
        share: of the candidates.
    """

    links: Links
    name: str
    last: int | None = None
    share: float = 0.5

    def ask(self, state: UserState) -> Offer | None:
        """Return the links of the history's items, summed."""
        liked = state.liked
        if not len(liked):
            return None
        if self.last is None:
            items = np.unique(liked)
            return _Scored(self.links.of(items, np.ones(len(items), dtype=np.float32)))
        latest = liked[-self.last :][::-1]
        return _Scored(self.links.of(latest, (1 / np.arange(1, len(latest) + 1)).astype(np.float32)))


@dataclass(frozen=True, slots=True)
class HistorySource:
    """What the user has met before, the m-th latest meeting with 1 / sqrt(m): often and lately comes first.

    Attributes:
        n_items: size of the catalogue.
        name: what the answer calls it.
        share: of the candidates.
    """

    n_items: int
    name: str = "history"
    share: float = 0.25

    def ask(self, state: UserState) -> Offer | None:
        """Return the user's own items."""
        latest_first = state.liked[::-1]
        if not len(latest_first):
            return None
        weights = 1 / np.sqrt(np.arange(1, len(latest_first) + 1))
        return _Scored(np.bincount(latest_first, weights, self.n_items).astype(np.float32))


class RecentPopularitySource:
    """What was met most in the days before the request.

    Args:
        timeline: when each item was met.
    """

    name = "recent popularity"
    share = 0.1

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline

    def ask(self, state: UserState) -> Offer:
        """Return the interactions of the last RECENT_DAYS, the same for everybody on one day."""
        return _Scored(self.timeline.recent_counts(state.now, RECENT_DAYS))


class PopularitySource:
    """The most popular eligible items: always min(k, eligible) of them, so that an answer can be complete.

    Args:
        popularity: (n_items,) float32, higher is more popular; equal ones are ordered by code.
    """

    name = "popularity"
    share = 0.0

    def __init__(self, popularity: FloatArray) -> None:
        self.popularity = popularity
        self.order = np.argsort(-popularity, kind="stable").astype(np.int32)

    def ask(self, state: UserState) -> Offer:  # noqa: ARG002
        """Return itself: popularity is the same for everybody."""
        return self

    def best(self, eligible: Eligible, k: int) -> IntArray:
        """Return min(k, eligible) codes, best first."""
        if eligible.codes is not None:
            order: IntArray = eligible.codes[np.argsort(-self.popularity[eligible.codes], kind="stable")[:k]]
            return order
        found: list[IntArray] = []
        n_found, first, size = 0, 0, FIRST_CHUNK
        while n_found < k and first < len(self.order):
            chunk = self.order[first : first + size]
            found.append(chunk[eligible.keeps(chunk)])
            n_found, first, size = n_found + len(found[-1]), first + size, size * 2
        return np.concatenate(found)[:k]

    def scores(self, item_codes: IntArray) -> FloatArray:
        """Return (n,) float32 popularity."""
        scores: FloatArray = self.popularity[item_codes]
        return scores


@dataclass(frozen=True, slots=True)
class _Scored:
    """An offer that knows a score of every item, (n_items,) float32; only items above zero are offered."""

    by_item: FloatArray

    def best(self, eligible: Eligible, k: int) -> IntArray:
        return most(self.by_item, eligible, k)

    def scores(self, item_codes: IntArray) -> FloatArray:
        scores: FloatArray = self.by_item[item_codes]
        return scores


def most(by_item: FloatArray, eligible: Eligible, k: int) -> IntArray:
    """Return the codes of the k highest of (n_items,) scores among the eligible items, those above zero only.

    Best first; of equal items those with the lowest codes.
    """
    if eligible.codes is not None:
        items = eligible.codes[by_item[eligible.codes] > 0]
    else:
        items = np.flatnonzero(by_item > 0).astype(np.int32)
        items = items[eligible.keeps(items)]
    scores = by_item[items]
    if k < len(items):
        cut = np.partition(scores, len(scores) - k)[len(scores) - k]
        items, scores = items[scores >= cut], scores[scores >= cut]
    found: IntArray = items[np.argsort(-scores, kind="stable")[:k]]
    return found
