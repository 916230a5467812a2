"""The test that most dashboards run, kept to show beside the right one why it must not decide."""

import math

import numpy as np
from scipy import special

from rec_engine.experiments.moments import DENOMINATOR, NUMERATOR, DoubleArray, Moments


def naive_z(of: Moments, arm: int) -> DoubleArray:
    """Return (...,) z of two proportions of all that stands below the line, as if every impression were a user.

    Phases are pooled. Impressions of one user resemble each other, so that its variance is too small: it rejects
    equal arms several times as often as it says.
    """
    n = of.n[..., [0, arm]]
    below = np.nansum(n * of.mean[..., [0, arm], DENOMINATOR], axis=-2)
    above = np.nansum(n * of.mean[..., [0, arm], NUMERATOR], axis=-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = above / below
        pooled = above.sum(axis=-1) / below.sum(axis=-1)
        variance = pooled * (1 - pooled) * (1 / below).sum(axis=-1)
        z = (share[..., 1] - share[..., 0]) / np.sqrt(variance)
    return np.where(variance > 0, z, np.nan)


def naive_p_value(of: Moments, arm: int) -> float | None:
    """Return its two-sided p-value; None where the figure is no proportion of what stands below the line."""
    p = float(2 * special.ndtr(-abs(float(naive_z(of, arm)))))
    return p if math.isfinite(p) else None
