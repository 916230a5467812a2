"""What lists are like apart from being right: varied, true to a user's tastes, no more of the popular than he takes."""

import numpy as np
from scipy import sparse

from rec_engine.data.dataset import FloatArray, IntArray, Interactions, LongArray
from rec_engine.evaluation.metrics import DoubleArray, intra_list_distance

SMOOTHING = 0.01
USERS_A_BLOCK = 1_024


def beyond_accuracy(
    ranked: IntArray, user_codes: IntArray, history: Interactions, categories: FloatArray, k: int
) -> dict[str, DoubleArray]:
    """Return "diversity@k", "miscalibration@k" and "popularity_lift@k", each (n_users,), nan where undefined.

    Args:
        ranked: (n_users, >= k) item codes, best first, -1 for no item.
        user_codes: (n_users,) int32, whose lists they are.
        history: what is known of all users.
        categories: (n_items, n_categories) float32, rows summing to 1, or 0 for an item without categories.
        k: length of the lists.
    """
    top, history = ranked[:, :k], history.positive()
    none = (categories.sum(axis=1, keepdims=True) == 0).astype(np.float32)
    found: dict[str, list[DoubleArray]] = {"diversity": [], "miscalibration": [], "popularity_lift": []}
    popularity = history.item_counts(len(categories)).astype(np.float64)
    for first in range(0, len(top), USERS_A_BLOCK):
        lists, users = top[first : first + USERS_A_BLOCK], user_codes[first : first + USERS_A_BLOCK]
        varied = intra_list_distance(lists, np.hstack([categories, none]))
        found["diversity"].append(varied if categories.any() else np.full(len(lists), np.nan))
        found["miscalibration"].append(miscalibration(lists, users, history, categories))
        found["popularity_lift"].append(popularity_lift(lists, users, history, popularity))
    return {f"{name}@{k}": np.concatenate([*blocks, np.empty(0)]) for name, blocks in found.items()}


def miscalibration(lists: IntArray, user_codes: IntArray, history: Interactions, categories: FloatArray) -> DoubleArray:
    """Return (n_users,): how far the categories of a list are from those of the history; 0 is the same mix.

    KL(p || (1 - a) q + a p) with p the history's and q the list's share of each category, a = SMOOTHING.

    References:
        Steck, Calibrated recommendations, RecSys 2018.
    """
    past = _shares(*_rows_of(history, user_codes), len(user_codes), categories)
    shown = lists >= 0
    rows = np.broadcast_to(np.arange(len(lists))[:, None], lists.shape)
    listed = _shares(rows[shown], lists[shown], len(lists), categories)
    mixed = (1 - SMOOTHING) * listed + SMOOTHING * past
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(past > 0, past * np.log(past / mixed), 0.0)
    divergence: DoubleArray = np.where(np.isnan(past + listed).any(axis=1), np.nan, terms.sum(axis=1))
    return divergence


def popularity_lift(
    lists: IntArray, user_codes: IntArray, history: Interactions, popularity: DoubleArray
) -> DoubleArray:
    """Return (n_users,): mean popularity of a list over that of the history, minus 1; 0 is no push to the popular.

    References:
        Abdollahpouri et al., The unfairness of popularity bias in recommendation, 2019.
    """
    rows, items = _rows_of(history, user_codes)
    usual = _means(rows, popularity[items], len(user_codes))
    shown = lists >= 0
    places = np.broadcast_to(np.arange(len(lists))[:, None], lists.shape)[shown]
    lift: DoubleArray = _means(places, popularity[lists[shown]], len(lists)) / usual - 1
    return lift


def _shares(rows: IntArray | LongArray, items: IntArray, n_rows: int, categories: FloatArray) -> DoubleArray:
    """Return (n_rows, n_categories) float64 summing to 1, nan where no item of the row has a category."""
    met = sparse.csr_array((np.ones(len(rows)), (rows, items)), shape=(n_rows, len(categories)))
    summed = met @ categories
    total = summed.sum(axis=1, keepdims=True)
    shares: DoubleArray = np.where(total > 0, summed / np.where(total > 0, total, 1), np.nan)
    return shares


def _means(rows: IntArray | LongArray, values: DoubleArray, n_rows: int) -> DoubleArray:
    counts = np.bincount(rows, minlength=n_rows)
    means: DoubleArray = np.where(counts > 0, np.bincount(rows, values, n_rows) / np.maximum(counts, 1), np.nan)
    return means


def _rows_of(history: Interactions, user_codes: IntArray) -> tuple[IntArray, IntArray]:
    """Return place in `user_codes` and item code of everything these users have met."""
    theirs = history.of_users(user_codes)
    return theirs.user_codes, theirs.item_codes
