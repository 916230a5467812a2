"""Quantiles of single values, such as the 99th percentile of a latency: every event has one, and the user is drawn.

Values that tie count half below and half above, and between two values the quantile is interpolated. Without ties that
is the common quantile through the middle of the steps. With ties, as in whole milliseconds, it still moves smoothly; a
quantile that jumps from one whole number to the next has no interval that could be trusted.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import IntArray
from rec_engine.experiments.estimates import Estimates, estimates
from rec_engine.experiments.measurements import SingleValues
from rec_engine.experiments.moments import DoubleArray, moments

HALF_WIDTH = 1.959964
"""Standard errors to either side at which the interval of the share is read off, as of an interval of 95%. Nearer by,
the distance of few order statistics is mostly chance; further out, they may lie beyond the last value."""
MOST_OF_A_HALF = 0.5
"""Of the share's interval, to one side: how far apart in share two neighbouring values may be, wherever they lie."""
MIN_USERS_OF_A_TIE = 5
"""Who have a value from which on other samples have it too, so that its place is not left to chance."""


def quantile_estimates(
    values: SingleValues, cell: NDArray[np.int64], shape: tuple[int, ...], probability: float
) -> Estimates:
    """Return the quantile of the values in each cell, with its variance clustered by user.

    The share of values below the quantile is a ratio of sums over users, with the variance of such a ratio. The ends of
    the share's interval, read off the ordered values, are the ends of the quantile's: no density has to be estimated.
    Their distance, in standard errors, gives the standard error.

    There is no variance where an end lies beyond all values, nor at the edge of a value that many have (nothing was
    waited for, or the time was up) beside others that few have: what lies next to it is an extreme value there.

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
    cells = _by_cell(values, cell, n_cells)
    users = np.concatenate([each.users for each in cells])
    shares = np.concatenate([_shares_below(each, probability) for each in cells])
    below = np.bincount(users, shares, minlength=n_users)
    counted = np.bincount(users, minlength=n_users).astype(np.float64)
    ratio = estimates(moments([np.asarray(below, dtype=np.float64), counted], cell, shape))
    half = HALF_WIDTH * np.sqrt(ratio.variance.ravel())
    found = np.array([_estimate(its_values, probability, to) for its_values, to in zip(cells, half, strict=True)])
    return Estimates(ratio.n, found[:, 0].reshape(shape), found[:, 1].reshape(shape), ratio.shared)


@dataclass(frozen=True, slots=True)
class _Cell:
    """The (n_values,) values of a cell: whose they are, as they were given, and ascending."""

    users: IntArray
    values: DoubleArray
    ordered: DoubleArray


@dataclass(frozen=True, slots=True)
class _Point:
    """A place between two neighbours among the distinct values: 0 is at the lower one, 1 at the upper one.

    `step` is by how much the share below grows from the one to the other.
    """

    lower: float
    upper: float
    weight: float
    step: float

    @property
    def value(self) -> float:
        return self.lower + self.weight * (self.upper - self.lower)


def _by_cell(values: SingleValues, cell: NDArray[np.int64], n_cells: int) -> list[_Cell]:
    cell_of_value = cell.astype(np.min_scalar_type(n_cells))[values.user]  # of few bits: they are sorted digit by digit
    order = np.argsort(cell_of_value, kind="stable")
    ends = np.cumsum(np.bincount(cell_of_value, minlength=n_cells))[:-1]
    parts = zip(np.split(values.user[order], ends), np.split(values.value[order], ends), strict=True)
    return [_Cell(users, its_values, np.sort(its_values)) for users, its_values in parts]


def _shares_below(of: _Cell, probability: float) -> DoubleArray:
    """Return (n_values,) float64: how much of each value lies below the quantile; their mean is its share."""
    point = _point(of.ordered, probability)
    if point is None:
        return np.zeros(len(of.values))
    shares = (of.values < point.lower).astype(np.float64)
    shares[of.values == point.lower] = (1 + point.weight) / 2
    shares[of.values == point.upper] = point.weight / 2
    return shares


def _estimate(of: _Cell, probability: float, half: float) -> tuple[float, float]:
    """Return the quantile and its variance, where the share's interval reaches so far to either side."""
    low, middle, high = (_point(of.ordered, probability + shift) for shift in (-half, 0.0, half))
    if middle is None or low is None or high is None:
        return math.nan if middle is None else middle.value, math.nan
    if not all(_is_stable(of, point, half) for point in (low, middle, high)):
        return middle.value, math.nan
    return middle.value, ((high.value - low.value) / (2 * HALF_WIDTH)) ** 2


def _is_stable(of: _Cell, point: _Point, half: float) -> bool:
    """Return whether a place hardly depends on where its neighbours lie, or they lie there in every sample."""
    if point.step <= MOST_OF_A_HALF * half:
        return True
    n_users = (len(np.unique(of.users[of.values == value])) for value in (point.lower, point.upper))
    return min(n_users) >= MIN_USERS_OF_A_TIE


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
    return _Point(float(lower), float(upper), (probability - start) / (stop - start), stop - start)


def _middle(ordered: DoubleArray, value: float) -> float:
    """Return the share of values below one, and half of those that are equal to it."""
    both = np.searchsorted(ordered, value, "left") + np.searchsorted(ordered, value, "right")
    return float(both) / (2 * len(ordered))
