"""How alike two ranked lists are."""

from collections.abc import Hashable, Sequence

PERSISTENCE = 0.9
"""A reader who goes on to the next place with this probability sees ten of them on average."""


def overlap(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Return the share of the items that two lists of distinct items have in common, in [0, 1]; 1 of two empty ones."""
    longer = max(len(one), len(other))
    return len(set(one) & set(other)) / longer if longer else 1.0


def rank_biased_overlap(one: Sequence[Hashable], other: Sequence[Hashable], persistence: float = PERSISTENCE) -> float:
    """Return how alike the orders of two lists of distinct items are, in [0, 1]; high places count more.

    RBO_ext = A_k p^k + (1 - p) / p sum_{d=1..k} A_d p^d, with A_d the share in common among the first d places: the
    lists are taken to go on as they are at their last place. Of two lengths the longer list is cut; 1 of empty ones.

    Args:
        one: distinct items, best first.
        other: likewise.
        persistence: p, in (0, 1).

    References:
        Webber, Moffat and Zobel, A similarity measure for indefinite rankings, TOIS 2010 (the extrapolated form).
    """
    depth = min(len(one), len(other))
    if not depth:
        return float(len(one) == len(other))
    agreements = [overlap(one[:d], other[:d]) for d in range(1, depth + 1)]
    weighted = sum(agreement * persistence**d for d, agreement in enumerate(agreements, start=1))
    return agreements[-1] * persistence**depth + (1 - persistence) / persistence * weighted
