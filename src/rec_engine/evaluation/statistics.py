"""Intervals for means over users: the user is the unit that is drawn, so he is the unit that is resampled."""

from dataclasses import dataclass

import numpy as np

from rec_engine.evaluation.metrics import DoubleArray

RESAMPLES_A_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its interval.

    Attributes:
        mean: nan when there was nothing to average.
        low: lower end.
        high: upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better a is than b on the same users.

    Attributes:
        absolute: mean(a) - mean(b).
        relative: mean(a) / mean(b) - 1; nan where mean(b) is 0. Its interval is nan where mean(b) is 0 in a resample:
            so few users have anything in b that the ratio has no upper end.
    """

    absolute: Estimate
    relative: Estimate

    @property
    def is_significant(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.absolute.low > 0 or self.absolute.high < 0


def bootstrap_mean(values: DoubleArray, *, seed: int = 0, n_resamples: int = 2000, level: float = 0.95) -> Estimate:
    """Return mean and percentile bootstrap interval of (n_users,) values; nan values are left out.

    References:
        Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
    """
    values = values[~np.isnan(values)]
    means = _resampled_means(values[None], seed, n_resamples)[0]
    return _estimate(float(values.mean()) if len(values) else float("nan"), means, level)


def paired_bootstrap(
    a: DoubleArray, b: DoubleArray, *, seed: int = 0, n_resamples: int = 2000, level: float = 0.95
) -> PairedDifference:
    """Return the difference of two models measured on the same users, resampling users and not models.

    Args:
        a: (n_users,) of the one model.
        b: (n_users,) of the other, user by user the same; users with nan in either are left out.
        seed: of the resampling.
        n_resamples: bootstrap samples.
        level: of the intervals.
    """
    known = ~(np.isnan(a) | np.isnan(b))
    pairs = np.stack([a[known], b[known]])
    mean_a, mean_b = pairs.mean(axis=1) if known.any() else (np.nan, np.nan)
    means_a, means_b = _resampled_means(pairs, seed, n_resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = means_a / means_b - 1
    ratio = mean_a / mean_b - 1 if mean_b else float("nan")
    return PairedDifference(
        absolute=_estimate(float(mean_a - mean_b), means_a - means_b, level),
        relative=_estimate(float(ratio), ratios, level),
    )


def _resampled_means(values: DoubleArray, seed: int, n_resamples: int) -> DoubleArray:
    """Return (n_series, n_resamples) means over the same resampled users in every series."""
    rng = np.random.default_rng(seed)
    n = values.shape[1]
    if n == 0:
        return np.full((len(values), n_resamples), np.nan)
    means = []
    for first in range(0, n_resamples, RESAMPLES_A_CHUNK):
        drawn = rng.integers(0, n, size=(min(RESAMPLES_A_CHUNK, n_resamples - first), n))
        means.append(values[:, drawn].mean(axis=2))
    return np.concatenate(means, axis=1)


def _estimate(mean: float, resampled: DoubleArray, level: float) -> Estimate:
    if not np.isfinite(resampled).all():
        return Estimate(mean, float("nan"), float("nan"))
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean, float(low), float(high))
