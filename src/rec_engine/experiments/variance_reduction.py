"""CUPED: what users did before the experiment explains part of what they do in it, and explained is not noise."""

from dataclasses import dataclass

import numpy as np

from rec_engine.experiments.estimates import Estimates, estimates, linearised
from rec_engine.experiments.moments import (
    PRE_DENOMINATOR,
    PRE_NUMERATOR,
    DoubleArray,
    Moments,
    covariance_of,
    variance_of,
)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Estimates less what was to be expected from before.

    Attributes:
        estimates: adjusted; with the plain variance where the past says nothing.
        theta: (...,) slope of a user's figure on his earlier one, one for all arms and phases.
        reduction: (...,) share of the variance within arms that is gone: the squared correlation with the past.
    """

    estimates: Estimates
    theta: DoubleArray
    reduction: DoubleArray


def adjusted(of: Moments) -> Adjusted:
    """Return each cell's ratio less theta times how far its users' past is from the phase's mean past.

    Both figures are linearised, so that means and ratios are one case. Theta comes from within the cells, where no
    effect of the treatment enters it, and is the same for all, so that the difference of arms stays unbiased. The past
    is linearised around its ratio over all users.

    References:
        Deng, Xu, Kohavi and Walker, Improving the sensitivity of online controlled experiments by utilizing
        pre-experiment data, WSDM 2013.
    """
    plain = estimates(of)
    past, past_weights = _past(of)
    weights = linearised(of)[1]
    value_weights = np.concatenate([weights, np.zeros_like(weights)], axis=-1)
    spread = variance_of(of.covariance, value_weights)
    past_spread = variance_of(of.covariance, past_weights)
    joint = covariance_of(of.covariance, value_weights, past_weights)
    weight = np.where(of.n > 1, of.n - 1, 0.0)
    within = [np.nansum(weight * each, axis=(-2, -1)) for each in (spread, past_spread, joint)]
    with np.errstate(divide="ignore", invalid="ignore"):
        theta = np.where(within[1] > 0, within[2] / within[1], 0.0)
        reduction = np.where(within[0] * within[1] > 0, within[2] ** 2 / (within[0] * within[1]), 0.0)
    return Adjusted(_less_past(plain, past, (spread, past_spread, joint), theta[..., None, None]), theta, reduction)


def _past(of: Moments) -> tuple[DoubleArray, DoubleArray]:
    """Return (..., n_phases, n_arms) mean figures of the past and (..., 1, 1, 4) weights of a user's."""
    total = np.nansum(of.n[..., None] * of.mean, axis=(-3, -2)) / np.maximum(of.n.sum(axis=(-2, -1)), 1)[..., None]
    above, below = total[..., PRE_NUMERATOR], total[..., PRE_DENOMINATOR]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(below > 0, 1 / below, 0.0)
        ratio = np.where(below > 0, above / below, 0.0)
    zero = np.zeros_like(scale)
    weights = np.stack([zero, zero, scale, -ratio * scale], axis=-1)[..., None, None, :]
    return np.asarray((of.mean * weights).sum(axis=-1)), weights


def _less_past(
    plain: Estimates, past: DoubleArray, spreads: tuple[DoubleArray, DoubleArray, DoubleArray], theta: DoubleArray
) -> Estimates:
    spread, past_spread, joint = spreads
    n = plain.n
    users = n.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_past = np.nansum(n * past, axis=-1, keepdims=True) / users
        value = plain.value - theta * (past - mean_past)
        left = spread - 2 * theta * joint + theta**2 * past_spread
        variance = np.where(left < 0, 0.0, left) / n
        pooled = np.nansum(np.where(n > 1, n - 1, 0.0) * past_spread, axis=-1) / np.maximum(
            users[..., 0] - n.shape[-1], 1
        )
        shared = theta[..., 0] ** 2 * pooled / np.maximum(users[..., 0], 1)
    return Estimates(n, value, variance, shared)
