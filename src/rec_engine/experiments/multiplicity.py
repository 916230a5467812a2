"""Several comparisons share one significance level."""

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted so that any false rejection among all has at most the level's probability.

    A comparison without a p-value stays without, and counts: it was one of those that could have rejected.

    References:
        Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    known = np.array([1.0 if p is None else p for p in p_values])
    order = np.argsort(known, kind="stable")
    factors = len(known) - np.arange(len(known))
    adjusted = np.empty(len(known))
    adjusted[order] = np.minimum(np.maximum.accumulate(known[order] * factors), 1.0)
    return [None if p is None else float(each) for p, each in zip(p_values, adjusted, strict=True)]
