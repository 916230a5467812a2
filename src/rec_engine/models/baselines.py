"""The models that everything else has to beat. All are inductive: scores come from the history they are given."""

from typing import Any, ClassVar, Protocol

import numpy as np
from scipy import sparse

from rec_engine.data.dataset import FloatArray, IntArray, Interactions, LongArray
from rec_engine.data.kernels import distinct_users
from rec_engine.data.timeline import SECONDS_A_DAY
from rec_engine.errors import TrainingError
from rec_engine.evaluation.evaluator import Scorer

MAX_EASE_ITEMS = 12_500
"""EASE needs 24 bytes a pair of items while it is fitted: 3.8 GB for so many."""

MAX_INT32 = np.iinfo(np.int32).max

Setting = dict[str, float]


class Baseline(Protocol):
    """Fitted by its constructor's `fit`, then scores whole catalogues."""

    name: ClassVar[str]
    GRID: ClassVar[tuple[Setting, ...]]

    def fit(self, train: Interactions, n_items: int) -> None:
        """Learn from the positive interactions of `train`."""
        ...

    def scorer(self, history: Interactions) -> Scorer:
        """Return a function from user codes (n,) to scores (n, n_items) float32, given these histories."""
        ...


class Popularity:
    """Distinct users of each item, the same list for everybody."""

    name: ClassVar[str] = "popularity"
    GRID: ClassVar[tuple[Setting, ...]] = ({},)

    def fit(self, train: Interactions, n_items: int) -> None:
        """Count distinct users an item."""
        past = train.positive()
        self.popularity = distinct_users(past.item_codes, past.starts, n_items)

    def scorer(self, history: Interactions) -> Scorer:  # noqa: ARG002
        """Return popularity for everybody."""
        return lambda user_codes: np.tile(self.popularity, (len(user_codes), 1))


class RecentPopularity:
    """Interactions of each item in the last days of the training data.

    Args:
        days: length of the period that counts.
    """

    name: ClassVar[str] = "recent popularity"
    GRID: ClassVar[tuple[Setting, ...]] = ({"days": 7}, {"days": 30}, {"days": 90}, {"days": 365})

    def __init__(self, days: float = 30) -> None:
        self.days = days

    def fit(self, train: Interactions, n_items: int) -> None:
        """Count interactions in the last `days`."""
        since = train.timestamps.max(initial=0) - self.days * SECONDS_A_DAY
        is_recent = train.mask(lambda part: (part.timestamps >= since) & (part.weights > 0))
        self.popularity = train.where(is_recent).item_counts(n_items).astype(np.float32)

    def scorer(self, history: Interactions) -> Scorer:  # noqa: ARG002
        """Return recent popularity for everybody."""
        return lambda user_codes: np.tile(self.popularity, (len(user_codes), 1))


class Covisitation:
    """What followed the user's latest items in other users' histories.

    C[i, j] = sum over histories where j comes d <= window places after i of 1 / d; the score of j is the sum over the
    user's `last` items, the m-th latest weighted 1 / m, of C[i, j] / (interactions of j) ^ damping. It learns nothing
    and is hard to beat (Han et al., arXiv 2605.07125).

    Args:
        last: latest items of the user that count.
        window: places after an item that count.
        damping: 0 keeps popular followers as they are, 0.5 divides by the root of their popularity.
    """

    name: ClassVar[str] = "co-visitation"
    GRID: ClassVar[tuple[Setting, ...]] = (
        {"last": 10, "window": 10, "damping": 0.0},
        {"last": 10, "window": 10, "damping": 0.35},
        {"last": 10, "window": 10, "damping": 0.5},
        {"last": 5, "window": 5, "damping": 0.35},
        {"last": 10, "window": 20, "damping": 0.35},
        {"last": 20, "window": 20, "damping": 0.35},
    )

    def __init__(self, last: float = 10, window: float = 10, damping: float = 0.35) -> None:
        self.last, self.window, self.damping = int(last), int(window), damping

    def fit(self, train: Interactions, n_items: int) -> None:
        """Count what follows what."""
        decay = (1 / np.arange(1, self.window + 1)).astype(np.float32)
        counts = followers(train, n_items, decay)
        popularity = np.maximum(train.positive().item_counts(n_items), 1).astype(np.float32)
        counts.data /= popularity[counts.indices] ** self.damping
        self.followers = counts

    def scorer(self, history: Interactions) -> Scorer:
        """Return the summed followers of the latest items."""
        past = history.positive()

        def score(user_codes: IntArray) -> FloatArray:
            own = past.of_users(user_codes)
            from_end = _from_end(own)
            latest = own.where(from_end <= self.last)
            weights = (1 / from_end[from_end <= self.last]).astype(np.float32)
            shape = (len(user_codes), self.followers.shape[0])
            recent = sparse.csr_array((weights, latest.item_codes, latest.starts), shape=shape)
            scores: FloatArray = (recent @ self.followers).toarray()
            return scores

        return score


def _from_end(past: Interactions) -> LongArray:
    """Return (n,) int64: 1 for the latest interaction of each user, 2 for the one before."""
    from_end: LongArray = np.repeat(past.starts[1:], np.diff(past.starts)) - np.arange(len(past))
    return from_end


def followers(train: Interactions, n_items: int, decay: FloatArray) -> "sparse.csr_array[Any, Any]":
    """Return (n_items, n_items) float32: how often j came after i, counted decay[d - 1] when it came d places after."""
    past = train.positive()
    parts = (_followers(past.of_range(users), n_items, decay) for users in past.user_blocks())
    return sum(parts, sparse.csr_array((n_items, n_items), dtype=np.float32))


def _followers(past: Interactions, n_items: int, decay: FloatArray) -> "sparse.csr_array[Any, Any]":
    users, items = past.user_codes, past.item_codes
    counts = sparse.csr_array((n_items, n_items), dtype=np.float32)
    for distance, weight in enumerate(decay, start=1):
        same = users[distance:] == users[:-distance]
        pair = (items[:-distance][same], items[distance:][same])
        weights = np.full(len(pair[0]), weight, dtype=np.float32)
        counts = counts + sparse.csr_array((weights, pair), shape=(n_items, n_items))
    return counts


class ItemKNN:
    """Items similar to those of the history: shrunk cosine of who met them, the nearest neighbours of each item.

    s(i, j) = n_ij / (sqrt(n_i n_j) + shrink)

    Args:
        neighbours: kept for each item.
        shrink: distrust of small numbers.

    References:
        Ferrari Dacrema et al., Are we really making much progress?, RecSys 2019.
    """

    name: ClassVar[str] = "ItemKNN"
    GRID: ClassVar[tuple[Setting, ...]] = (
        {"neighbours": 5, "shrink": 10},
        {"neighbours": 10, "shrink": 10},
        {"neighbours": 20, "shrink": 10},
        {"neighbours": 50, "shrink": 10},
        {"neighbours": 100, "shrink": 10},
        {"neighbours": 200, "shrink": 100},
    )
    ITEMS_A_BLOCK = 1_024

    def __init__(self, neighbours: float = 100, shrink: float = 10) -> None:
        self.neighbours, self.shrink = int(neighbours), shrink

    def fit(self, train: Interactions, n_items: int) -> None:
        """Find each item's nearest neighbours."""
        met = _binary(train, n_items)
        norms = np.sqrt(np.asarray(met.sum(axis=0), dtype=np.float32).ravel())
        by_item = sparse.csr_array(met.T)
        blocks = []
        for first in range(0, n_items, self.ITEMS_A_BLOCK):
            rows = np.arange(first, min(first + self.ITEMS_A_BLOCK, n_items))
            similarity = (by_item[rows] @ met).toarray() / (norms[rows, None] * norms + self.shrink + 1e-9)
            similarity[np.arange(len(rows)), rows] = 0
            blocks.append(_largest_of_each_row(similarity, self.neighbours))
        self.similarity = sparse.csr_array(sparse.vstack(blocks))

    def scorer(self, history: Interactions) -> Scorer:
        """Return the summed similarity to the items of the history."""
        n_items = self.similarity.shape[0]
        return lambda user_codes: (_binary(history.of_users(user_codes), n_items) @ self.similarity).toarray()


class EASE:
    """A linear model of every item on all others, in closed form.

    P = (X^T X + regularisation I)^-1;  B_ij = -P_ij / P_jj, zero on the diagonal;  scores = X B

    Args:
        regularisation: L2 weight; larger for more users an item.

    References:
        Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019 (arXiv 1905.03375), eq. 8.
    """

    name: ClassVar[str] = "EASE"
    GRID: ClassVar[tuple[Setting, ...]] = (
        {"regularisation": 50},
        {"regularisation": 150},
        {"regularisation": 500},
        {"regularisation": 1_000},
        {"regularisation": 3_000},
    )

    def __init__(self, regularisation: float = 250) -> None:
        self.regularisation = regularisation

    def fit(self, train: Interactions, n_items: int) -> None:
        """Invert the item-item matrix.

        Raises:
            TrainingError: if the catalogue is too large for it.
        """
        if n_items > MAX_EASE_ITEMS:
            raise TrainingError(
                f"EASE inverts a matrix of {n_items:,} x {n_items:,}: {16 * n_items**2 / 1e9:.0f} GB",
                hint=f"it is fitted on catalogues of up to {MAX_EASE_ITEMS:,} items",
            )
        gram = np.zeros((n_items, n_items))
        for users in train.user_blocks():
            met = _binary(train.of_range(users), n_items)
            gram += (met.T @ met).toarray()
        gram[np.diag_indices(n_items)] += self.regularisation
        inverse = np.linalg.inv(gram)
        weights = inverse / -np.diag(inverse)
        weights[np.diag_indices(n_items)] = 0
        self.weights: FloatArray = weights.astype(np.float32)

    def scorer(self, history: Interactions) -> Scorer:
        """Return X B of the histories."""
        return lambda user_codes: _binary(history.of_users(user_codes), len(self.weights)) @ self.weights


class OwnHistory:
    """What the user has met before, the m-th latest meeting with 1 / m ^ decay: hard to beat where items come again.

    Args:
        decay: 0 counts every meeting alike, 1 goes by the latest ones.
    """

    name: ClassVar[str] = "own history"
    GRID: ClassVar[tuple[Setting, ...]] = ({"decay": 0.0}, {"decay": 0.5}, {"decay": 1.0})

    def __init__(self, decay: float = 0.5) -> None:
        self.decay = decay

    def fit(self, train: Interactions, n_items: int) -> None:  # noqa: ARG002 - it looks at nobody else
        """Remember the size of the catalogue."""
        self.n_items = n_items

    def scorer(self, history: Interactions) -> Scorer:
        """Return the summed weights of the meetings."""
        past = history.positive()

        def score(user_codes: IntArray) -> FloatArray:
            own = past.of_users(user_codes)
            weights = (_from_end(own) ** -self.decay).astype(np.float32)
            met = sparse.csr_array((weights, own.item_codes, own.starts), shape=(len(user_codes), self.n_items))
            scores: FloatArray = met.toarray()
            return scores

        return score


BASELINES: dict[str, type[Baseline]] = {
    baseline.name: baseline for baseline in (Popularity, RecentPopularity, Covisitation, ItemKNN, EASE)
}


def _binary(interactions: Interactions, n_items: int) -> sparse.csr_array:
    """Return (n_users, n_items) float32 of ones where a user met an item with a positive weight."""
    past = interactions.positive()
    ones = np.ones(len(past), dtype=np.float32)
    # Codes and starts of one type, so that none of them grows; copies, for summing duplicates changes them in place.
    starts: IntArray | LongArray = past.starts.astype(np.int32) if len(past) < MAX_INT32 else past.starts.copy()
    met = sparse.csr_array((ones, past.item_codes.copy(), starts), shape=(past.n_users, n_items))
    met.sum_duplicates()
    met.data[:] = 1
    return met


def _largest_of_each_row(dense: FloatArray, k: int) -> sparse.csr_array:
    if k < dense.shape[1]:
        columns: IntArray = np.argsort(-dense, axis=1, kind="stable")[:, :k].astype(np.int32)
    else:
        columns = np.tile(np.arange(dense.shape[1], dtype=np.int32), (len(dense), 1))
    values = np.take_along_axis(dense, columns, axis=1)
    rows = np.repeat(np.arange(len(dense)), columns.shape[1])
    kept = sparse.csr_array((values.ravel(), (rows, columns.ravel())), shape=dense.shape)
    kept.eliminate_zeros()
    return kept
