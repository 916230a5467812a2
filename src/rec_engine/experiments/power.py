"""Before the start: how many users an effect needs, which effect so many users find, and how long that takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from rec_engine.errors import DataError
from rec_engine.experiments.confidence_sequence import multiplier
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.measurements import Measurements, Totals
from rec_engine.experiments.metric_figures import metric_figures
from rec_engine.experiments.sequential import inflation

DAYS_A_WEEK = 7


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a metric is without the experiment.

    Attributes:
        mean: its figure.
        variance: of what one user adds to it, so that the figure of n users has variance / n.
        is_share: whether it is a share, whose variance changes with it.
        explained: share of the variance that the users' past explains.
    """

    mean: float
    variance: float
    is_share: bool = False
    explained: float = 0.0

    def variance_at(self, relative_effect: float) -> float:
        """Return the variance, less what the past explains, of a treatment with this effect.

        A share's follows from it. Other figures are taken to vary by as much more as they are higher: who spends more
        does so in proportion.
        """
        changed = self.mean * (1 + relative_effect)
        variance = changed * (1 - changed) if self.is_share else self.variance * (1 + relative_effect) ** 2
        return variance * (1 - self.explained)


def baseline(metric: Metric, totals: Totals, before: Totals | None = None) -> Baseline:
    """Return a metric's baseline from the totals of users as the experiment would meet them.

    Args:
        metric: which.
        totals: name to (n_users,) over as much time as the experiment's window.
        before: of the same users in as much time before; without it nothing is explained.

    Raises:
        DataError: there are fewer than 2 users, or the figure is not above 0 or does not vary, or it is a quantile: no
            totals tell how much that varies.
    """
    if metric.quantile is not None:
        raise DataError(
            f"{metric.name} is a quantile, and cannot be planned from users' totals.",
            hint="Plan by a mean, a share or a ratio as the primary metric, or give planned_users.",
        )
    n_users = max((len(each) for each in totals.values()), default=0)
    everybody = np.zeros(n_users, dtype=np.int32)
    figures = metric_figures(
        metric, Measurements(("all",), everybody, everybody, np.ones((1, 1)), totals, before or {})
    )
    value, variance = float(figures.estimates.value[0, 0]), float(figures.estimates.variance[0, 0]) * n_users
    explained = figures.reduction or 0.0
    if not (value > 0 and variance > 0 and math.isfinite(value + variance)):
        raise DataError(
            f"{metric.name} cannot be planned from {n_users} users: its figure is {value:.4g}.",
            hint="Plan with a longer past or another metric, or give planned_users.",
        )
    return Baseline(value, variance / (1 - explained), metric.is_share, explained)


def users_needed(of: Baseline, design: Design, shares: Sequence[float]) -> int:
    """Return the users in all arms that find the design's `minimum_effect` with its power.

    Several arms and primary metrics share the level; planned looks and looks at any time cost users, which is counted.

    Args:
        of: the primary metric.
        design: of the experiment.
        shares: of the arms, the control first.

    Raises:
        DataError: the design names no minimum effect.
    """
    if design.minimum_effect is None:
        raise DataError("A sample size needs the effect to be found.", hint="Set minimum_effect, such as 0.05.")
    effect = design.minimum_effect
    variance = of.variance_at(0) / shares[0] + of.variance_at(effect) / min(shares[1:])
    return math.ceil(_sureness(design, len(shares)) ** 2 * variance / (of.mean * effect) ** 2)


def detectable_effect(of: Baseline, design: Design, shares: Sequence[float], n_users: int) -> float:
    """Return the relative effect that so many users in all arms find with the design's level and power.

    Infinite where no effect would do: a share cannot rise above 1.
    """
    sure = _sureness(design, len(shares))

    def margin(effect: float) -> float:
        variance = of.variance_at(0) / shares[0] + of.variance_at(effect) / min(shares[1:])
        return of.mean * effect - sure * math.sqrt(max(variance, 0.0) / n_users)

    largest = 1 / of.mean - 1 if of.is_share else 1e9
    return float(optimize.brentq(margin, 0.0, largest)) if margin(largest) >= 0 else math.inf


def duration_days(n_users: int, users_a_day: float, min_days: int = DAYS_A_WEEK) -> int:
    """Return the days until so many users have come, in whole weeks: the days of a week differ."""
    days = max(math.ceil(n_users / users_a_day), min_days)
    return math.ceil(days / DAYS_A_WEEK) * DAYS_A_WEEK


def users_an_arm(effect: float, variances: tuple[float, float], level: float = 0.05, power: float = 0.8) -> float:
    """Return users in each of two arms that find an absolute difference, in large samples and with a single look."""
    return float(sum(variances) * ((stats.norm.isf(level / 2) + stats.norm.isf(1 - power)) / effect) ** 2)


def users_an_arm_for_shares(
    control: float, treatment: float, level: float = 0.05, power: float = 0.8, *, is_pooled: bool = False
) -> float:
    """Return users in each of two arms that tell two shares apart.

    Args:
        control: share.
        treatment: share.
        level: two-sided.
        power: of finding it.
        is_pooled: whether the test takes its standard error from the shares pooled. The analysis here does not; other
            calculators do, and ask for a few more.

    References:
        Fleiss, Levin and Paik, Statistical methods for rates and proportions, 2003, section 4.2.
    """
    unpooled = control * (1 - control) + treatment * (1 - treatment)
    middle = (control + treatment) / 2
    null = 2 * middle * (1 - middle) if is_pooled else unpooled
    sure = stats.norm.isf(level / 2) * math.sqrt(null) + stats.norm.isf(1 - power) * math.sqrt(unpooled)
    return float(sure / (treatment - control)) ** 2


def users_an_arm_for_means(deviations: float, level: float = 0.05, power: float = 0.8) -> float:
    """Return users in each of two arms that find a difference of so many standard deviations by a t-test."""

    def surplus(n: float) -> float:
        freedom, shift = 2 * n - 2, deviations * math.sqrt(n / 2)
        critical = stats.t.isf(level / 2, freedom)
        return float(stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)) - power

    nearly = users_an_arm(deviations, (1.0, 1.0), level, power)
    fewest = max(2.0, nearly)
    return fewest if surplus(fewest) >= 0 else float(optimize.brentq(surplus, fewest, fewest + 20))


def _sureness(design: Design, n_arms: int) -> float:
    """Return the standard errors that an effect must be large, all that shares the level counted."""
    n_primary = sum(metric.role == "primary" for metric in design.metrics)
    n_comparisons = max(1, n_primary * (n_arms - 1)) if design.correction == "holm" else 1
    level = design.significance_level / n_comparisons
    if design.method == "always_valid":
        return float(multiplier(1.0, level)) + float(stats.norm.isf(1 - design.power))
    single = float(stats.norm.isf(level / 2) + stats.norm.isf(1 - design.power))
    if design.method == "group_sequential":
        return single * math.sqrt(inflation(design.planned_looks, level, design.power))
    return single
