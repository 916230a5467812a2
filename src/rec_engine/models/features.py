"""What the ranker sees. Training and serving both call `features`; there is no other definition.

To add a feature: write a function, add it to FEATURES. The names travel in the bundle's manifest.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.data.state import SECONDS_A_DAY, ItemStats, UserState
from rec_engine.retrieval.candidates import Candidates

RECENT_ITEMS = 10


@dataclass(frozen=True, slots=True)
class ItemTable:
    """What the features know of the items, all of it as of one cut-off.

    Attributes:
        vectors: (n_items, dim) float32, the item tower's, L2-normalised.
        log_users: (n_items,) float32, log(1 + distinct users).
        log_recent: (n_items,) float32, log(1 + interactions in the days before the cut-off).
        days_known: (n_items,) float32, days from the first interaction to the cut-off, nan where there is none.
        days_idle: (n_items,) float32, days from the last interaction to the cut-off, nan where there is none.
    """

    vectors: FloatArray
    log_users: FloatArray
    log_recent: FloatArray
    days_known: FloatArray
    days_idle: FloatArray


def item_table(vectors: FloatArray, stats: ItemStats) -> ItemTable:
    """Return the table of features from the item tower's vectors and the statistics."""
    never = stats.n_users == 0
    return ItemTable(
        vectors=vectors,
        log_users=np.log1p(stats.n_users),
        log_recent=np.log1p(stats.n_recent),
        days_known=np.where(never, np.nan, (stats.cut_off - stats.first_seen) / SECONDS_A_DAY).astype(np.float32),
        days_idle=np.where(never, np.nan, (stats.cut_off - stats.last_seen) / SECONDS_A_DAY).astype(np.float32),
    )


Feature = Callable[[UserState, Candidates, ItemTable], FloatArray]


def tower_score(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:  # noqa: ARG001
    """Cosine of user and item vector; nan where the towers did not offer the item."""
    return candidates.score_of("tower")


def tower_gap(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:  # noqa: ARG001
    """How far the cosine is below the best candidate's."""
    scores = candidates.score_of("tower")
    return scores - np.nanmax(scores) if np.isfinite(scores).any() else scores


def item_log_users(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:  # noqa: ARG001
    """Popularity of the item."""
    return items.log_users[candidates.item_codes]


def item_log_recent(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:  # noqa: ARG001
    """Recent popularity of the item."""
    return items.log_recent[candidates.item_codes]


def item_days_known(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:  # noqa: ARG001
    """Age of the item."""
    return items.days_known[candidates.item_codes]


def item_days_idle(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:  # noqa: ARG001
    """Days since anybody met the item."""
    return items.days_idle[candidates.item_codes]


def user_log_history(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:  # noqa: ARG001
    """How much is known of the user."""
    return np.full(len(candidates.item_codes), np.log1p(len(state.item_codes)), dtype=np.float32)


def popularity_taste(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:
    """How much more popular the item is than what the user takes on average."""
    taken = items.log_users[_recent(state)]
    usual = taken.mean() if len(taken) else np.float32(np.nan)
    gap: FloatArray = items.log_users[candidates.item_codes] - usual
    return gap


def similarity_to_last(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:
    """Cosine of the item with the user's last one."""
    cosine: FloatArray = _similarity(_recent(state)[-1:], candidates, items).max(axis=1, initial=-1.0)
    return cosine


def similarity_to_nearest(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:
    """Highest cosine of the item with one of the user's recent ones."""
    cosine: FloatArray = _similarity(_recent(state), candidates, items).max(axis=1, initial=-1.0)
    return cosine


def similarity_to_recent(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:
    """Mean cosine of the item with the user's recent ones."""
    recent = _recent(state)
    mean: FloatArray = _similarity(recent, candidates, items).sum(axis=1) / np.float32(max(1, len(recent)))
    return mean


FEATURES: dict[str, Feature] = {
    feature.__name__: feature
    for feature in (
        tower_score,
        tower_gap,
        item_log_users,
        item_log_recent,
        item_days_known,
        item_days_idle,
        user_log_history,
        popularity_taste,
        similarity_to_last,
        similarity_to_nearest,
        similarity_to_recent,
    )
}


def features(state: UserState, candidates: Candidates, items: ItemTable) -> FloatArray:
    """Return (n_candidates, n_features) float32, columns in the order of FEATURES, nan where a value is unknown."""
    return np.column_stack([feature(state, candidates, items) for feature in FEATURES.values()]).astype(np.float32)


def _recent(state: UserState) -> IntArray:
    return state.liked[-RECENT_ITEMS:]


def _similarity(item_codes: IntArray, candidates: Candidates, items: ItemTable) -> FloatArray:
    """Return (n_candidates, n) cosines."""
    similarity: FloatArray = items.vectors[candidates.item_codes] @ items.vectors[item_codes].T
    return similarity
