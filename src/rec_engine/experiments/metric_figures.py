"""From users' totals to a metric's estimates: capped, adjusted for the past, and with a word on what is missing."""

from dataclasses import dataclass

import numpy as np

from rec_engine.experiments.design import Metric
from rec_engine.experiments.estimates import Estimates, estimates
from rec_engine.experiments.measurements import Measurements, Totals
from rec_engine.experiments.moments import DENOMINATOR, DoubleArray, Moments, moments
from rec_engine.experiments.variance_reduction import adjusted

MOST_EXPLAINED = 1 - 1e-9
"""Share of the variance above which the past is the present written twice, and not used: nothing would be left."""


@dataclass(frozen=True, slots=True)
class MetricFigures:
    """A metric per phase and arm.

    Attributes:
        metric: which.
        moments: of users' totals, capped; without the columns from before.
        estimates: what effects are computed from: adjusted for the past where that helps.
        reduction: share of the variance that the past explains; None without a past.
        notes: sentences on what is missing; figures that a note is about are nan.
    """

    metric: Metric
    moments: Moments
    estimates: Estimates
    reduction: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetricColumns:
    """A metric's totals per user, as they enter the estimates.

    Attributes:
        now: numerator and denominator, (n_users,) each, capped; nan throughout where the metric cannot be computed.
        past: the same from before; empty where it is not to be used.
        notes: as in `MetricFigures`.
    """

    now: tuple[DoubleArray, ...]
    past: tuple[DoubleArray, ...]
    notes: tuple[str, ...]


def metric_figures(metric: Metric, measured: Measurements) -> MetricFigures:
    """Return the metric's figures of all users."""
    columns = metric_columns(metric, measured)
    cell = measured.phase.astype(np.int64) * len(measured.arms) + measured.arm
    of = moments(columns.now, cell, measured.shares.shape)
    notes = columns.notes or _shortcomings(metric, of)
    if not columns.past or not np.isfinite(of.mean[of.n > 0]).all():
        return MetricFigures(metric, of, estimates(of), None, notes)
    after = adjusted(moments([*columns.now, *columns.past], cell, measured.shares.shape))
    if after.reduction > MOST_EXPLAINED:
        return MetricFigures(metric, of, estimates(of), None, notes)
    return MetricFigures(metric, of, after.estimates, float(after.reduction), notes)


def metric_columns(metric: Metric, measured: Measurements) -> MetricColumns:
    """Return the metric's totals of every user.

    Totals that nobody recorded are 0. One total that is not finite makes the metric nan: leaving its user out could
    favour an arm. The same in the past only forgoes variance reduction.
    """
    now = _columns(metric, measured.totals, measured.n_users)
    problem = _problem(metric, now, measured.totals)
    if problem:
        return MetricColumns(tuple(np.full(measured.n_users, np.nan) for _ in now), (), (problem,))
    if not metric.variance_reduction or metric.numerator not in measured.before:
        return MetricColumns(now, (), ())
    past = _columns(metric, measured.before, measured.n_users)
    if all(np.isfinite(column).all() for column in past):
        return MetricColumns(now, past, ())
    return MetricColumns(now, (), (f"{metric.name}: figures from before are not all finite; they are not used.",))


def _columns(metric: Metric, totals: Totals, n_users: int) -> tuple[DoubleArray, DoubleArray]:
    """Return numerator and denominator, (n_users,) each."""
    above = totals.get(metric.numerator, np.zeros(n_users))
    if metric.is_share:
        above = np.where(np.isnan(above), np.nan, above > 0)
    below = np.ones(n_users) if metric.denominator is None else totals.get(metric.denominator, np.zeros(n_users))
    if metric.cap_quantile is not None and n_users and np.isfinite(above).all():
        above = np.minimum(above, np.quantile(above, metric.cap_quantile))
    return np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)


def _problem(metric: Metric, columns: tuple[DoubleArray, ...], totals: Totals) -> str | None:
    not_finite = sum(int((~np.isfinite(column)).sum()) for column in columns)
    if not_finite:
        return f"{metric.name}: {not_finite} of its totals are not finite; the metric is not computed."
    if metric.cap_quantile is not None and not columns[0].any() and np.any(totals.get(metric.numerator, 0)):
        return (
            f"{metric.name}: the {metric.cap_quantile:.1%} quantile, at which totals are cut, is 0; nothing is left. "
            "Raise cap_quantile."
        )
    return None


def _shortcomings(metric: Metric, of: Moments) -> tuple[str, ...]:
    if of.n.sum() == 0:
        return ()
    below = (of.n * np.nan_to_num(of.mean[..., DENOMINATOR])).sum(axis=0)
    if metric.denominator is not None and ((below == 0) & (of.n.sum(axis=0) > 0)).any():
        return (f"{metric.name}: {metric.denominator} is 0 throughout an arm; there is no ratio to it.",)
    if (of.n > 1).any() and not np.nansum(of.covariance[..., 0, 0]) and not np.nansum(of.covariance[..., 1, 1]):
        return (f"{metric.name}: it is the same for every user of an arm; nothing can be tested.",)
    return ()
