"""Candidates from several sources, each remembering who offered it, at what score and on which rank."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.data.rows import inner_products
from rec_engine.data.search_kernels import first_of
from rec_engine.data.state import UserState
from rec_engine.data.timeline import Timeline
from rec_engine.retrieval.budget import Budget
from rec_engine.retrieval.faiss_index import FAISSIndex
from rec_engine.retrieval.few_items import FewItems, distinct
from rec_engine.retrieval.filters import Eligible
from rec_engine.retrieval.links import Links

RECENT_DAYS = 30
NOTHING = np.empty(0, dtype=np.int32)


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

    def generate(
        self,
        state: UserState,
        eligible: Eligible,
        k: int,
        n_candidates: int,
        joining: Sequence[int] = (),
        budget: Budget | None = None,
    ) -> Candidates:
        """Return at least min(k, eligible) candidates.

        Args:
            state: whom they are for.
            eligible: what may be shown.
            k: wanted at least of every source.
            n_candidates: what a source with a share of 1 is asked for.
            joining: codes of items that are candidates, if they are eligible, whoever offers them.
            budget: sources that fail, or for which it leaves no time, have no opinion; but for the last one.
        """
        budget = budget or Budget()
        wanted = [max(k, int(source.share * n_candidates)) for source in self.sources]
        looks = [partial(_found, source, state, eligible, n) for source, n in zip(self.sources, wanted, strict=True)]
        found = [*map(budget.spend, self.names[:-1], looks), looks[-1]()]
        best = [each[1] if each else NOTHING for each in found]
        offered, joined = np.concatenate(best), np.array(joining, dtype=np.int32)
        item_codes = distinct(np.concatenate([offered, joined[eligible.keeps(joined)]]) if len(joined) else offered)
        scores = np.full((len(found), len(item_codes)), np.nan, dtype=np.float32)
        ranks, first = scores.copy(), 0
        places, counted = np.searchsorted(item_codes, offered), np.arange(1, max(map(len, best)) + 1)
        for row, (each, codes) in enumerate(zip(found, best, strict=True)):
            if each:
                offer = each[0]
                scores[row] = offer.scores(item_codes)
                ranks[row, places[first : first + len(codes)]] = counted[: len(codes)]
            first += len(codes)
        return Candidates(item_codes, scores, ranks, self.names)


def _found(source: Source, state: UserState, eligible: Eligible, k: int) -> tuple[Offer, IntArray] | None:
    """Return what a source has for this user, and the best k of it."""
    offer = source.ask(state)
    return None if offer is None else (offer, offer.best(eligible, k))


@dataclass(frozen=True, slots=True)
class TowerSource:
    """The items whose vectors are nearest to the user's; nothing for a user of whom nothing positive is known.

    Attributes:
        index: search by vector.
        user_vector: state to (dim,) float32, or None where nothing is known of the user.
        min_score: cosine below which an item is not offered.
        only: (n,) codes of the few items that it may offer; all of them without it.
        name: what the answer calls it.
        share: of the candidates.
    """

    index: FAISSIndex
    user_vector: Callable[[UserState], FloatArray | None]
    min_score: float = -1.0
    only: IntArray | None = None
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
        index, only = self.source.index, self.source.only
        if only is None:
            scores, codes = index.nearest(self.vector, k, eligible)
        else:
            scores, codes = index.scan(self.vector, k, only[eligible.keeps(only)])
        found: IntArray = codes[scores >= self.source.min_score]
        return found

    def scores(self, item_codes: IntArray) -> FloatArray:
        return inner_products(self.source.index.rows, item_codes, self.vector)


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
            items = distinct(liked)
            return self.links.of(items, np.ones(len(items), dtype=np.float32))
        latest = liked[-self.last :][::-1]
        return self.links.of(latest, (1 / np.arange(1, len(latest) + 1)).astype(np.float32))


@dataclass(frozen=True, slots=True)
class HistorySource:
    """What the user has met before, the m-th latest meeting with 1 / sqrt(m): often and lately comes first.

    Attributes:
        name: what the answer calls it.
        share: of the candidates.
    """

    name: str = "history"
    share: float = 0.25

    def ask(self, state: UserState) -> Offer | None:
        """Return the user's own items."""
        latest_first = state.liked[::-1]
        if not len(latest_first):
            return None
        weights = 1 / np.sqrt(np.arange(1, len(latest_first) + 1))
        items, places = np.unique(latest_first, return_inverse=True)
        return FewItems(items, np.bincount(places, weights).astype(np.float32))


class RecentPopularitySource:
    """What was met most in the days before the request.

    Args:
        timeline: when each item was met.
    """

    name = "recent popularity"
    share = 0.1

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._latest: tuple[FloatArray, _Ordered] | None = None

    def ask(self, state: UserState) -> Offer:
        """Return the interactions of the last RECENT_DAYS, the same for everybody on one day."""
        counts = self.timeline.recent_counts(state.now, RECENT_DAYS)
        latest = self._latest  # one look: another thread may make another
        if latest is None or latest[0] is not counts:
            latest = self._latest = counts, _Ordered(counts, np.flatnonzero(counts > 0).astype(np.int32))
        return latest[1]


class PopularitySource:
    """The most popular eligible items: always min(k, eligible) of them, so that an answer can be complete.

    Args:
        popularity: (n_items,) float32, higher is more popular; equal ones are ordered by code.
    """

    name = "popularity"
    share = 0.0

    def __init__(self, popularity: FloatArray) -> None:
        self._offer = _Ordered(popularity, np.arange(len(popularity), dtype=np.int32))

    def ask(self, state: UserState) -> Offer:  # noqa: ARG002
        """Return all items: popularity is the same for everybody."""
        return self._offer


class _Ordered:
    """An offer that is the same for many requests, so that its order is worth keeping.

    Args:
        by_item: (n_items,) float32 scores.
        items: those that are offered; of equal ones the lower codes come first.
    """

    def __init__(self, by_item: FloatArray, items: IntArray) -> None:
        self._by_item = by_item
        self._offered = Eligible.of_codes(items, len(by_item))
        self._order: IntArray = items[np.argsort(-by_item[items], kind="stable")]

    def best(self, eligible: Eligible, k: int) -> IntArray:
        if eligible.codes is not None:
            codes = eligible.codes[self._offered.keeps(eligible.codes)]
            order: IntArray = codes[np.argsort(-self._by_item[codes], kind="stable")[:k]]
            return order
        return first_of(self._order, eligible.bits, k)

    def scores(self, item_codes: IntArray) -> FloatArray:
        scores: FloatArray = self._by_item[item_codes]
        return scores


def most(by_item: FloatArray, eligible: Eligible, k: int) -> IntArray:
    """Return the codes of the k highest of (n_items,) scores among the eligible items, those above zero only.

    Best first; of equal items those with the lowest codes.
    """
    items = eligible.codes if eligible.codes is not None else np.flatnonzero(by_item > 0).astype(np.int32)
    items = items[(by_item[items] > 0) & eligible.keeps(items)]
    return top_of(items, by_item[items], k)


def top_of(items: IntArray, scores: FloatArray, k: int) -> IntArray:
    """Return the k items (n,) of the highest scores (n,), best first; of equal ones those with the lowest codes."""
    if k < len(items):
        cut = np.partition(scores, len(scores) - k)[len(scores) - k]
        items, scores = items[scores >= cut], scores[scores >= cut]
    found: IntArray = items[np.argsort(-scores, kind="stable")[:k]]
    return found
