"""What the rules of the shop ask of one answer, in codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray
from rec_engine.retrieval.filters import Eligible


@dataclass(frozen=True, slots=True)
class Pin:
    """An item that a rule wants at a place.

    Attributes:
        rule_id: of the rule.
        item_code: the item.
        position: from 1, counted over all pages.
    """

    rule_id: str
    item_code: int
    position: int


@dataclass(frozen=True, slots=True)
class Shift:
    """Items that a rule wants higher or lower.

    Attributes:
        rule_id: of the rule.
        items: which ones.
        by: log-odds to add.
    """

    rule_id: str
    items: Eligible
    by: float


@dataclass(frozen=True, slots=True)
class Hiding:
    """Items that a rule takes away.

    Attributes:
        rule_id: of the rule.
        items: which ones.
    """

    rule_id: str
    items: Eligible


@dataclass(frozen=True, slots=True)
class Directives:
    """Everything that rules ask of one answer.

    Attributes:
        rule_ids: the rules that hold for the request, those of the highest priority first.
        pins: those of the highest priority first.
        shifts: they add up.
        hidings: what any of them hides is hidden.
        n_before: items on earlier pages.
    """

    rule_ids: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()
    shifts: tuple[Shift, ...] = ()
    hidings: tuple[Hiding, ...] = ()
    n_before: int = 0

    def pinned_within(self, k: int) -> list[int]:
        """Return the codes of the items that may be pinned to one of the next k places."""
        return [pin.item_code for pin in self.pins if pin.position <= self.n_before + k]


NO_DIRECTIVES = Directives()


def shifted(scores: FloatArray, item_codes: IntArray, shifts: Sequence[Shift], *, are_log_odds: bool) -> FloatArray:
    """Return (n_candidates,) float32: what the order goes by after items were boosted and buried.

    Retrieval scores have no scale of their own: cosines lie within 2, shares of popularity mostly near 0. Where they
    are all there is, an item's place stands for them, as the log-odds of the share of the candidates above which it
    stands: the same order, in which a boost of 1 brings an item from place 27 to about place 10 of hundreds.

    Args:
        scores: (n_candidates,) float32, higher is better.
        item_codes: (n_candidates,) int32.
        shifts: what is asked for.
        are_log_odds: whether the scores are log-odds of a click; otherwise only their order counts.
    """
    if not shifts:
        return scores
    added = np.zeros(len(scores), dtype=np.float32)
    for shift in shifts:
        added += np.float32(shift.by) * shift.items.keeps(item_codes)
    if not added.any():
        return scores
    return (scores if are_log_odds else _log_odds_of_places(scores)) + added


def _log_odds_of_places(scores: FloatArray) -> FloatArray:
    """Return (n,) float32: of the r-th best of n, log((n - r + 1/2) / (r - 1/2)), equal scores by place."""
    n = len(scores)
    ranks = np.empty(n, dtype=np.float64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, n + 1)
    return np.log((n - ranks + 0.5) / (ranks - 0.5)).astype(np.float32)
