"""Bandits in the service: shares follow rewards batch by batch, every process agrees, and it never is an A/B test."""

import asyncio
from collections.abc import Iterator

import polars as pl
import pytest
from clocks import Clock
from proposals import proposed, running

from rec_engine.data.events import Event, EventStore
from rec_engine.errors import ConflictError, DataError, ExperimentError
from rec_engine.evaluation.ab_testing import ABTestManager
from rec_engine.experiments.assignment import assign
from rec_engine.experiments.bandit_batches import BanditResult, is_batch_over, next_batch
from rec_engine.experiments.definition import Experiment
from rec_engine.serving.served_experiments import ServedExperiments
from rec_engine.utils.config import RecommendationSettings

HOUR = 3_600
USERS = range(1_000)


@pytest.fixture
def served(url: str, clock: Clock) -> Iterator[ServedExperiments]:
    served = ServedExperiments(url, RecommendationSettings(), clock)
    proposal = proposed(kind="bandit", reads_service=True, treatment={"diversity": 0.5}, floor=0.1)
    served._live.lifecycle.create(proposal.experiment(int(clock.now)))
    served._live.lifecycle.start("exp")
    yield served
    served.close()


def meet(served: ServedExperiments, url: str, clock: Clock, batch: int) -> dict[int, str]:
    """Return the arms that all users meet; half of the treatment's buy, and a tenth of the control's."""
    arms, events = {}, []
    for user in USERS:
        treatment = served.treatments.of(user, dict)
        served.treatments.met(user, treatment)
        arms[user] = (treatment.label or "").removeprefix("exp/")
        if (user + batch) % (2 if arms[user] == "treatment" else 10) == 0:
            events.append(Event(f"{batch}-{user}", str(user), "1", "purchase", int(clock.now) + 1, 1.0))
    store = EventStore(url)
    store.write(events)
    store.close()
    served._live.recorder.flush()
    clock.now += 24 * HOUR
    return arms


def result(served: ServedExperiments) -> BanditResult:
    found = asyncio.run(served.results("exp", pl.DataFrame({"user_id": []})))
    assert isinstance(found, BanditResult)
    return found


def test_the_first_batch_begins_when_users_can_meet_it() -> None:
    waiting = running(proposed(kind="bandit", reads_service=True, start_date=100 * HOUR), started_at=1)
    assert not is_batch_over(waiting, 100 * HOUR + 5)
    assert is_batch_over(waiting, 100 * HOUR + waiting.batch_hours * HOUR)


def share_of_treatment(arms: dict[int, str]) -> float:
    return sum(arm == "treatment" for arm in arms.values()) / len(arms)


def test_users_follow_rewards_in_the_next_batch_and_losers_keep_the_floor(
    served: ServedExperiments, url: str, clock: Clock
) -> None:
    first = meet(served, url, clock, 0)
    assert share_of_treatment(first) == pytest.approx(0.5, abs=0.05)
    served._begin_batches()
    assert served.get("exp").phase.shares == pytest.approx((0.1, 0.9), abs=1e-6)
    served._begin_batches()
    assert len(served.get("exp").phases) == 2  # the new batch has only begun
    second = meet(served, url, clock, 1)
    assert share_of_treatment(second) == pytest.approx(0.9, abs=0.03)
    assert any(first[user] == "treatment" and second[user] == "control" for user in USERS)  # drawn anew

    found = result(served)
    assert [each.users for each in found.arms] == [
        sum(arm == name for batch in (first, second) for arm in batch.values()) for name in ("control", "treatment")
    ]
    difference = found.arms[1].difference
    assert difference is not None
    assert difference.batches == 2
    assert difference.difference == pytest.approx(0.4, abs=0.1)
    last = served._live.lifecycle.history("exp")[-1]
    assert (last.actor, last.reason.startswith("rewarded so far: control ")) == ("the service", True)


def test_what_was_rewarded_in_a_batch_counts_in_no_other(served: ServedExperiments, url: str, clock: Clock) -> None:
    meet(served, url, clock, 0)
    before = [each.rewarded for each in result(served).arms]
    served._begin_batches()
    for user in USERS:
        served.treatments.met(user, served.treatments.of(user, dict))
    assert [each.rewarded for each in result(served).arms] == before


def test_every_process_draws_alike_and_one_of_them_begins_the_batch(
    served: ServedExperiments, url: str, clock: Clock
) -> None:
    met = meet(served, url, clock, 0)
    other = ServedExperiments(url, RecommendationSettings(), clock)
    try:
        seen: Experiment = other.get("exp")
        served._begin_batches()
        with pytest.raises(ConflictError):
            next_batch(other._live.lifecycle, url, seen, int(clock.now), "another worker")
        other._live.refresh()
        assert [other.treatments.of(user, dict).label for user in USERS] == [
            served.treatments.of(user, dict).label for user in USERS
        ]
        assert {user: assign(seen, user, clock.now).arm for user in USERS} == met
    finally:
        other.close()


def test_it_says_that_it_does_not_measure(served: ServedExperiments, url: str, clock: Clock) -> None:
    meet(served, url, clock, 0)
    found = result(served).as_dict()
    assert (found["kind"], "does not measure" in str(found["purpose"])) == ("bandit", True)
    assert result(served).recommendation.action == "continue_running"
    served._live.lifecycle.stop("exp")
    ended = result(served).recommendation
    assert (ended.action, "does not measure" in ended.reason) == ("run_experiment", True)
    with ABTestManager(store=url, clock=clock) as manager:
        assert manager.analyze_experiment("exp")["recommendations"]["action"] == "run_experiment"
        with pytest.raises(ExperimentError, match="not an A/B test"):
            manager.analyze("exp")


def test_nobody_sets_its_shares(served: ServedExperiments) -> None:
    with pytest.raises(DataError, match="nobody sets the shares"):
        served._live.lifecycle.allocate("exp", shares=(0.2, 0.8))
    assert served._live.lifecycle.allocate("exp", coverage=1.0).phase.shares == (0.5, 0.5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"floor": 0.4, "arms": [{"name": n, "share": s} for n, s in (("a", 0.5), ("b", 0.2), ("c", 0.3))]}, "a floor"),
        ({"target_metrics": ("ctr",)}, "its reward is yes or no"),
        ({"target_metrics": ("conversion_rate", "ctr")}, "one metric"),
        ({"guardrails": ("ctr",)}, "measures no guardrails"),
        ({"window_days": 3}, "no window_days"),
        ({"reads_service": False}, "needs reads_service"),
    ],
)
def test_what_is_no_bandit_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        proposed(**{"kind": "bandit", "reads_service": True, **fields}).experiment(0)
