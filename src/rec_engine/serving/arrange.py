"""From scores to a slate: diversity, caps and exploration. It orders and chooses among candidates, it never scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from rec_engine.models.features import ItemTable

POOL = 5
"""Candidates looked at for each item wanted, where an order heeds more than scores."""
MIN_POOL = 50


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What an order heeds beside the scores.

    Attributes:
        diversity: 0 to 1; how much likeness to the items above counts against an item.
        caps: attribute to the most items that may share a value of it, as far as there are others.
        labels: attribute to (n_items,) int32 values, -1 for none; of the attributes in `caps`.
        exploration: temperature in log-odds; above 0 the order is drawn, so that others get their chance too. What is
            shown then has known probabilities, which diversity would take from it: only one of the two can be had.
        seed: of the draw.
    """

    diversity: float = 0.0
    caps: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, IntArray] = field(default_factory=dict)
    exploration: float = 0.0
    seed: int = 0

    @property
    def is_by_score(self) -> bool:
        """Whether scores alone decide."""
        return not (self.diversity or self.caps or self.exploration)


BY_SCORE = Arrangement()


@dataclass(frozen=True, slots=True)
class Slate:
    """Which candidates are shown, in order.

    Attributes:
        places: (n,) int64, places in the candidates.
        propensities: (n,) float64, the probability of each at its position given those above it; 1 without exploration.
        held_back: place in the candidates to the caps that kept it from a higher position.
    """

    places: LongArray
    propensities: NDArray[np.float64]
    held_back: Mapping[int, str]


def arrange(scores: FloatArray, item_codes: IntArray, k: int, arrangement: Arrangement, items: ItemTable) -> Slate:
    """Return the min(k, candidates) items that are shown; by score alone, equal ones are ordered by item code.

    Otherwise one position after the other is filled from the best candidates. A cap gives way where too few other items
    are left: the answer stays complete.

    Args:
        scores: (n_candidates,) float32, higher is better.
        item_codes: (n_candidates,) int32, ascending.
        k: items wanted.
        arrangement: what is heeded beside the scores.
        items: their vectors say how alike two items are.
    """
    order = np.argsort(-scores, kind="stable")
    if arrangement.is_by_score:
        return Slate(order[:k], np.ones(len(order[:k])), {})
    pool = order[: max(MIN_POOL, POOL * k)]
    choice = _drawn(scores[pool], arrangement) if arrangement.exploration else _most_marginal(pool, arrangement)
    labels = {name: values[item_codes[pool]] for name, values in arrangement.labels.items()}
    vectors = items.vectors[item_codes[pool]]
    rows, propensities, held_back = list[int](), list[float](), dict[int, str]()
    is_left, likeness = np.ones(len(pool), dtype=np.bool_), np.zeros(len(pool), dtype=np.float32)
    for _ in range(min(k, len(pool))):
        over = _over_cap(labels, rows, arrangement.caps)
        held_back |= {row: name for name, capped in over.items() for row in np.flatnonzero(capped & is_left).tolist()}
        allowed = is_left & ~np.any([*over.values(), ~is_left], axis=0)
        row, propensity = choice(allowed if allowed.any() else is_left, likeness)
        rows.append(row)
        propensities.append(propensity)
        is_left[row] = False
        likeness = np.maximum(likeness, vectors @ vectors[row])
    kept = {int(pool[row]): name for row, name in held_back.items() if row not in rows}
    return Slate(pool[rows], np.array(propensities), kept)


Choice = Callable[[BoolArray, FloatArray], tuple[int, float]]
"""Which rows of the pool are allowed, and their likeness to those above, to one of them and its probability."""


def _most_marginal(pool: LongArray, arrangement: Arrangement) -> Choice:
    """Choose by maximal marginal relevance (Carbonell and Goldstein, 1998)."""
    # The place in the order stands for relevance: the scores of two models have no common scale.
    relevance = 1 - np.arange(len(pool)) / max(1, len(pool))

    def choose(allowed: BoolArray, likeness: FloatArray) -> tuple[int, float]:
        value = (1 - arrangement.diversity) * relevance - arrangement.diversity * likeness
        return int(np.argmax(np.where(allowed, value, -np.inf))), 1.0

    return choose


def _drawn(scores: FloatArray, arrangement: Arrangement) -> Choice:
    """Draw in proportion to exp(score / temperature) among those that are allowed (Plackett-Luce)."""
    rng = np.random.default_rng(arrangement.seed)
    weights = np.exp((scores.astype(np.float64) - scores.max(initial=-np.inf)) / arrangement.exploration)

    def choose(allowed: BoolArray, likeness: FloatArray) -> tuple[int, float]:  # noqa: ARG001 - of the other choice
        shares = np.where(allowed, weights + np.finfo(np.float64).tiny, 0.0)
        shares /= shares.sum()
        row = int(rng.choice(len(shares), p=shares))
        return row, float(shares[row])

    return choose


def _over_cap(labels: Mapping[str, IntArray], rows: list[int], caps: Mapping[str, int]) -> dict[str, BoolArray]:
    """Return by attribute the rows whose value has been shown as often as it may be."""
    over = {}
    for name, cap in caps.items():
        shown, counts = np.unique(labels[name][rows], return_counts=True)
        over[name] = np.isin(labels[name], shown[(counts >= cap) & (shown >= 0)])
    return over
