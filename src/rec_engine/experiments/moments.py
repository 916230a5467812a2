"""What the statistics need of users: counts, means and covariances per phase and arm, a few numbers for millions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DoubleArray = NDArray[np.float64]

NUMERATOR, DENOMINATOR, PRE_NUMERATOR, PRE_DENOMINATOR = range(4)
"""Columns of moments: totals above and below the line, and the same from before the exposure where they are known."""

ROUNDING = 1e-11
"""Relative to a mean, or to what is added up: less is an error of arithmetic and no variation."""


@dataclass(frozen=True, slots=True)
class Moments:
    """First and second moments of users' totals; leading axes (...) are free, such as one for simulated experiments.

    Attributes:
        n: (..., n_phases, n_arms) users.
        mean: (..., n_phases, n_arms, n_columns), nan where there are no users.
        covariance: (..., n_phases, n_arms, n_columns, n_columns) with n - 1 below the line, nan for fewer than 2 users.
    """

    n: DoubleArray
    mean: DoubleArray
    covariance: DoubleArray


def moments(columns: Sequence[DoubleArray], cell: NDArray[np.int64], shape: tuple[int, ...]) -> Moments:
    """Return the moments of users' totals in each cell.

    Two passes (means first, then products of what deviates from them) keep full precision where values are large and
    vary little. What varies by less than rounding does not vary: a constant 0.1 has no variance.

    Args:
        columns: each (n_users,) of finite values.
        cell: (n_users,) phase * n_arms + arm, where `shape` is that of phases and arms.
        shape: (..., n_phases, n_arms) of the cells.
    """
    n_cells, k = math.prod(shape), len(columns)
    n = np.bincount(cell, minlength=n_cells).astype(np.float64)
    mean = np.empty((n_cells, k))
    covariance = np.empty((n_cells, k, k))
    with np.errstate(divide="ignore", invalid="ignore"):
        for i, column in enumerate(columns):
            mean[:, i] = np.bincount(cell, column, minlength=n_cells) / n
        deviations = [column - mean[cell, i] for i, column in enumerate(columns)]
        below = np.where(n > 1, n - 1, np.nan)
        for i in range(k):
            for j in range(i + 1):
                products = np.bincount(cell, deviations[i] * deviations[j], minlength=n_cells)
                covariance[:, i, j] = covariance[:, j, i] = products / below
        variance = np.diagonal(covariance, axis1=1, axis2=2)
        varies = (variance > (ROUNDING * mean) ** 2) | np.isnan(variance)
        covariance = np.where(varies[:, :, None] & varies[:, None, :], covariance, 0.0)
    return Moments(n.reshape(shape), mean.reshape(*shape, k), covariance.reshape(*shape, k, k))


def variance_of(covariance: DoubleArray, weights: DoubleArray) -> DoubleArray:
    """Return w' S w, the variance of a weighted sum of columns; 0 where all that is left of it is rounding.

    Args:
        covariance: (..., k, k).
        weights: (..., k).
    """
    parts = weights[..., :, None] * covariance * weights[..., None, :]
    variance = parts.sum(axis=(-2, -1))
    return np.where(variance < ROUNDING * np.abs(parts).sum(axis=(-2, -1)), 0.0, variance)


def covariance_of(covariance: DoubleArray, left: DoubleArray, right: DoubleArray) -> DoubleArray:
    """Return l' S r, the covariance of two weighted sums of columns; shapes as in `variance_of`."""
    return np.asarray(np.einsum("...i,...ij,...j->...", left, covariance, right))
