"""Quantiles of single values, such as the 99th percentile of a latency: every event has one, and the user is drawn.

Values that tie count half below and half above, and between two values the quantile is interpolated. Without ties that
is the common quantile through the middle of the steps. With ties, as in whole milliseconds, it still moves smoothly; a
quantile that jumps from one whole number to the next has no interval that could be trusted.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec_engine.experiments.estimates import Estimates, estimates
from rec_engine.experiments.measurements import SingleValues
from rec_engine.experiments.moments import DoubleArray, moments

HALF_WIDTH = 1.959964
"""Standard errors to either side at which the interval of the share is read off, as of an interval of 95%. Nearer by,
the distance of few order statistics is mostly chance; further out, they may lie beyond the last value."""


def quantile_estimates(
    values: SingleValues, cell: NDArray[np.int64], shape: tuple[int, ...], probability: float
) -> Estimates:
    """Return the quantile of the values in each cell, with its variance clustered by user.

    The share of values below the quantile is a ratio of sums over users, with the variance of such a ratio. The ends of
    the share's interval, read off the ordered values, are the ends of the quantile's: no density has to be estimated.
    Their distance, in standard errors, gives the standard error. There is none where an end lies beyond all values.

    Args:
        values: all of them finite.
        cell: (n_users,) phase * n_arms + arm, where `shape` is that of phases and arms.
        shape: (..., n_phases, n_arms) of the cells.
        probability: which quantile; 0.99 is the 99th percentile.

    References:
        Deng, Knoblich and Lu, Applying the delta method in metric analytics, KDD 2018, section 4.
        Ma, Genton and Parzen, Asymptotic properties of sample quantiles of discrete distributions, 2011.
    """
    n_users, n_cells = len(cell), math.prod(shape)
    cell_of_value = cell.astype(np.min_scalar_type(n_cells))[values.user]  # of few bits: they are sorted digit by digit
    order = np.argsort(cell_of_value, kind="stable")
    ordered, users = values.value[order], values.user[order]
    ends = np.cumsum(np.bincount(cell_of_value, minlength=n_cells))
    del order, cell_of_value
    of_cells = np.split(ordered, ends[:-1])
    shares = np.concatenate([_sort_and_share(each, probability) for each in of_cells])
    below = np.bincount(users, shares, minlength=n_users)
    counted = np.bincount(users, minlength=n_users).astype(np.float64)
    ratio = estimates(moments([np.asarray(below, dtype=np.float64), counted], cell, shape))
    half = HALF_WIDTH * np.sqrt(ratio.variance.ravel())
    low, value, high = (
        np.array([_quantile(*each) for each in zip(of_cells, probability + shift, strict=True)])
        for shift in (-half, np.zeros(n_cells), half)
    )
    variance = ((high - low) / (2 * HALF_WIDTH)) ** 2
    return Estimates(ratio.n, value.reshape(shape), variance.reshape(shape), ratio.shared)


@dataclass(frozen=True, slots=True)
class _Point:
    """A place between two neighbours among the distinct values: 0 is at the lower one, 1 at the upper one."""

    lower: float
    upper: float
    weight: float


def _sort_and_share(values: DoubleArray, probability: float) -> DoubleArray:
    """Sort values in place; return how much of each, as they were, lies below the quantile: their mean is its share."""
    given = values.copy()
    values.sort()
    point = _point(values, probability)
    if point is None:
        return np.zeros(len(values))
    shares = (given < point.lower).astype(np.float64)
    shares[given == point.lower] = (1 + point.weight) / 2
    shares[given == point.upper] = point.weight / 2
    return shares


def _quantile(ordered: DoubleArray, probability: float) -> float:
    point = _point(ordered, probability)
    return math.nan if point is None else point.lower + point.weight * (point.upper - point.lower)


def _point(ordered: DoubleArray, probability: float) -> _Point | None:
    """Return where ascending values reach a probability; None beyond the middle of the first or the last step."""
    n = len(ordered)
    if not n or not 0 < probability < 1:
        return None
    near = ordered[min(int(probability * n), n - 1)]
    first, end = np.searchsorted(ordered, near, "left"), np.searchsorted(ordered, near, "right")
    is_above = _middle(ordered, near) > probability
    if (first == 0) if is_above else (end == n):
        return None
    lower, upper = (ordered[first - 1], near) if is_above else (near, ordered[end])
    start, stop = _middle(ordered, lower), _middle(ordered, upper)
    return _Point(float(lower), float(upper), (probability - start) / (stop - start))


def _middle(ordered: DoubleArray, value: float) -> float:
    """Return the share of values below one, and half of those that are equal to it."""
    both = np.searchsorted(ordered, value, "left") + np.searchsorted(ordered, value, "right")
    return float(both) / (2 * len(ordered))
