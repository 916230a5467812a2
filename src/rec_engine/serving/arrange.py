"""From scores to a slate: pins, diversity, caps and exploration. It orders and chooses, it never scores."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from rec_engine.models.features import ItemTable
from rec_engine.serving.directives import NO_DIRECTIVES, Directives

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
        new_item_share: of the places that are drawn, what share goes to new items.
        seed: of the draw.
    """

    diversity: float = 0.0
    caps: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, IntArray] = field(default_factory=dict)
    exploration: float = 0.0
    new_item_share: float = 0.0
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
        propensities: (n,) float64, the probability of each at its position given those above it; 1 without exploration,
            and for a pinned item.
        held_back: place in the candidates to the caps that kept it from a higher position.
        pinned: place in the candidates to the rule that pinned it where it is shown.
    """

    places: LongArray
    propensities: NDArray[np.float64]
    held_back: Mapping[int, str]
    pinned: Mapping[int, str] = field(default_factory=dict)


def arrange(  # noqa: PLR0913 - what is ordered, and four kinds of what an order heeds
    scores: FloatArray,
    item_codes: IntArray,
    k: int,
    arrangement: Arrangement,
    items: ItemTable,
    directives: Directives = NO_DIRECTIVES,
    new_ranks: FloatArray | None = None,
) -> Slate:
    """Return the min(k, candidates) items that are shown; by score alone, equal ones are ordered by item code.

    Otherwise one position after the other is filled: with what is pinned to it, or else from the best candidates. A cap
    gives way where too few other items are left: the answer stays complete. Pinned items count for caps wherever they
    stand, and are likened to as soon as they are above. What is pinned to a later page is not shown before it, as long
    as there are others.

    Args:
        scores: (n_candidates,) float32, higher is better.
        item_codes: (n_candidates,) int32, ascending.
        k: items wanted.
        arrangement: what is heeded beside the scores.
        items: their vectors say how alike two items are.
        directives: of which the pins are followed here.
        new_ranks: (n_candidates,) float32 from 1, of the new items among them; nan for the others. Without it none is.
    """
    order = np.argsort(-scores, kind="stable")
    n = min(k, len(order))
    pinned, later = _settled(directives, item_codes, n)
    if arrangement.is_by_score and not pinned and not later:
        return Slate(order[:n], np.ones(n), {})
    fixed = [place for place, _ in pinned.values()]
    n_others = np.cumsum(~np.isin(order, later))  # what waits for its page takes no place from those that may be shown
    is_best = (n_others <= pool_size(k)) | np.isin(order, fixed)
    new_weights = _new_weights(order, new_ranks, arrangement)
    kept = is_best | (new_weights > 0)
    pool, of_best, of_new = order[kept], is_best[kept], new_weights[kept]
    rows, propensities, held_back = _filled(
        _drawn(scores[pool], of_best, of_new, arrangement)
        if arrangement.exploration
        else _most_marginal(pool, arrangement),
        items.vectors[item_codes[pool]],
        _Caps(arrangement.caps, {name: values[item_codes[pool]] for name, values in arrangement.labels.items()}),
        n,
        coming={position: int(np.flatnonzero(pool == place)[0]) for position, (place, _) in pinned.items()},
        is_later=np.isin(pool, later),
    )
    kept_back = {int(pool[row]): name for row, name in held_back.items() if row not in rows}
    return Slate(pool[rows], np.array(propensities), kept_back, dict(pinned.values()))


def pool_size(k: int) -> int:
    """Return how many of the best candidates may be shown where k are wanted and an order heeds more than scores."""
    return max(MIN_POOL, POOL * k)


def draw_weights(scores: FloatArray, temperature: float) -> NDArray[np.float64]:
    """Return (n,) float64: items are drawn in proportion to exp(score / temperature), without repetition.

    References:
        Plackett, The analysis of permutations, 1975.
    """
    best = scores.max(initial=-np.inf)
    weights: NDArray[np.float64] = np.exp((scores.astype(np.float64) - best) / temperature)
    return weights + np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class _Caps:
    """How often each value of an attribute may be shown.

    Attributes:
        by_attribute: attribute to cap.
        labels: attribute to (n_pool,) int32 values, -1 for none.
    """

    by_attribute: Mapping[str, int]
    labels: Mapping[str, IntArray]

    def over(self, rows: list[int]) -> dict[str, BoolArray]:
        """Return by attribute the rows whose value these rows have as often as it may be shown."""
        over = {}
        for name, cap in self.by_attribute.items():
            shown, counts = np.unique(self.labels[name][rows], return_counts=True)
            over[name] = np.isin(self.labels[name], shown[(counts >= cap) & (shown >= 0)])
        return over


def _settled(directives: Directives, item_codes: IntArray, n: int) -> tuple[dict[int, tuple[int, str]], list[int]]:
    """Return position in the slate, from 0, to place in the candidates and rule; and the places pinned beyond it.

    A position that is taken, by a pin of a higher priority, or that was on an earlier page, gives way to the next free.
    """
    settled, later, seen = dict[int, tuple[int, str]](), list[int](), set[int]()
    for pin in directives.pins:
        place = int(np.searchsorted(item_codes, pin.item_code))
        if place == len(item_codes) or item_codes[place] != pin.item_code or place in seen:
            continue
        seen.add(place)
        position = max(0, pin.position - 1 - directives.n_before)
        while position in settled:
            position += 1
        if position < n:
            settled[position] = place, pin.rule_id
        else:
            later.append(place)
    return settled, later


def _filled(  # noqa: PLR0913 - who chooses, what is heeded, and what is settled
    choice: "Choice",
    vectors: FloatArray,
    caps: _Caps,
    n: int,
    *,
    coming: dict[int, int],
    is_later: BoolArray,
) -> tuple[list[int], list[float], dict[int, str]]:
    """Return the n rows of the pool that are shown, their propensities, and row to the cap that kept it back.

    Args:
        choice: of one row among several.
        vectors: (n_pool, dim) float32.
        caps: of attributes.
        n: rows wanted, no more than there are.
        coming: position to the row that is pinned to it.
        is_later: (n_pool,) bool, rows that are shown only where no others are left.
    """
    rows, propensities, held_back = list[int](), list[float](), dict[int, str]()
    is_left, likeness = np.ones(len(vectors), dtype=np.bool_), np.zeros(len(vectors), dtype=np.float32)
    is_left[list(coming.values())] = False
    for position in range(n):
        if position in coming:
            row, propensity = coming.pop(position), 1.0
        else:
            is_free = is_left & ~is_later
            over = caps.over([*rows, *coming.values()])
            held_back |= {
                row: name for name, capped in over.items() for row in np.flatnonzero(capped & is_free).tolist()
            }
            allowed = is_free & ~np.any([*over.values(), ~is_free], axis=0)
            row, propensity = choice(next(some for some in (allowed, is_free, is_left) if some.any()), likeness)
        rows.append(row)
        propensities.append(propensity)
        is_left[row] = False
        likeness = np.maximum(likeness, vectors @ vectors[row])
    return rows, propensities, held_back


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


def _new_weights(order: LongArray, new_ranks: FloatArray | None, arrangement: Arrangement) -> NDArray[np.float64]:
    """Return (n_candidates,) float64, in that order: what each weighs among the new items, 0 for the others.

    It is 1 / rank: scores of items that nobody has met hardly differ, and would show the same few to everybody.
    """
    if new_ranks is None or not (arrangement.exploration and arrangement.new_item_share):
        return np.zeros(len(order))
    return np.nan_to_num(1 / new_ranks[order].astype(np.float64))


def _drawn(
    scores: FloatArray, is_best: BoolArray, new_weights: NDArray[np.float64], arrangement: Arrangement
) -> Choice:
    """Draw among those that are allowed: by scores, or for a share of the places from the new items."""
    rng = np.random.default_rng(arrangement.seed)
    by_score = np.where(is_best, draw_weights(scores, arrangement.exploration), 0.0)
    parts = (1 - arrangement.new_item_share, by_score), (arrangement.new_item_share, new_weights)

    def choose(allowed: BoolArray, likeness: FloatArray) -> tuple[int, float]:  # noqa: ARG001 - of the other choice
        shares, total = np.zeros(len(allowed)), 0.0
        for share, weights in parts:
            left = np.where(allowed, weights, 0.0)
            if share and left.any():
                shares += share * (left / left.sum())
                total += share
        shares /= total
        row = int(rng.choice(len(shares), p=shares))
        return row, float(shares[row])

    return choose
