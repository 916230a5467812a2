"""What each arm's figure is and how sure it is: means and ratios per phase and arm, with the user as the unit."""

from dataclasses import dataclass

import numpy as np

from rec_engine.experiments.moments import DENOMINATOR, NUMERATOR, DoubleArray, Moments, variance_of


@dataclass(frozen=True, slots=True)
class Estimates:
    """A figure per phase and arm.

    Attributes:
        n: (..., n_phases, n_arms) users.
        value: (..., n_phases, n_arms); nan where it is not defined (no users, or nothing below the line).
        variance: (..., n_phases, n_arms) of `value`, from the users of the cell alone; nan for fewer than 2 users.
        shared: (..., n_phases) variance that all arms of a phase have in common, and their covariance: the adjustment
            of variance reduction refers to one mean for all arms. 0 without it. It cancels in differences.
    """

    n: DoubleArray
    value: DoubleArray
    variance: DoubleArray
    shared: DoubleArray


def estimates(of: Moments) -> Estimates:
    """Return the ratio of sums in each cell, with its variance by the delta method.

    The user is drawn, so the user is the unit: sums above and below the line vary together from user to user. Where
    all users have a 1 below the line this is the mean and its ordinary variance.

    References:
        Deng, Knoblich and Lu, Applying the delta method in metric analytics, KDD 2018, section 3.1.
    """
    value, weights = linearised(of)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = variance_of(of.covariance[..., :2, :2], weights) / of.n
    return Estimates(of.n, value, variance, np.zeros(of.n.shape[:-1]))


def linearised(of: Moments) -> tuple[DoubleArray, DoubleArray]:
    """Return the ratio (...,) and the weights (..., 2) of numerator and denominator in what a user adds to it.

    To first order a user adds (numerator - ratio x denominator) / mean denominator.
    """
    above, below = of.mean[..., NUMERATOR], of.mean[..., DENOMINATOR]
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(below == 0, np.nan, below)
        value = above / below
        weights = np.stack([1 / below, -value / below], axis=-1)
    return value, weights
