"""What the ranker sees. Training and serving both call `features`; there is no other definition.

To add a feature: write a function that sets its column, add it to GROUPS. The names travel in the bundle's manifest. A
feature may read only what was known at `state.now`; `Timeline` gives every statistic as of a moment. What is computed
together is one group: a request has a few hundred candidates, so that a call costs more than what it computes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import FloatArray, IntArray, LongArray
from rec_engine.data.kernels import shared_tastes, showings_of
from rec_engine.data.rows import Rows
from rec_engine.data.state import UserState
from rec_engine.data.take_rates import TakeRates
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
        rates: how often they were looked at and taken lately; None where nothing is known of it.
    """

    vectors: Rows
    timeline: Timeline
    categories: NDArray[np.uint64]
    links: Mapping[str, Links]
    rates: TakeRates | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """One request as the features see it: who asks, what is on offer, and what they share.

    Attributes:
        state: of the user.
        candidates: what is on offer, (n_candidates,) items.
        items: what is known of the items.
        liked: the user's items with a positive weight, oldest first.
        liked_at: when he met them.
        met: (len(liked),) int32, the place of each of them among the candidates, -1 where it is none.
        numbered: the candidates, to be found by code.
        past: of the candidates, before `state.now` and DAYS before that.
    """

    state: UserState
    candidates: Candidates
    items: ItemTable
    liked: IntArray
    liked_at: LongArray
    met: IntArray
    numbered: Numbered
    past: Past

    @classmethod
    def of(cls, state: UserState, candidates: Candidates, items: ItemTable) -> "Moment":
        """Return the moment of a request."""
        codes = candidates.item_codes
        past, numbered = items.timeline.past(codes, state.now, DAYS), Numbered.of(codes)
        return cls(state, candidates, items, state.liked, state.liked_at, numbered.find(state.liked), numbered, past)

    @property
    def recent(self) -> IntArray:
        """The latest liked items, oldest first."""
        return self.liked[-RECENT_ITEMS:]


Feature = Callable[[Moment, FloatArray], None]
"""Sets the columns of a group, (n_names, n_candidates) float32, each column in one piece."""


def offered(moment: Moment, columns: FloatArray) -> None:
    """Of each source its score, how far that is below the best candidate's, and the logarithm of its rank."""
    rows = [moment.candidates.sources.index(source) for source in PERSONAL]
    columns[0::3] = scores = moment.candidates.scores[rows]
    if scores.size:
        np.subtract(scores, scores.max(axis=1, keepdims=True), out=columns[1::3])
    np.log(moment.candidates.ranks[rows], out=columns[2::3])


def n_sources(moment: Moment, columns: FloatArray) -> None:
    """How many sources offered the item."""
    columns[0] = np.isfinite(moment.candidates.ranks).sum(axis=0)


def pulled(moment: Moment, columns: FloatArray) -> None:
    """Of each kind of link what the latest item says, the one before it, the strongest of the latest, and all together.

    Together they count with 1 / m, the m-th latest.
    """
    latest_first = moment.liked[-LINKED_ITEMS:][::-1]
    for place, link in enumerate(LINK_NAMES):
        moment.items.links[link].pulls(latest_first, moment.numbered, columns[4 * place : 4 * place + 4])


def own_meetings(moment: Moment, columns: FloatArray) -> None:
    """How often the user has met the item himself, and the days since he last did, nan for never."""
    places = moment.met
    is_one = places >= 0
    columns[0], columns[1] = 0, np.nan
    if is_one.any():
        columns[0] = np.log1p(np.bincount(places[is_one], minlength=columns.shape[1]).astype(np.float32))
        # In time order: of several meetings the last stays.
        columns[1, places[is_one]] = (moment.state.now - moment.liked_at[is_one]) / SECONDS_A_DAY


def own_showings(moment: Moment, columns: FloatArray) -> None:
    """How often the item was shown to the user, and how often he may have looked since he last met it.

    Then the days since he was last shown it, nan for never; and how often he may have looked at any item at all. What
    was shown within the last hour does not count.
    """
    shown, now = moment.state.shown.settled(moment.state.now), moment.state.now
    places = moment.numbered.find(shown.item_codes)
    showings_of(places, shown.looks, shown.timestamps, moment.met, moment.liked_at, now, columns)


def take_rates(moment: Moment, columns: FloatArray) -> None:
    """How often anybody may have looked at the item lately when it was shown, and how often it is taken for a look.

    Both are 0 for an item of which nothing is known, and for all items where no log says what was shown.
    """
    if moment.items.rates is None:
        columns[:] = 0
    else:
        moment.items.rates.set(moment.candidates.item_codes, moment.state.now, columns)


def popularity(moment: Moment, columns: FloatArray) -> None:
    """How often the item was met: ever, within the last week, month and year; and its trend.

    That is the last week's popularity beside that of the month before it.
    """
    counts = moment.past.counts
    _, week, month, _ = counts
    columns[0] = counts[0]
    np.subtract(counts[0], counts[1:], out=columns[1:4])
    np.divide((week - month) * WEEK, MONTH - WEEK, out=columns[4])
    np.log1p(columns, out=columns)
    np.subtract(columns[1], columns[4], out=columns[4])


def ages(moment: Moment, columns: FloatArray) -> None:
    """Age of the item, and days since anybody met it."""
    columns[0], columns[1] = moment.past.days_since_first, moment.past.days_since_last


def user(moment: Moment, columns: FloatArray) -> None:
    """How much is known of the user, the time since he was last seen, and how many items he met in the last hour."""
    now, liked_at = moment.state.now, moment.liked_at
    columns[0] = np.log1p(len(moment.state.item_codes))
    columns[1] = np.log1p(max(0, now - int(liked_at[-1]))) if len(liked_at) else np.nan
    columns[2] = np.log1p(np.count_nonzero(liked_at > now - SESSION_SECONDS))


def popularity_taste(moment: Moment, columns: FloatArray) -> None:
    """How much more popular the item is than what the user takes on average."""
    columns[0] = np.nan
    if len(moment.recent):
        usual = np.log1p(moment.items.timeline.counts(moment.recent, moment.state.now)).mean()
        np.subtract(np.log1p(moment.past.counts[0]), usual, out=columns[0])


def similarity(moment: Moment, columns: FloatArray) -> None:
    """Cosine of the item with the user's last one, with the nearest of his recent ones, and the mean of those."""
    recent, vectors = moment.recent, moment.items.vectors
    columns[0], columns[1], columns[2] = -1, -1, 0
    if len(recent):
        cosines = vectors[recent] @ vectors[moment.candidates.item_codes].T  # (n_recent, n_candidates)
        np.maximum(columns[0], cosines[-1], out=columns[0])
        np.maximum(columns[1], cosines.max(axis=0), out=columns[1])
        np.divide(cosines.sum(axis=0), np.float32(len(recent)), out=columns[2])


def category_affinity(moment: Moment, columns: FloatArray) -> None:
    """Share of the item's categories in the history, and in its recent items."""
    codes, masks = moment.candidates.item_codes, moment.items.categories
    columns[0], columns[1] = shared_tastes(masks, moment.liked, codes), shared_tastes(masks, moment.recent, codes)


def _each(sources: Sequence[str], *figures: str) -> tuple[str, ...]:
    return tuple(f"{source.replace('-', '')}_{figure}" for source in sources for figure in figures)


PERSONAL = ("tower", COVISITATION, SIMILAR)
"""The sources that have something to say of every candidate, to every user."""
GROUPS: dict[tuple[str, ...], Feature] = {
    _each(PERSONAL, "score", "gap", "log_rank"): offered,
    ("n_sources",): n_sources,
    _each(LINK_NAMES, "last", "second_last", "strongest", "sum"): pulled,
    ("user_log_item_count", "user_days_since_item"): own_meetings,
    ("item_log_count", "item_log_week", "item_log_month", "item_log_year", "item_trend"): popularity,
    ("item_days_known", "item_days_idle"): ages,
    ("user_log_history", "user_log_pause", "user_log_session"): user,
    ("popularity_taste",): popularity_taste,
    ("similarity_to_last", "similarity_to_nearest", "similarity_to_recent"): similarity,
    ("category_affinity", "category_affinity_recent"): category_affinity,
    ("user_log_item_shown", "user_log_item_looks", "user_days_since_shown", "user_log_looks"): own_showings,
    ("item_log_looks", "item_take_rate"): take_rates,
}
"""Names of the columns to what computes them."""
OF_SHOWINGS = next(names for names, group in GROUPS.items() if group is own_showings)
"""Those that read what the user was shown."""
OF_LOOKS = next(names for names, group in GROUPS.items() if group is take_rates)
"""Those that read what everybody was shown."""
FEATURES = tuple(name for names in GROUPS for name in names)
SPEAKING_FOR: frozenset[str] = frozenset(
    (
        *_each(PERSONAL, "score", "gap"),
        *_each(LINK_NAMES, "last", "second_last", "strongest", "sum"),
        "n_sources",
        "similarity_to_last",
        "similarity_to_nearest",
        "similarity_to_recent",
        "category_affinity",
        "category_affinity_recent",
    )
)
SPEAKING_AGAINST: frozenset[str] = frozenset(_each(PERSONAL, "log_rank"))
"""Features of which more speaks for an item, or against it, if all others are the same; the rest may do either."""
DIRECTIONS = tuple((name in SPEAKING_FOR) - (name in SPEAKING_AGAINST) for name in FEATURES)
"""1, -1 or 0 for each of FEATURES."""


def features(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:
    """Return (n_candidates, n_features) float32, columns in the order of FEATURES, nan where a value is unknown.

    Each column lies in one piece in memory.
    """
    moment = Moment.of(state, candidates, items)
    columns = np.empty((len(FEATURES), len(candidates.item_codes)), dtype=np.float32)
    first = 0
    for names, group in GROUPS.items():
        group(moment, columns[first : first + len(names)])
        first += len(names)
    return columns.T
