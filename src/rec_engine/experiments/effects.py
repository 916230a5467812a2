"""How much better an arm is than the control: difference, relative difference, intervals and p-values."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from rec_engine.experiments.estimates import Estimates
from rec_engine.experiments.moments import DoubleArray

SMALLEST = 1e-300
"""Probability below which all are taken alike, some 37 standard deviations out: doubles end there."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One arm against the control, phases combined; all arrays (...,), nan where there is nothing to compare.

    Attributes:
        control: the control's figure.
        treatment: the arm's figure.
        control_variance: of `control`, without `shared`.
        treatment_variance: of `treatment`, without `shared`.
        shared: variance that both have in common, and their covariance.
        degrees_of_freedom: of the standard error, by Welch and Satterthwaite.
        information: sum over phases of n_control n_treatment / (n_control + n_treatment): what the precision of the
            difference grows with.
    """

    control: DoubleArray
    treatment: DoubleArray
    control_variance: DoubleArray
    treatment_variance: DoubleArray
    shared: DoubleArray
    degrees_of_freedom: DoubleArray
    information: DoubleArray

    @property
    def difference(self) -> DoubleArray:
        """Treatment less control."""
        return self.treatment - self.control

    @property
    def standard_error(self) -> DoubleArray:
        """Of the difference: variances add up, unpooled."""
        return np.sqrt(self.treatment_variance + self.control_variance)

    def statistic(self, ratio: float = 1.0) -> DoubleArray:
        """Return t of treatment - ratio x control, nan where it has no variance.

        A ratio other than 1 asks for a margin: 0.98 whether the treatment is more than two percent worse.
        """
        unshared = self.treatment_variance + ratio**2 * self.control_variance
        variance = unshared + (1 - ratio) ** 2 * self.shared
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (self.treatment - ratio * self.control) / np.sqrt(variance)
        return np.where(variance > 0, t, np.nan)

    def z(self, ratio: float = 1.0) -> DoubleArray:
        """Return the standard normal value that is as improbable as `statistic` is under its t distribution.

        What sequential tests read: it has their distribution with few users too, and is t with many.
        """
        t = self.statistic(ratio)
        tail = np.maximum(special.stdtr(self.degrees_of_freedom, -np.abs(t)), SMALLEST)
        return np.asarray(np.sign(t) * -special.ndtri(tail))

    def p_value(self) -> DoubleArray:
        """Return the two-sided p-value of no difference by Welch's t."""
        return np.asarray(2 * special.stdtr(self.degrees_of_freedom, -np.abs(self.statistic())))

    def normal_p_value(self) -> DoubleArray:
        """Return the two-sided p-value of no difference by the normal distribution."""
        return np.asarray(2 * special.ndtr(-np.abs(self.statistic())))

    def critical(self, z: DoubleArray | float) -> DoubleArray:
        """Return the t that is as improbable as a z is: what multiplies the standard error in an interval."""
        return np.asarray(-special.stdtrit(self.degrees_of_freedom, special.ndtr(-np.asarray(z))))

    def interval(self, multiplier: DoubleArray | float) -> tuple[DoubleArray, DoubleArray]:
        """Return both ends of the difference at so many standard errors."""
        half = multiplier * self.standard_error
        return self.difference - half, self.difference + half


def compare(of: Estimates, arm: int) -> Effect:
    """Return the effect of an arm against arm 0, phases combined and never pooled.

    A phase weighs n_control n_treatment / (n_control + n_treatment): the inverse of the variance that its difference
    has if users vary alike in all cells. The cells' own variances would not do. In skewed figures a cell's variance
    rises and falls with its mean: weights from it would lean to the phases in which the smaller arm happened to be low.
    """
    n = of.n[..., [0, arm]]
    finite = np.isfinite(of.value[..., [0, arm]] + of.variance[..., [0, arm]])
    usable = finite[..., 0] & finite[..., 1]
    precision = np.where(usable, n[..., 0] * n[..., 1] / np.maximum(n.sum(axis=-1), 1), 0.0)
    information = precision.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = precision / information[..., None]
        value = _weighted(of.value[..., [0, arm]], weight)
        parts = np.where(usable[..., None], weight[..., None] ** 2 * of.variance[..., [0, arm]], 0.0)
        variance = parts.sum(axis=-2)
        below = (parts**2 / np.maximum(n - 1, 1)).sum(axis=(-2, -1))
        freedom = np.where(below > 0, variance.sum(axis=-1) ** 2 / below, np.nan)
        shared = np.where(weight > 0, weight**2 * of.shared, 0.0).sum(axis=-1)
    nothing = information == 0
    variance = np.where(nothing[..., None], np.nan, variance)
    value = np.where(nothing[..., None], np.nan, value)
    return Effect(value[..., 0], value[..., 1], variance[..., 0], variance[..., 1], shared, freedom, information)


def _weighted(value: DoubleArray, weight: DoubleArray) -> DoubleArray:
    return np.asarray(np.where(weight[..., None] > 0, weight[..., None] * value, 0.0).sum(axis=-2))
