"""Who decides what the simulated people see: what a policy is asked, what it answers, and four plain ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import BoolArray, FloatArray, LongArray
from rec_engine.data.simulated_world import NOTHING, World

TASTE_IN_SLATE, INTENT_OF_LAST_ITEM = 4.5, 0.6


@dataclass(frozen=True, slots=True)
class Asked:
    """People who want a page at about the same time. Codes are rows of the world's frames.

    Attributes:
        user_codes: (n,) int64, each at most once.
        moments: (n,) int64, Unix seconds.
        k: items wanted.
        recent_item_codes: (n,) int64, what was clicked last in this visit; NOTHING before the first click.
        eligible: (n, n_items) bool: released, not clicked by the user before, and not shown in this visit yet.
        item_clicks: (n_items,) int64, clicks of everybody so far.
    """

    user_codes: LongArray
    moments: LongArray
    k: int
    recent_item_codes: LongArray
    eligible: BoolArray
    item_clicks: LongArray


@dataclass(frozen=True, slots=True)
class Shown:
    """Pages.

    Attributes:
        item_codes: (n, k) int64, best place first; NOTHING behind the last item of a shorter page.
        propensities: (n, k) float32, the probability with which each was shown at its place, given those above; None
            where nothing was left to chance.
    """

    item_codes: LongArray
    propensities: FloatArray | None = None


Recommend = Callable[[Asked], Shown]
"""A policy, or whoever asks a service on its behalf."""


class RandomPolicy:
    """Shows anything that is eligible, each order as probable as any other.

    Args:
        seed: of the draws.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def __call__(self, asked: Asked) -> Shown:
        """Return a page for each who asks."""
        keys = self._rng.random(asked.eligible.shape, dtype=np.float32)
        left = asked.eligible.sum(axis=1)[:, None] - np.arange(asked.k)
        return Shown(_best(keys, asked), (1 / np.maximum(left, 1)).astype(np.float32))


class PopularityPolicy:
    """Shows what was clicked most so far, ties by item code."""

    def __call__(self, asked: Asked) -> Shown:
        """Return a page for each who asks."""
        n_items = len(asked.item_clicks)
        place = np.empty(n_items, dtype=np.int64)
        place[np.argsort(-asked.item_clicks, kind="stable")] = np.arange(n_items)
        return Shown(_best(np.broadcast_to(n_items - place, asked.eligible.shape).astype(np.float32), asked))


class OraclePolicy:
    """Knows the truth: shows what attracts most. No page is worth more expected clicks, in either click model.

    Args:
        world: the truth.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, asked: Asked) -> Shown:
        """Return a page for each who asks."""
        return Shown(_best(self._world.attraction_of_all(asked.user_codes, asked.moments), asked))


class OrganicPolicy:
    """What a shop shows that has no engine: what fits the taste, the last click and popularity, drawn.

    A page is drawn without repetition in proportion to exp(4.5 fit + log popularity), so its propensities are known
    (Plackett and Luce): weight / (weight of all that is eligible and not above).

    Args:
        world: the truth; people find their way without being recommended anything.
        seed: of the draws.

    References:
        Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006: the smallest exponentials by weight.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._world, self._rng = world, np.random.default_rng(seed)

    def __call__(self, asked: Asked) -> Shown:
        """Return a page for each who asks."""
        world = self._world
        last = np.where(
            asked.recent_item_codes[:, None] == NOTHING, np.float32(0), world.item_vectors[asked.recent_item_codes]
        )
        intent = world.taste(asked.user_codes, world.days(asked.moments)) + np.float32(INTENT_OF_LAST_ITEM) * last
        worth = np.float32(TASTE_IN_SLATE) * (intent @ world.item_vectors.T) + world.log_popularity
        worth[~asked.eligible] = -np.inf
        best = np.maximum(worth.max(axis=1, keepdims=True), np.finfo(np.float32).min)
        weights = np.exp(worth - best)
        waiting = self._rng.standard_exponential(weights.shape, dtype=np.float32)
        keys = weights / np.maximum(waiting, np.finfo(np.float32).tiny)
        item_codes = _best(keys, asked)
        return Shown(item_codes, _plackett_luce(weights, item_codes))


def _plackett_luce(weights: FloatArray, item_codes: LongArray) -> FloatArray:
    """Return (n, k) float32: the probability of each item at its place, given those above."""
    shown = np.take_along_axis(weights, np.maximum(item_codes, 0), axis=1).astype(np.float64)
    above = np.cumsum(shown, axis=1) - shown
    left = np.maximum(weights.sum(axis=1, dtype=np.float64)[:, None] - above, shown)
    share = np.divide(shown, left, out=np.ones_like(shown), where=left > 0)
    propensities: FloatArray = np.maximum(share, np.finfo(np.float32).tiny).astype(np.float32)
    return propensities


def _best(scores: FloatArray, asked: Asked) -> LongArray:
    """Return (n, k) int64: the eligible items with the highest scores (n, n_items), NOTHING where there are too few."""
    k = min(asked.k, scores.shape[1])
    scores = np.where(asked.eligible, scores, -np.inf)
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    best = np.take_along_axis(
        best, np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable"), axis=1
    )
    best = np.where(np.take_along_axis(asked.eligible, best, axis=1), best, NOTHING)
    return np.pad(best, ((0, 0), (0, asked.k - k)), constant_values=NOTHING).astype(np.int64)
