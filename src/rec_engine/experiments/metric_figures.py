"""From users' totals to a metric's estimates: capped, adjusted for the past, and with a word on what is missing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec_engine.experiments.design import Metric
from rec_engine.experiments.estimates import Estimates, estimates
from rec_engine.experiments.measurements import Measurements, SingleValues, Totals
from rec_engine.experiments.moments import DENOMINATOR, DoubleArray, Moments, moments
from rec_engine.experiments.quantiles import quantile_estimates
from rec_engine.experiments.variance_reduction import adjusted
from rec_engine.experiments.wording import listed

NO_VALUES = SingleValues(np.empty(0, dtype=np.int32), np.empty(0))
MOST_EXPLAINED = 1 - 1e-9
"""Share of the variance above which the past is the present written twice, and not used: nothing would be left."""


@dataclass(frozen=True, slots=True)
class MetricFigures:
    """A metric per phase and arm.

    Attributes:
        metric: which.
        moments: of users' totals, capped; without the columns from before. None of a quantile, which has no totals.
        estimates: what effects are computed from: adjusted for the past where that helps.
        reduction: share of the variance that the past explains; None without a past.
        notes: sentences on what is missing; figures that a note is about are nan.
    """

    metric: Metric
    moments: Moments | None
    estimates: Estimates
    reduction: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _MetricColumns:
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
    cell = measured.phase.astype(np.int64) * len(measured.arms) + measured.arm
    if metric.quantile is not None:
        of_values = plain_estimates(metric, measured, cell, measured.shares.shape)
        return MetricFigures(metric, None, of_values, None, _quantile_notes(metric, measured, of_values))
    columns = _metric_columns(metric, measured)
    of = moments(columns.now, cell, measured.shares.shape)
    notes = columns.notes or _shortcomings(metric, of)
    if not columns.past or not np.isfinite(of.mean[of.n > 0]).all():
        return MetricFigures(metric, of, estimates(of), None, notes)
    after = adjusted(moments([*columns.now, *columns.past], cell, measured.shares.shape))
    if after.reduction > MOST_EXPLAINED:
        return MetricFigures(metric, of, estimates(of), None, notes)
    return MetricFigures(metric, of, after.estimates, float(after.reduction), notes)


def plain_estimates(
    metric: Metric, measured: Measurements, cell: NDArray[np.int64], shape: tuple[int, ...]
) -> Estimates:
    """Return the metric's estimates in cells of any kind, not adjusted for the past.

    Args:
        metric: which.
        measured: of all users.
        cell: (n_users,) cell of a user, where `shape` is that of all cells.
        shape: (..., n_phases, n_arms).
    """
    if metric.quantile is None:
        return estimates(moments(_metric_columns(metric, measured).now, cell, shape))
    return quantile_estimates(_usable(metric, measured), cell, shape, metric.quantile)


def _metric_columns(metric: Metric, measured: Measurements) -> _MetricColumns:
    """Return the metric's totals of every user.

    Totals that nobody recorded are 0. One total that is not finite makes the metric nan: leaving its user out could
    favour an arm. The same in the past only forgoes variance reduction.
    """
    now = _columns(metric, measured.totals, measured.n_users)
    problem = _problem(metric, now, measured.totals)
    if problem:
        return _MetricColumns(tuple(np.full(measured.n_users, np.nan) for _ in now), (), (problem,))
    if not metric.variance_reduction or metric.numerator not in measured.before:
        return _MetricColumns(now, (), ())
    past = _columns(metric, measured.before, measured.n_users)
    if all(np.isfinite(column).all() for column in past):
        return _MetricColumns(now, past, ())
    return _MetricColumns(now, (), (f"{metric.name}: figures from before are not all finite; they are not used.",))


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


def _usable(metric: Metric, measured: Measurements) -> SingleValues:
    """Return the values that a quantile is of; none where one of them is not finite, as with totals."""
    found = measured.values.get(metric.numerator, NO_VALUES)
    return found if np.isfinite(found.value).all() else NO_VALUES


def _quantile_notes(metric: Metric, measured: Measurements, of: Estimates) -> tuple[str, ...]:
    found = measured.values.get(metric.numerator, NO_VALUES)
    if not found.is_complete:
        return (
            f"{metric.name}: {metric.numerator} has more single values than are held; the quantile is not computed. "
            "Record those of some users only, chosen by their ids.",
        )
    if not_finite := int((~np.isfinite(found.value)).sum()):
        return (f"{metric.name}: {not_finite} of its values are not finite; the metric is not computed.",)
    n_unsure = ((of.n > 0) & ~np.isfinite(of.variance)).sum(axis=0)
    if unsure := [name for name, n in zip(measured.arms, n_unsure, strict=True) if n]:
        return (
            f"{metric.name}: the {metric.quantile:g} quantile of {metric.numerator} has no interval in "
            f"{listed(unsure)}: too few values lie beyond it, or too many next to it are the same.",
        )
    if of.n.any() and not np.nansum(of.variance):
        return (f"{metric.name}: as many values of every user lie below it; nothing can be tested.",)
    return ()
