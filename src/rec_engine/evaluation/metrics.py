"""Ranking metrics: per user first, the mean second. Every definition is the one that ranx and trec_eval use."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from rec_engine.errors import DataError

DoubleArray = NDArray[np.float64]
Metric = Callable[[BoolArray, LongArray, int], DoubleArray]


def precision(hits: BoolArray, n_relevant: LongArray, k: int) -> DoubleArray:
    """Return hits in the first k / k, per user; a list shorter than k is still divided by k.

    Args (of every metric here):
        hits: (n_users, >= k) bool, whether the item at each rank is relevant.
        n_relevant: (n_users,) relevant items of each user, recommended or not; users with none get nan.
        k: ranks that count.
    """
    return _defined(hits[:, :k].sum(axis=1) / k, n_relevant)


def recall(hits: BoolArray, n_relevant: LongArray, k: int) -> DoubleArray:
    """Return hits in the first k / n_relevant, per user (not / min(k, n_relevant), as some papers do)."""
    return _defined(hits[:, :k].sum(axis=1) / np.maximum(n_relevant, 1), n_relevant)


def f1(hits: BoolArray, n_relevant: LongArray, k: int) -> DoubleArray:
    """Return the harmonic mean of precision@k and recall@k, per user; 0 where both are."""
    return _defined(2 * hits[:, :k].sum(axis=1) / (k + np.maximum(n_relevant, 1)), n_relevant)


def hit_rate(hits: BoolArray, n_relevant: LongArray, k: int) -> DoubleArray:
    """Return 1 where at least one of the first k is relevant, else 0, per user."""
    return _defined(hits[:, :k].any(axis=1).astype(np.float64), n_relevant)


def reciprocal_rank(hits: BoolArray, n_relevant: LongArray, k: int) -> DoubleArray:
    """Return 1 / rank of the first relevant item, 0 where there is none in the first k, per user."""
    top = hits[:, :k]
    return _defined(np.where(top.any(axis=1), 1 / (1 + top.argmax(axis=1)), 0.0), n_relevant)


def average_precision(hits: BoolArray, n_relevant: LongArray, k: int) -> DoubleArray:
    """Return the sum of precision@rank over the relevant ranks up to k, / n_relevant, per user.

    Papers also divide by min(k, n_relevant) or by the hits; ranx and trec_eval divide by n_relevant.
    """
    top = hits[:, :k]
    at_rank = top.cumsum(axis=1) / np.arange(1, top.shape[1] + 1)
    return _defined((at_rank * top).sum(axis=1) / np.maximum(n_relevant, 1), n_relevant)


def ndcg(hits: BoolArray, n_relevant: LongArray, k: int) -> DoubleArray:
    """Return DCG@k / ideal DCG@k with binary gains, per user.

    DCG@k = sum over relevant ranks r <= k of 1 / log2(r + 1); the ideal list holds min(k, n_relevant) relevant items.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(n_relevant, k)]
    gained = hits[:, :k] @ discounts[: hits.shape[1]]
    return _defined(gained / np.where(ideal > 0, ideal, 1.0), n_relevant)


METRICS: dict[str, Metric] = {
    "ndcg": ndcg,
    "recall": recall,
    "precision": precision,
    "f1": f1,
    "hit_rate": hit_rate,
    "mrr": reciprocal_rank,
    "map": average_precision,
}
"""Accuracy metrics by the name they carry in reports."""


def hits_matrix(ranked: IntArray, item_codes: IntArray, starts: LongArray, n_items: int) -> BoolArray:
    """Return (n_users, k) bool: which ranks hold a relevant item; one that is repeated in a list counts once.

    Args:
        ranked: (n_users, k) item codes, best first, -1 for no item.
        item_codes: relevant items, those of user u in rows starts[u] to starts[u + 1].
        starts: (n_users + 1,).
        n_items: size of the catalogue.

    Raises:
        DataError: if a list holds a code outside the catalogue.
    """
    if ranked.size and not -1 <= ranked.min() <= ranked.max() < n_items:
        raise DataError(
            f"recommended item codes run from {ranked.min()} to {ranked.max()} in a catalogue of {n_items}",
            hint="codes lie in [0, n_items); -1 stands for no item",
        )
    rows = np.arange(len(ranked), dtype=np.int64)
    relevant = np.repeat(rows, np.diff(starts)) * n_items + item_codes
    keys = rows[:, None] * n_items + ranked
    hits = np.isin(keys, relevant) & (ranked >= 0)
    order = np.argsort(keys, axis=1, kind="stable")
    in_order = np.take_along_axis(keys, order, axis=1)
    repeated = np.zeros_like(hits)
    np.put_along_axis(repeated[:, :], order[:, 1:], in_order[:, 1:] == in_order[:, :-1], axis=1)
    return hits & ~repeated


def catalogue_coverage(ranked: IntArray, n_items: int) -> float:
    """Return the share of the catalogue that occurs in at least one list (codes as in `hits_matrix`)."""
    return len(np.unique(ranked[ranked >= 0])) / n_items


def gini(exposures: NDArray[np.generic]) -> float:
    """Return the Gini coefficient of (n_items,) exposure counts: 0 when all items are shown equally often.

    G = sum_i (2 i - n - 1) x_(i) / (n sum x), x ascending, i from 1; items never shown count with 0.
    """
    counts = np.sort(np.asarray(exposures, dtype=np.float64))
    n, total = len(counts), counts.sum()
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * total)) if total else 0.0


def exposure_counts(ranked: IntArray, n_items: int) -> LongArray:
    """Return (n_items,) int64: in how many places of the lists each item stands."""
    return np.bincount(ranked[ranked >= 0], minlength=n_items)


def mean_novelty(ranked: IntArray, users_by_item: FloatArray, n_users: int) -> float:
    """Return the mean self-information of the places in the lists, in bits: mean of -log2(users_i / n_users).

    An item that nobody has met counts as if one user had (Zhou et al., PNAS 2010).
    """
    information = -np.log2(np.maximum(users_by_item, 1) / max(n_users, 1))
    shown = ranked[ranked >= 0]
    return float(information[shown].mean()) if len(shown) else float("nan")


def intra_list_distance(ranked: IntArray, item_vectors: FloatArray) -> DoubleArray:
    """Return (n_users,) mean cosine distance over the pairs of each list; nan for lists of fewer than two items.

    Args:
        ranked: (n_users, k) item codes, -1 for no item.
        item_vectors: (n_items, dim), of any length but zero.
    """
    unit = item_vectors / np.linalg.norm(item_vectors, axis=1, keepdims=True)
    present = (ranked >= 0)[..., None]
    n = present.sum(axis=(1, 2)).astype(np.float64)
    total = np.where(present, unit[np.maximum(ranked, 0)], 0.0).sum(axis=1)
    pairs = n * (n - 1)
    similarity = (total * total).sum(axis=1) - n  # sum over ordered pairs of distinct items
    return np.where(pairs > 0, 1 - similarity / np.where(pairs > 0, pairs, 1), np.nan)


class RecommendationMetrics:
    """The same metrics for one recommended list and the relevant items, under any ids; nan without relevant items."""

    @staticmethod
    def precision_at_k(recommended: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
        """Return hits in the first k / k."""
        return _one(precision, recommended, relevant, k)

    @staticmethod
    def recall_at_k(recommended: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
        """Return hits in the first k / number of relevant items."""
        return _one(recall, recommended, relevant, k)

    @staticmethod
    def f1_at_k(recommended: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
        """Return the harmonic mean of precision@k and recall@k."""
        return _one(f1, recommended, relevant, k)

    @staticmethod
    def hit_rate(recommended: Sequence[Hashable], relevant: Collection[Hashable], k: int | None = None) -> float:
        """Return 1 if one of the first k (all, without k) is relevant, else 0."""
        return _one(hit_rate, recommended, relevant, k)

    @staticmethod
    def ndcg_at_k(recommended: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> float:
        """Return DCG@k / ideal DCG@k with binary gains; the ideal list holds min(k, relevant) items."""
        return _one(ndcg, recommended, relevant, k)

    @staticmethod
    def mean_reciprocal_rank(
        recommended: Sequence[Hashable], relevant: Collection[Hashable], k: int | None = None
    ) -> float:
        """Return 1 / rank of the first relevant item, 0 without one; the mean over users is the MRR."""
        return _one(reciprocal_rank, recommended, relevant, k)

    @staticmethod
    def average_precision(
        recommended: Sequence[Hashable], relevant: Collection[Hashable], k: int | None = None
    ) -> float:
        """Return the sum of precision@rank over the relevant ranks / number of relevant items."""
        return _one(average_precision, recommended, relevant, k)

    @staticmethod
    def coverage(lists: Sequence[Sequence[Hashable]], n_items: int) -> float:
        """Return the share of a catalogue of `n_items` that occurs in at least one list."""
        return len({item for items in lists for item in items}) / n_items

    @staticmethod
    def diversity(item_vectors: FloatArray) -> float:
        """Return the mean cosine distance over all pairs of one list's (n, dim) vectors; nan below two items."""
        return float(intra_list_distance(np.arange(len(item_vectors), dtype=np.int32)[None], item_vectors)[0])

    @staticmethod
    def novelty(lists: Sequence[Sequence[Hashable]], users_by_item: dict[Hashable, int], n_users: int) -> float:
        """Return the mean over all places of -log2(users who met the item / all users); nobody counts as one user."""
        counts = [users_by_item.get(item, 0) for items in lists for item in items]
        codes = np.arange(len(counts), dtype=np.int32)[None]
        return mean_novelty(codes, np.array(counts, dtype=np.float32), n_users)

    @staticmethod
    def gini(lists: Sequence[Sequence[Hashable]], n_items: int) -> float:
        """Return the Gini coefficient of how often each of `n_items` items is shown: 0 even, towards 1 uneven."""
        shown = list(Counter(item for items in lists for item in items).values())
        return gini(np.concatenate([np.zeros(n_items - len(shown)), shown]))


def _one(metric: Metric, recommended: Sequence[Hashable], relevant: Collection[Hashable], k: int | None) -> float:
    """Apply a metric to one list; repeated items count at their first rank only."""
    wanted, met = set(relevant), set[Hashable]()
    hits = np.zeros((1, max(len(recommended), 1)), dtype=np.bool_)
    for rank, item in enumerate(recommended):
        hits[0, rank] = item in wanted and item not in met
        met.add(item)
    return float(metric(hits, np.array([len(wanted)]), len(recommended) or 1 if k is None else k)[0])


def _defined(values: DoubleArray | np.float64, n_relevant: LongArray) -> DoubleArray:
    return np.where(n_relevant > 0, values, np.nan)
