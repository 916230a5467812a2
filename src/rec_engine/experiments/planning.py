"""Before the start: how many users and days an experiment takes, by what users have done so far."""

from dataclasses import dataclass

from rec_engine.errors import DataError
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.measuring import DAY_SECONDS, past_totals
from rec_engine.experiments.power import baseline, detectable_effect, duration_days, users_needed

MIN_USERS = 100
"""Of fewer nobody can say how much users differ."""

MAX_PAST_DAYS = 3_650


@dataclass(frozen=True, slots=True)
class Plan:
    """What an experiment takes.

    Attributes:
        metric: the primary one.
        baseline: its figure in the days before.
        users_a_day: who would meet the experiment, as many new ones a day as there were users a day before.
        users_needed: in all arms together, to find the design's `minimum_effect`; None where it names none.
        detectable_effect: the relative effect that the design's `planned_users` find, or those of four weeks.
        days: until the users that are needed, or else planned, have come, in whole weeks.
    """

    metric: str
    baseline: float
    users_a_day: float
    users_needed: int | None
    detectable_effect: float
    days: int


def plan(store_url: str, experiment: Experiment, now: int, past_days: int) -> Plan:
    """Return what an experiment takes, by its primary metric in the days before now.

    Args:
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`.
        experiment: a draft, or one that runs.
        now: Unix seconds.
        past_days: how far to look back.

    Raises:
        DataError: if there is too little to plan with, or it is no A/B test.
        StoreError: if the database cannot be read.
    """
    if experiment.kind != "ab":
        raise DataError(f"{experiment.experiment_id} is of kind {experiment.kind}: plans are made for A/B tests")
    if not isinstance(past_days, int) or not 1 <= past_days <= MAX_PAST_DAYS:
        raise DataError(f"past_days {past_days!r:.40}: 1 to {MAX_PAST_DAYS} whole days are looked back at")
    totals = past_totals(store_url, experiment, now - past_days * DAY_SECONDS, now)
    n_users = max((len(each) for each in totals.values()), default=0)
    if n_users < MIN_USERS:
        raise DataError(
            f"{n_users} users did anything in the last {past_days} days: at least {MIN_USERS} are needed to plan with",
            hint="look further back, or give planned_users",
        )
    design, shares = experiment.design, experiment.phase.shares
    metric = next(each for each in design.metrics if each.role == "primary")
    found = baseline(metric, totals)
    a_day = n_users / past_days * experiment.phase.coverage
    needed = users_needed(found, design, shares) if design.minimum_effect is not None else None
    n_planned = design.planned_users or max(2, int(28 * a_day))
    return Plan(
        metric=metric.name,
        baseline=found.mean,
        users_a_day=a_day,
        users_needed=needed,
        detectable_effect=detectable_effect(found, design, shares, needed or n_planned),
        days=duration_days(needed or n_planned, a_day),
    )
