"""How wide a search has to look to find enough."""

from collections.abc import Callable

FINENESS = 32
"""The breadth is settled to one part in so many."""


def narrowest_breadth(
    recall_at: Callable[[int], float], floor: float, narrowest: int, widest: int
) -> tuple[int, float]:
    """Return the least breadth whose recall reaches a floor, and that recall; the widest where none does.

    It is doubled until it is enough, then narrowed down between that and its half.

    Args:
        recall_at: breadth to recall, which hardly ever falls as the breadth grows.
        floor: recall that is wanted.
        narrowest: at least 1.
        widest: not below the narrowest.
    """
    low, high = narrowest - 1, narrowest
    recall = recall_at(high)
    while recall < floor and high < widest:
        low, high = high, min(2 * high, widest)
        recall = recall_at(high)
    if recall < floor:
        return high, recall
    while high - low > max(1, high // FINENESS):
        middle = (low + high) // 2
        found = recall_at(middle)
        low, high, recall = (low, middle, found) if found >= floor else (middle, high, recall)
    return high, recall
