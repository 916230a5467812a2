"""A bandit from batch to batch: the shares of its arms follow what was rewarded, and what it comes to."""

from dataclasses import asdict, dataclass
from typing import Literal

from rec_engine.experiments.bandit import PURPOSE, RewardDifference, allocation, reward_difference
from rec_engine.experiments.bayes import beta_posterior
from rec_engine.experiments.definition import MAX_PHASES, Experiment
from rec_engine.experiments.lifecycle import Lifecycle
from rec_engine.experiments.measuring import HOUR_SECONDS, measure_batches
from rec_engine.experiments.moments import DoubleArray
from rec_engine.experiments.results import Recommendation
from rec_engine.experiments.wording import listed, per_cent


@dataclass(frozen=True, slots=True)
class BanditArm:
    """What became of an arm.

    Attributes:
        arm: its name.
        share: of the users of the batch that goes on.
        users: who met it, once a batch.
        rewarded: of these. Its share of them is no measure of the arm: shares followed it.
        prob_best: that it is rewarded most often, by all batches.
        difference: from the control, batch by batch, which holds all the same; None of the control.
    """

    arm: str
    share: float
    users: int
    rewarded: int
    prob_best: float
    difference: RewardDifference | None


@dataclass(frozen=True, slots=True)
class BanditResult:
    """Everything that is known of a bandit at a moment.

    Attributes:
        reward: what a user is rewarded for.
        batches: that have begun.
        arms: the control first.
        recommendation: what it comes to; no verdict on what may be deployed.
        health: sentences on what is wrong or missing; there are none.
        kind: of the experiment.
        purpose: what it is for.
    """

    reward: str
    batches: int
    arms: tuple[BanditArm, ...]
    recommendation: Recommendation
    health: tuple[str, ...] = ()
    kind: Literal["bandit"] = "bandit"
    purpose: str = PURPOSE

    def as_dict(self) -> dict[str, object]:
        """Return it for JSON; the recommendation under "recommendations" and "action" in it."""
        answer = asdict(self)
        return answer | {"recommendations": answer.pop("recommendation")}


def bandit_result(store_url: str, experiment: Experiment, until: int) -> BanditResult:
    """Return what a bandit comes to as of a moment.

    Args:
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        experiment: of kind "bandit".
        until: Unix seconds; it counts as the end where the experiment has not been stopped before.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be read.
    """
    begun = tuple(phase for phase in experiment.phases if phase.starts_at <= until) or experiment.phases[:1]
    experiment = experiment.model_copy(update={"phases": begun})
    successes, trials = measure_batches(store_url, experiment, until)
    best = beta_posterior(successes.sum(axis=0), trials.sum(axis=0)).prob_best.tolist()
    level = experiment.design.significance_level
    arms = tuple(
        BanditArm(
            arm=name,
            share=experiment.phase.shares[place],
            users=int(trials[:, place].sum()),
            rewarded=int(successes[:, place].sum()),
            prob_best=best[place],
            difference=reward_difference(successes, trials, place, level) if place else None,
        )
        for place, name in enumerate(experiment.arm_names)
    )
    has_ended = experiment.has_ended(until)
    reward = experiment.design.metrics[0].name
    return BanditResult(reward, len(begun), arms, _recommended(arms, has_ended=has_ended))


def is_batch_over(experiment: Experiment, now: float) -> bool:
    """Return whether a bandit's arms are due for other shares; its last batch lasts to the end."""
    if experiment.kind != "bandit" or not experiment.is_open(now) or len(experiment.phases) >= MAX_PHASES:
        return False
    begins_at = max(experiment.phase.starts_at, experiment.starts_at or 0)
    return now >= begins_at + experiment.batch_hours * HOUR_SECONDS


def next_batch(lifecycle: Lifecycle, store_url: str, experiment: Experiment, now: int, actor: str) -> Experiment:
    """Return a bandit whose next batch begins: each arm's share is its probability to be the best, or the floor.

    Args:
        lifecycle: of the experiments.
        store_url: of the log, in which all that happened until now is written.
        experiment: of kind "bandit", as it is now.
        now: Unix seconds.
        actor: who does it, for the record.

    Raises:
        ConflictError: if another process was faster.
        StoreError: if the database fails.
    """
    successes, trials = measure_batches(store_url, experiment, now)
    shares = allocation(successes.sum(axis=0), trials.sum(axis=0), experiment.floor)
    return lifecycle.next_batch(experiment, _exact(shares), actor, _told(experiment, successes, trials))


def _exact(shares: DoubleArray) -> list[float]:
    """Return shares that add up to 1 but for rounding: those of the quadrature may miss it by more."""
    found: list[float] = (shares / shares.sum()).tolist()
    return found


def _told(experiment: Experiment, successes: DoubleArray, trials: DoubleArray) -> str:
    counts = zip(experiment.arm_names, successes.sum(axis=0), trials.sum(axis=0), strict=True)
    return f"rewarded so far: {listed([f'{name} {won:.0f} of {met:.0f}' for name, won, met in counts])}"


def _recommended(arms: tuple[BanditArm, ...], *, has_ended: bool) -> Recommendation:
    largest = max(arms, key=lambda each: each.share)
    reason = f"{PURPOSE} {largest.arm} has {per_cent(largest.share)} of the users"
    if not has_ended:
        return Recommendation(
            "continue_running", None, None, f"{reason} now.", "Stop it when nothing is left to learn."
        )
    next_step = f"Run an A/B test of {largest.arm} before it is deployed."
    return Recommendation("run_experiment", largest.arm, None, f"{reason} at the end.", next_step)
