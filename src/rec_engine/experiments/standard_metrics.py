"""The metrics that every shop has, by name."""

from collections.abc import Sequence

from rec_engine.errors import DataError, NotFoundError
from rec_engine.experiments.design import Metric

IMPRESSIONS, CLICKS, CONVERSIONS = "impressions", "clicks", "conversions"
REVENUE, ENGAGEMENT_SECONDS = "revenue", "engagement_seconds"

STANDARD_METRICS = {
    metric.name: metric
    for metric in (
        Metric(name="ctr", numerator=CLICKS, denominator=IMPRESSIONS),
        Metric(name="conversion_rate", numerator=CONVERSIONS, is_share=True),
        Metric(name="revenue_per_user", numerator=REVENUE, cap_quantile=0.999),
        Metric(name="engagement_time", numerator=ENGAGEMENT_SECONDS, cap_quantile=0.999),
    )
}
"""The first one is what an experiment is decided by that names no other."""


PREFERENCE = Metric(name="preference", numerator=CLICKS, role="primary")
"""What an interleaving is decided by: no figure of an arm, but whose items of one list were chosen."""
REWARD = "conversion_rate"
"""What a bandit is rewarded by that names nothing else."""


def metrics_of(names: Sequence[str | Metric], guardrails: Sequence[str | Metric] = ()) -> tuple[Metric, ...]:
    """Return these metrics: the first one decides where none says of itself that it does; guardrails may stop.

    What is named among both is a guardrail.

    Args:
        names: of standard metrics, or metrics of one's own.
        guardrails: the same.

    Raises:
        DataError: if none is left to decide by.
        NotFoundError: if there is no such metric.
    """
    guarding = [_metric(each).model_copy(update={"role": "guardrail"}) for each in guardrails]
    guarded = {metric.name for metric in guarding}
    found = [metric for metric in map(_metric, names) if metric.name not in guarded]
    if not found:
        raise DataError("every metric is a guardrail", hint="name another one, by which the experiment is decided")
    if not any(metric.role == "primary" for metric in found):
        found[0] = found[0].model_copy(update={"role": "primary"})
    return (*found, *guarding)


def _metric(named: str | Metric) -> Metric:
    if isinstance(named, Metric):
        return named
    if named in STANDARD_METRICS:
        return STANDARD_METRICS[named]
    raise NotFoundError(
        f"there is no metric {named!r}", hint=f"one of {', '.join(STANDARD_METRICS)}, or a Metric of your own"
    )
