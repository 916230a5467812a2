"""What an analysis says: plain figures, None where there is none to be had, ready to be stored and shown."""

from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rec_engine.experiments.design import Method, Role

Action = Literal["deploy_treatment", "keep_control", "no_clear_winner", "investigate_further", "continue_running"]


Preferred = Literal["prefer_treatment", "prefer_control", "no_preference", "continue_running"]
"""What an interleaving comes to: no verdict on what may be deployed."""


Optimised = Literal["continue_running", "run_experiment"]
"""What a bandit comes to: it goes on, or it has ended, and what it found is still to be measured."""


class LookStatistic(BaseModel):
    """What a look found of one metric and arm that the verdict rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    arm: str
    z: float | None
    """Standard normal under no difference; above 0 is good. None: not computable."""
    z_margin: float | None = None
    """Of a guardrail: the same where it is worse by just its margin; above 0 is better than that."""
    information: float
    """Sum over phases of n_control n_treatment / (n_control + n_treatment)."""


class Look(BaseModel):
    """A planned look at the results, which the verdict may rest on. Once taken it is kept as it was, and replayed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: int
    """In all arms."""
    fraction: float
    """Of the planned users; at most 1, and 1 at the final look."""
    days: int
    statistics: tuple[LookStatistic, ...]

    def find(self, metric: str, arm: str) -> LookStatistic | None:
        """Return what was found of a metric and arm, None where it was not looked at."""
        return next((each for each in self.statistics if (each.metric, each.arm) == (metric, arm)), None)


@dataclass(frozen=True, slots=True)
class ArmFigure:
    """A metric of one arm. `value` and `se` are None where users or what stands below the line are missing."""

    metric: str
    arm: str
    users: int
    value: float | None
    se: float | None
    prob_best: float | None
    expected_loss: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one arm against the control. Intervals have the design's level; None is "cannot be said".

    Attributes:
        metric: its name.
        role: its role in the verdict.
        arm: which one is compared.
        control: the control's figure in this comparison.
        treatment: the arm's.
        difference: treatment less control.
        se: standard error of the difference, clustered by user.
        ci: interval of the difference, valid at the planned end only.
        p_value: of no difference by Welch's t, valid at the planned end only.
        p_value_sequential: valid at the planned looks together; None before the first.
        p_value_always_valid: valid whenever it is looked at.
        p_value_adjusted: of the method that decides, by Holm over all comparisons of the same role.
        cs: always-valid interval of the difference.
        relative: (treatment - control) / control; None unless the control's figure is above 0.
        relative_ci: Fieller's interval of it; an end is None where it has no bound.
        relative_cs: the same, always valid.
        prob_better: posterior probability that the arm is better than the control.
        prob_best: that it is the best of all arms.
        expected_loss: what the figure is expected to lose if this arm is taken and another one is the best.
        mde_now: relative effect that these users find with the design's power.
        variance_reduction: share of the variance that the users' past explains.
        naive_p_value: of the z-test that takes every impression for a user. Wrong wherever users have several;
            None for a quantile.
        bound: z which the last planned look had to cross; None before the first.
    """

    metric: str
    role: Role
    arm: str
    control: float | None
    treatment: float | None
    difference: float | None
    se: float | None
    ci: tuple[float, float] | None
    p_value: float | None
    p_value_sequential: float | None
    p_value_always_valid: float | None
    p_value_adjusted: float | None
    cs: tuple[float, float] | None
    relative: float | None
    relative_ci: tuple[float | None, float | None] | None
    relative_cs: tuple[float | None, float | None] | None
    prob_better: float | None
    prob_best: float | None
    expected_loss: float | None
    mde_now: float | None
    variance_reduction: float | None
    naive_p_value: float | None
    bound: float | None


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether the arms have the shares of users that they were given.

    Attributes:
        p_value: of the chi-square test; None with too few users for it.
        sequential_p_value: valid whenever it is looked at.
        log_odds: of shares that are off, against the ones given.
        status: "failed" blocks the verdict; "unknown" without users.
    """

    p_value: float | None
    sequential_p_value: float | None
    log_odds: float | None
    status: Literal["ok", "failed", "unknown"]


@dataclass(frozen=True, slots=True)
class SegmentEffect:
    """The primary metric among some users. Exploratory: one of many looks, and never part of the verdict."""

    attribute: str
    value: str
    metric: str
    arm: str
    users: int
    difference: float | None
    ci: tuple[float, float] | None
    p_value_adjusted: float | None
    is_exploratory: bool = True


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to do.

    Attributes:
        action: one of those that the experiment's kind has.
        arm: which one to deploy, of several; None where the action names none.
        confidence: 1 less the adjusted p-value that the action rests on; None where it rests on no test.
        reason: a sentence with the figures.
        next_step: a sentence.
        evidence: more figures, a phrase each.
    """

    action: Action | Preferred | Optimised
    arm: str | None
    confidence: float | None
    reason: str
    next_step: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything that is known of an experiment at a moment.

    Attributes:
        method: which inference decides.
        users: per arm, the control first.
        figures: per metric and arm.
        comparisons: per metric and arm other than the control.
        srm: sample ratio.
        health: sentences on what is wrong or missing; empty when all is well.
        look: the planned look that this analysis is; None if none was due. Store it and give it back as a past look.
        looks_taken: with this one.
        alpha_spent: of the significance level by the planned looks so far; None where the method has none.
        information_fraction: users of the planned ones, at most 1.
        days: since the start.
        estimated_days_left: until the planned users are there at the present pace; None before there is a pace.
        segments: exploratory.
        recommendation: what to do.
    """

    method: Method
    users: tuple[int, ...]
    figures: tuple[ArmFigure, ...]
    comparisons: tuple[Comparison, ...]
    srm: SampleRatio
    health: tuple[str, ...]
    look: Look | None
    looks_taken: int
    alpha_spent: float | None
    information_fraction: float
    days: int
    estimated_days_left: int | None
    segments: tuple[SegmentEffect, ...]
    recommendation: Recommendation

    def find(self, metric: str, arm: str) -> Comparison:
        """Return the comparison of a metric and arm; KeyError if there is none."""
        for each in self.comparisons:
            if (each.metric, each.arm) == (metric, arm):
                return each
        raise KeyError((metric, arm))

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON; the recommendation under "recommendations" and "action" in it."""
        answer = asdict(self) | {"look": None if self.look is None else self.look.model_dump(mode="json")}
        return answer | {"recommendations": answer.pop("recommendation")}
