"""What is sent to the routes of experiments, beside the proposal of one."""

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rec_engine.experiments.design import Role
from rec_engine.experiments.proposal import Proposal
from rec_engine.serving.wire import Asked, Wire

if TYPE_CHECKING:  # clients load these schemas, and nothing that computes
    from rec_engine.experiments.effects_over_time import EffectsOverTime as Effects
    from rec_engine.experiments.planning import Plan

Step = Literal["start", "pause", "resume", "stop"]
Share = Annotated[float, Field(ge=0, le=1)]


class Reason(Asked):
    """What `POST /experiments/{experiment_id}/{step}` takes."""

    reason: str = Field(default="", max_length=1_000, pattern=r"^[^\x00]*$")
    """Why, for the record."""


class Ramp(Reason):
    """What `POST /experiments/{experiment_id}/ramp` takes."""

    coverage: Share | None = None
    """Share of all users that takes part; of an experiment that has begun it only grows."""
    shares: tuple[Share, ...] | None = Field(default=None, max_length=20)
    """Of the arms, in their order, together 1."""


class PlanRequest(Asked):
    """What `POST /experiments/plan` takes."""

    proposal: Proposal
    past_days: int = Field(default=28, ge=1, le=3_650)
    """How far to look back for how users are."""


class PlanResponse(Wire):
    """What `POST /experiments/plan` answers; nothing is created."""

    metric: str
    """The primary one."""
    baseline: float
    """Its figure in the days before."""
    users_a_day: float
    """Who would meet the experiment."""
    users_needed: int | None
    """In all arms together, to find `minimum_effect`; null where the proposal names none."""
    detectable_effect: float | None
    """The relative effect that the planned users find, or those of four weeks; null where none would do."""
    days: int
    """Until they have come, in whole weeks."""

    @classmethod
    def of(cls, plan: "Plan") -> "PlanResponse":
        """Return a plan as it is answered."""
        found = plan.detectable_effect
        return cls.model_validate({**asdict(plan), "detectable_effect": found if math.isfinite(found) else None})


class Effect(Wire):
    """What was known of an arm's effect on a metric, relative to the control."""

    metric: str
    role: Role
    arm: str
    relative: float | None
    interval_at_end: tuple[float | None, float | None] | None
    """Holds at the planned end only."""
    interval_at_any_time: tuple[float | None, float | None] | None
    """Holds at all moments together."""


class EffectMoment(Wire):
    """What was known at a moment."""

    timestamp: int
    """Unix seconds."""
    is_look: bool
    """Whether it was a planned look, which the verdict rests on."""
    effects: list[Effect]


class EffectsOverTime(Wire):
    """What `GET /experiments/{experiment_id}/effects` answers."""

    moments: list[EffectMoment]
    """The planned looks, and the end of each day, in the order of time."""
    missing: str | None
    """Why there are planned looks only, as where the log no longer has what its days were measured by; else null."""

    @classmethod
    def of(cls, found: "Effects") -> "EffectsOverTime":
        """Return what was known over time, as it is answered."""
        return cls(
            missing=found.missing,
            moments=[
                EffectMoment(
                    timestamp=moment.timestamp,
                    is_look=moment.is_look,
                    effects=[
                        Effect(
                            metric=each.metric,
                            role=each.role,
                            arm=each.arm,
                            relative=each.relative,
                            interval_at_end=each.relative_ci,
                            interval_at_any_time=each.relative_cs,
                        )
                        for each in moment.comparisons
                    ],
                )
                for moment in sorted(found.moments, key=lambda moment: moment.timestamp)
            ],
        )
