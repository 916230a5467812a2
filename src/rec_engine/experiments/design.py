"""What an experiment was set out to find: its metrics and the rules for its verdict, fixed before it starts."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Role = Literal["primary", "secondary", "guardrail"]
Method = Literal["group_sequential", "always_valid", "fixed", "bayesian"]


class Metric(BaseModel):
    """One figure per arm: a mean per user, a share of users, a ratio of two sums, or a quantile of single values.

    With a `denominator` it is the ratio of the sums over users (clicks over impressions), with a `quantile` that of the
    values of all their events (the 99th percentile of latency), otherwise the mean per user.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    """How the metric is called in results."""
    numerator: str = Field(min_length=1, max_length=100)
    """Name of the total above: impressions, clicks, conversions, revenue, engagement_seconds, or a custom one."""
    denominator: str | None = Field(default=None, min_length=1, max_length=100)
    """Name of the total below; none for a mean per user."""
    is_share: bool = False
    """Whether a user counts once at most: the metric is the share of users with any of the numerator."""
    quantile: float | None = Field(default=None, gt=0, lt=1)
    """Which quantile of the numerator's single values, one an event, it is; none for what is summed up by user."""
    higher_is_better: bool = True
    """Which direction is good."""
    role: Role = "secondary"
    """A primary one decides, a guardrail may stop, a secondary one informs."""
    cap_quantile: float | None = Field(default=None, gt=0.5, lt=1)
    """Totals above this quantile of all users' are cut to it (winsorised); none keeps them."""
    margin: float = Field(default=0.0, ge=0, lt=1)
    """Of a guardrail: how much worse, relatively, the treatment may be."""
    variance_reduction: bool = True
    """Whether the users' figures from before their exposure are used (CUPED), where there are any. Not for a quantile:
    what it would adjust is a sum."""

    @model_validator(mode="before")
    @classmethod
    def _leaves_the_past(cls, given: object) -> object:
        """Set `variance_reduction` to False by default where there is a quantile."""
        if isinstance(given, Mapping) and given.get("quantile") is not None:
            return {"variance_reduction": False} | dict(given)
        return given

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if self.quantile is None:
            return self
        if self.denominator is not None or self.is_share:
            raise ValueError("a quantile is one of single values, and has neither a denominator nor is_share")
        if self.cap_quantile is not None:
            raise ValueError("a quantile has no cap_quantile: few values that are extreme do not move it")
        if self.variance_reduction:
            raise ValueError("a quantile has no variance_reduction (CUPED): leave it out, or set it to false")
        return self


class Design(BaseModel):
    """The rules for the verdict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: tuple[Metric, ...] = Field(min_length=1, max_length=50)
    """What is measured; one primary at least."""
    method: Method = "group_sequential"
    """Which inference decides."""
    significance_level: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability of a false alarm over all looks, two-sided."""
    power: float = Field(default=0.8, gt=0, lt=1)
    """Probability of finding `minimum_effect` if it is there."""
    minimum_effect: float | None = Field(default=None, gt=0)
    """The smallest relative lift of the primary metric worth finding."""
    planned_users: int | None = Field(default=None, ge=2)
    """Users in all arms together at which the experiment is complete: what information is a fraction of."""
    planned_looks: int = Field(default=5, ge=1, le=100)
    """How often the verdict is asked for until then; looking otherwise costs nothing."""
    min_sample_size: int = Field(default=1_000, ge=1)
    """Users an arm below which nothing is decided."""
    min_days: int = Field(default=7, ge=0)
    """Days below which nothing is decided: a week has weekends."""
    correction: Literal["holm", "none"] = "holm"
    """How several comparisons share the significance level."""

    @property
    def has_guardrails(self) -> bool:
        """Whether a metric may stop it."""
        return any(metric.role == "guardrail" for metric in self.metrics)
