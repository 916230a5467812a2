"""What the ranker sees. Training and serving both call `features`; there is no other definition.

To add a feature: write a function, add it to GROUPS. The names travel in the bundle's manifest. A feature may read only
what was known at `state.now`; `Timeline` gives every statistic as of a moment. What is computed together is one group:
a request has a few hundred candidates, so that a call costs more than what it computes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray, IntArray, LongArray
from rec_engine.data.kernels import shared_tastes
from rec_engine.data.rows import Rows
from rec_engine.data.state import UserState
from rec_engine.data.timeline import SECONDS_A_DAY, Past, Timeline
from rec_engine.retrieval.candidates import Candidates
from rec_engine.retrieval.few_items import Numbered
from rec_engine.retrieval.links import COVISITATION, LINK_NAMES, SIMILAR, Links

RECENT_ITEMS = 10
LINKED_ITEMS = 20
SESSION_SECONDS = 3_600
DAYS = WEEK, MONTH, YEAR = 7, 30, 365


@dataclass(frozen=True, slots=True)
class ItemTable:
    """What the features know of the items.

    Attributes:
        vectors: (n_items, dim) float32, the item tower's, L2-normalised.
        timeline: when each item was met.
        categories: (n_items,) uint64, a bit for each category that an item has.
        links: name to links between items; those of LINK_NAMES are among them.
    """

    vectors: Rows
    timeline: Timeline
    categories: NDArray[np.uint64]
    links: Mapping[str, Links]


@dataclass(frozen=True, slots=True)
class Moment:
    """One request as the features see it: who asks, what is on offer, and what they share.

    Attributes:
        state: of the user.
        candidates: what is on offer, (n_candidates,) items.
        items: what is known of the items.
        liked: the user's items with a positive weight, oldest first.
        liked_at: when he met them.
        numbered: the candidates, to be found by code.
        past: of the candidates, before `state.now` and DAYS before that.
    """

    state: UserState
    candidates: Candidates
    items: ItemTable
    liked: IntArray
    liked_at: LongArray
    numbered: Numbered
    past: Past

    @classmethod
    def of(cls, state: UserState, candidates: Candidates, items: ItemTable) -> "Moment":
        """Return the moment of a request."""
        codes = candidates.item_codes
        past = items.timeline.past(codes, state.now, DAYS)
        return cls(state, candidates, items, state.liked, state.liked_at, Numbered.of(codes), past)

    @property
    def recent(self) -> IntArray:
        """The latest liked items, oldest first."""
        return self.liked[-RECENT_ITEMS:]


Feature = Callable[[Moment], Sequence[FloatArray | float]]
"""A moment to the columns of a group, each (n_candidates,) float32 or one number for all candidates."""


def offered_by(source: str) -> Feature:
    """A source's score, how far that is below the best candidate's, and the logarithm of the source's rank."""

    def offered(moment: Moment) -> Sequence[FloatArray | float]:
        scores = moment.candidates.score_of(source)
        gaps = scores - scores.max() if len(scores) else scores
        return scores, gaps, np.log(moment.candidates.rank_of(source))

    return offered


def n_sources(moment: Moment) -> Sequence[FloatArray | float]:
    """How many sources offered the item."""
    return (np.isfinite(moment.candidates.ranks).sum(axis=0).astype(np.float32),)


def pulled_by(link: str) -> Feature:
    """What the latest item says about the candidate; the one before it; the strongest of the latest; all together.

    Together they count with 1 / m, the m-th latest.
    """

    def pulled(moment: Moment) -> Sequence[FloatArray | float]:
        latest_first = moment.liked[-LINKED_ITEMS:][::-1]
        return tuple(moment.items.links[link].pulls(latest_first, moment.numbered))

    return pulled


def own_meetings(moment: Moment) -> Sequence[FloatArray | float]:
    """How often the user has met the item himself, and the days since he last did, nan for never."""
    n = len(moment.candidates.item_codes)
    places = moment.numbered.find(moment.liked)
    is_one = places >= 0
    if not is_one.any():
        return 0.0, np.nan
    latest = np.full(n, np.nan)
    latest[places[is_one]] = moment.liked_at[is_one]  # in time order: of several meetings the last stays
    meetings = np.bincount(places[is_one], minlength=n).astype(np.float32)
    return np.log1p(meetings), ((moment.state.now - latest) / SECONDS_A_DAY).astype(np.float32)


def popularity(moment: Moment) -> Sequence[FloatArray | float]:
    """How often the item was met: ever, within the last week, month and year; and its trend.

    That is the last week's popularity beside that of the month before it.
    """
    counts, *before = moment.past.counts
    by_days = [np.log1p(counts - earlier) for earlier in before]
    last_week, last_month = before[0], before[1]
    trend = by_days[0] - np.log1p((last_week - last_month) * WEEK / (MONTH - WEEK))
    return np.log1p(counts), *by_days, trend


def ages(moment: Moment) -> Sequence[FloatArray | float]:
    """Age of the item, and days since anybody met it."""
    return moment.past.days_since_first, moment.past.days_since_last


def user(moment: Moment) -> Sequence[FloatArray | float]:
    """How much is known of the user, the time since he was last seen, and how many items he met in the last hour."""
    now, liked_at = moment.state.now, moment.liked_at
    pause = np.log1p(max(0, now - int(liked_at[-1]))) if len(liked_at) else np.nan
    session = np.count_nonzero(liked_at > now - SESSION_SECONDS)
    return np.log1p(len(moment.state.item_codes)), pause, np.log1p(session)


def popularity_taste(moment: Moment) -> Sequence[FloatArray | float]:
    """How much more popular the item is than what the user takes on average."""
    if not len(moment.recent):
        return (np.nan,)
    usual = np.log1p(moment.items.timeline.counts(moment.recent, moment.state.now)).mean()
    return (np.log1p(moment.past.counts[0]) - usual,)


def similarity(moment: Moment) -> Sequence[FloatArray | float]:
    """Cosine of the item with the user's last one, with the nearest of his recent ones, and the mean of those."""
    recent = moment.recent
    if not len(recent):
        return -1.0, -1.0, 0.0
    vectors = moment.items.vectors
    cosines = vectors[moment.candidates.item_codes] @ vectors[recent].T  # (n_candidates, n_recent)
    nearest = np.maximum(cosines.max(axis=1), np.float32(-1))
    return np.maximum(cosines[:, -1], np.float32(-1)), nearest, cosines.sum(axis=1) / np.float32(len(recent))


def category_affinity(moment: Moment) -> Sequence[FloatArray | float]:
    """Share of the item's categories in the history, and in its recent items."""
    codes, masks = moment.candidates.item_codes, moment.items.categories
    return shared_tastes(masks, moment.liked, codes), shared_tastes(masks, moment.recent, codes)


def _of_source(name: str) -> tuple[str, ...]:
    return f"{name}_score", f"{name}_gap", f"{name}_log_rank"


def _of_link(link: str) -> tuple[str, ...]:
    name = link.replace("-", "")
    return f"{name}_last", f"{name}_second_last", f"{name}_strongest", f"{name}_sum"


GROUPS: dict[tuple[str, ...], Feature] = {
    _of_source("tower"): offered_by("tower"),
    _of_source("covisitation"): offered_by(COVISITATION),
    _of_source("similar"): offered_by(SIMILAR),
    ("n_sources",): n_sources,
    **{_of_link(link): pulled_by(link) for link in LINK_NAMES},
    ("user_log_item_count", "user_days_since_item"): own_meetings,
    ("item_log_count", "item_log_week", "item_log_month", "item_log_year", "item_trend"): popularity,
    ("item_days_known", "item_days_idle"): ages,
    ("user_log_history", "user_log_pause", "user_log_session"): user,
    ("popularity_taste",): popularity_taste,
    ("similarity_to_last", "similarity_to_nearest", "similarity_to_recent"): similarity,
    ("category_affinity", "category_affinity_recent"): category_affinity,
}
"""Names of the columns to what computes them."""
FEATURES = tuple(name for names in GROUPS for name in names)


def features(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:
    """Return (n_candidates, n_features) float32, columns in the order of FEATURES, nan where a value is unknown.

    Each column lies in one piece in memory.
    """
    moment = Moment.of(state, candidates, items)
    columns = np.empty((len(FEATURES), len(candidates.item_codes)), dtype=np.float32)
    place = 0
    for group in GROUPS.values():
        for column in group(moment):
            columns[place] = column
            place += 1
    return columns.T
