"""One metric of one arm against the control, with every figure that a reader may ask for."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from rec_engine.experiments.bayes import Posterior, beta_posterior, normal_posterior
from rec_engine.experiments.confidence_sequence import always_valid_p_value, multiplier
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.effects import Effect, compare
from rec_engine.experiments.looks import Standing
from rec_engine.experiments.metric_figures import MetricFigures
from rec_engine.experiments.moments import NUMERATOR, DoubleArray
from rec_engine.experiments.naive import naive_p_value
from rec_engine.experiments.relative import relative_interval
from rec_engine.experiments.results import ArmFigure, Comparison, LookStatistic


@dataclass(frozen=True, slots=True)
class Tested:
    """The effect of one arm on one metric, before it is written out.

    Attributes:
        metric: which.
        arm: its place; the control has 0.
        name: of the arm.
        effect: 0-d arrays.
        progress: information of the planned, for equal arms; may exceed 1.
        n_arms: of the experiment.
        smallest_arm: users of the control or of the arm, whichever has fewer.
    """

    metric: Metric
    arm: int
    name: str
    effect: Effect
    progress: float
    n_arms: int
    smallest_arm: int

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.metric.higher_is_better else -1

    @property
    def margin_ratio(self) -> float:
        """The treatment's figure as a multiple of the control's at which a guardrail is worse by its margin."""
        return 1 - self.sign * self.metric.margin * math.copysign(1, float(self.effect.control))

    def statistic(self) -> LookStatistic:
        """Return what a look keeps."""
        is_guardrail = self.metric.role == "guardrail"
        z_margin = number(self.sign * self.effect.z(self.margin_ratio)) if is_guardrail else None
        return LookStatistic(
            metric=self.metric.name,
            arm=self.name,
            z=number(self.sign * self.effect.z()),
            z_margin=z_margin,
            information=float(self.effect.information),
        )

    def always_valid_p_value(self, level: float, ratio: float = 1.0) -> float | None:
        """Return the p-value of treatment = ratio x control that may be looked at any time."""
        if not self.progress:
            return None
        return number(always_valid_p_value(self.effect.z(ratio), self.progress, level))


def tested(figures: MetricFigures, arm: int, name: str, planned_users: int) -> Tested:
    """Return the effect of an arm; with equal arms its planned information is a half of an arm's planned users."""
    effect = compare(figures.estimates, arm)
    users = figures.estimates.n.sum(axis=0)
    progress = float(effect.information) * 2 * len(users) / planned_users
    return Tested(figures.metric, arm, name, effect, progress, len(users), int(min(users[0], users[arm])))


def comparison(
    of: Tested, figures: MetricFigures, stands: Standing | None, posterior: Posterior | None, *, design: Design
) -> Comparison:
    """Return all that is said of it; `p_value_adjusted` is None until all comparisons are there.

    Args:
        of: the effect.
        figures: of the metric.
        stands: what the planned looks say, if there were any.
        posterior: of the metric's arms.
        design: of the experiment.
    """
    effect, level = of.effect, design.significance_level
    is_testable = math.isfinite(float(effect.statistic()))
    critical = float(effect.critical(-special.ndtri(level / 2))) if is_testable else math.nan
    lasting = float(effect.critical(multiplier(of.progress, level))) if is_testable else math.nan
    control = number(effect.control)
    return Comparison(
        metric=of.metric.name,
        role=of.metric.role,
        arm=of.name,
        control=control,
        treatment=number(effect.treatment),
        difference=number(effect.difference),
        se=number(effect.standard_error),
        ci=_interval(effect, critical),
        p_value=number(effect.p_value()),
        p_value_sequential=None if stands is None else stands.p_value,
        p_value_always_valid=of.always_valid_p_value(level),
        p_value_adjusted=None,
        cs=_interval(effect, lasting),
        relative=number(effect.difference / effect.control) if control and control > 0 else None,
        relative_ci=_relative(effect, critical),
        relative_cs=_relative(effect, lasting),
        prob_better=number(special.ndtr(of.sign * effect.statistic())),
        prob_best=None if posterior is None else float(posterior.prob_best[of.arm]),
        expected_loss=None if posterior is None else float(posterior.expected_loss[of.arm]),
        mde_now=_detectable(effect, design),
        variance_reduction=figures.reduction,
        naive_p_value=_naive_p_value(of, figures),
        bound=None if stands is None or math.isinf(stands.bound) else stands.bound,
    )


def arm_figures(figures: MetricFigures, arms: Sequence[str], posterior: Posterior | None) -> list[ArmFigure]:
    """Return the metric's figure of each arm, phases weighed alike for all arms: by their users."""
    value, variance = standardised(figures)
    users = figures.estimates.n.sum(axis=0)
    return [
        ArmFigure(
            figures.metric.name,
            name,
            int(users[arm]),
            number(value[arm]),
            number(np.sqrt(variance[arm])),
            None if posterior is None else float(posterior.prob_best[arm]),
            None if posterior is None else float(posterior.expected_loss[arm]),
        )
        for arm, name in enumerate(arms)
    ]


def posterior_of(figures: MetricFigures) -> Posterior | None:
    """Return what is believed of the metric's arms; None where an arm's figure or variance is missing.

    Shares of one phase without adjustment have a Beta posterior, all else a normal one around the estimates.
    """
    metric, of = figures.metric, figures.moments
    is_plain = metric.is_share and figures.reduction is None
    if is_plain and of is not None and len(of.n) == 1 and np.isfinite(of.mean).all():
        successes = np.rint(of.n * of.mean[..., NUMERATOR])[0]
        counted = successes if metric.higher_is_better else of.n[0] - successes
        return beta_posterior(counted, of.n[0]) if metric.denominator is None else None
    value, variance = standardised(figures)
    if not np.isfinite(value).all() or not (variance > 0).all():
        return None
    return normal_posterior(value if metric.higher_is_better else -value, variance)


def standardised(figures: MetricFigures) -> tuple[DoubleArray, DoubleArray]:
    """Return (n_arms,) values and variances, phases weighed by all their users; those that lack an arm are left out."""
    of = figures.estimates
    complete = (np.isfinite(of.value) & np.isfinite(of.variance)).all(axis=1)
    if not complete.any():
        nothing = np.full(of.n.shape[1], np.nan)
        return nothing, nothing
    users = of.n[complete].sum(axis=1, keepdims=True)
    weight = users / users.sum()
    return (weight * of.value[complete]).sum(axis=0), (weight**2 * of.variance[complete]).sum(axis=0)


def number(value: DoubleArray | float) -> float | None:
    """Return a finite value as it is and any other as None."""
    return float(value) if np.isfinite(value) else None


def _naive_p_value(of: Tested, figures: MetricFigures) -> float | None:
    if figures.moments is None:
        return None
    return naive_p_value(figures.moments, of.arm) if of.metric.denominator else number(of.effect.p_value())


def _interval(effect: Effect, critical: float) -> tuple[float, float] | None:
    low, high = (number(end) for end in effect.interval(critical))
    return None if low is None or high is None else (low, high)


def _relative(effect: Effect, critical: float) -> tuple[float | None, float | None] | None:
    if not math.isfinite(critical) or not float(effect.control) > 0:
        return None
    interval = relative_interval(effect, critical)
    return (interval.low, interval.high) if interval.shape == "interval" else (None, None)


def _detectable(effect: Effect, design: Design) -> float | None:
    """Return the relative effect that the present standard error finds with the design's level and power."""
    sure = special.ndtri(design.power) - special.ndtri(design.significance_level / 2)
    control = float(effect.control)
    if not control or not float(effect.standard_error) > 0:
        return None
    return number(sure * effect.standard_error / abs(control))
