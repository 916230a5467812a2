"""Experiments from Python: the brief's snippet, the whole API, bad input, and how fast recording is."""

import math
import time
from collections.abc import Iterator

import numpy as np
import pytest

from rec_engine.errors import DataError, ExperimentError, NotFoundError
from rec_engine.evaluation.ab_testing import ABTestManager
from rec_engine.experiments.design import Metric
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.measuring import measure

ACTIONS = {"deploy_treatment", "keep_control", "no_clear_winner", "investigate_further", "continue_running"}
DAY = 86_400


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(clock: Clock) -> Iterator[ABTestManager]:
    with ABTestManager(clock=clock) as manager:
        manager.create_experiment("exp", "Test")
        manager.start_experiment("exp")
        yield manager


def measured_of(manager: ABTestManager, experiment_id: str = "exp") -> Measurements:
    manager.flush()
    return measure(manager.store_url, manager.get_experiment(experiment_id), 2**40)


def test_the_snippet_of_the_brief_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from rec_engine.evaluation.ab_testing import ABTestManager

    # Create experiment
    ab_manager = ABTestManager()
    experiment = ab_manager.create_experiment(
        experiment_id="new_ranking_v2", name="Improved CTR Ranking", treatment_percentage=0.5
    )

    # Start experiment
    ab_manager.start_experiment("new_ranking_v2")

    # Record metrics
    ab_manager.record_impression("new_ranking_v2", user_id=123)
    ab_manager.record_click("new_ranking_v2", user_id=123)

    # Analyze results
    results = ab_manager.analyze_experiment("new_ranking_v2")
    print(f"Recommendation: {results['recommendations']['action']}")  # noqa: T201 - the brief's
    assert capsys.readouterr().out == "Recommendation: continue_running\n"
    assert experiment.phase.shares == (0.5, 0.5)
    ab_manager.close()


def test_an_action_is_there_without_any_user(manager: ABTestManager) -> None:
    assert manager.analyze_experiment("exp")["recommendations"]["action"] in ACTIONS


def test_what_is_recorded_is_measured(manager: ABTestManager) -> None:
    manager.record_click("exp", 1)  # before his exposure: kept, not attributed
    arm = manager.record_impression("exp", 1).arm
    manager.record_impression("exp", "1")
    manager.record_click("exp", 1, event_id="same")
    manager.record_click("exp", 1, event_id="same")
    manager.record_conversion("exp", 1, revenue=12.5)
    manager.record_engagement("exp", 1, engagement_time=60.0)
    measured = measured_of(manager)
    assert [measured.arms[place] for place in measured.arm] == [arm]
    # The click before, in the same second, counts.
    totals = {name: values.tolist() for name, values in measured.totals.items()}
    assert totals == {
        "impressions": [2],
        "clicks": [2],
        "conversions": [1],
        "revenue": [12.5],
        "engagement_seconds": [60],
    }


def test_a_click_without_exposure_is_stored_and_not_attributed(manager: ABTestManager, clock: Clock) -> None:
    manager.record_click("exp", 1)
    assert sum(manager.analyze("exp").users) == 0
    clock.now += 100
    manager.record_impression("exp", 1)
    assert measured_of(manager).totals["clicks"].tolist() == [0]


@pytest.mark.parametrize("value", [math.nan, math.inf, "12", None, True])
def test_what_is_no_number_is_refused(manager: ABTestManager, value: float) -> None:
    with pytest.raises(DataError, match="finite number"):
        manager.record_custom_metric("exp", 1, "basket", value)


def test_nan_revenue_is_refused_and_the_purchase_with_it(manager: ABTestManager) -> None:
    manager.record_impression("exp", 1)
    with pytest.raises(DataError, match="revenue nan"):
        manager.record_conversion("exp", 1, revenue=math.nan)
    assert measured_of(manager).totals["conversions"].tolist() == [0]


def test_unknown_experiments_arms_and_metrics_are_named(manager: ABTestManager) -> None:
    with pytest.raises(NotFoundError, match="no experiment 'other'"):
        manager.record_click("other", 1)
    with pytest.raises(NotFoundError, match="no arm 'blue'"):
        manager.record_exposure("exp", 1, "blue")
    with pytest.raises(NotFoundError, match="no metric 'happiness'"):
        manager.create_experiment("exp2", "Two", target_metrics=["happiness"])
    with pytest.raises(NotFoundError, match="has no metric 'happiness'"):
        manager.analyze_metric("exp", "happiness")


@pytest.mark.parametrize("user", [True, "", "a\0b", "x" * 300, 1.5])
def test_what_is_no_user_id_is_refused(manager: ABTestManager, user: str) -> None:
    with pytest.raises(DataError, match="user_id"):
        manager.record_impression("exp", user)


def test_a_clock_that_is_ahead_is_not_believed(manager: ABTestManager, clock: Clock) -> None:
    manager.record_impression("exp", 1)
    manager.record_click("exp", 1, timestamp=clock.now + 10 * DAY)
    clock.now += 1
    assert measured_of(manager).totals["clicks"].tolist() == [1]
    with pytest.raises(DataError, match="timestamp"):
        manager.record_click("exp", 1, timestamp=math.nan)


def test_steps_that_do_not_fit_the_state_are_refused(manager: ABTestManager) -> None:
    with pytest.raises(ExperimentError, match="cannot start exp: it is running"):
        manager.start_experiment("exp")
    with pytest.raises(ExperimentError, match="there is an experiment 'exp'"):
        manager.create_experiment("exp", "Again")
    manager.create_experiment("draft", "Draft")
    with pytest.raises(ExperimentError, match="draft is draft"):
        manager.record_click("draft", 1)
    manager.pause_experiment("exp")
    assert manager.get_variant("exp", 1) == "control"
    manager.resume_experiment("exp")
    manager.stop_experiment("exp", reason="enough")
    with pytest.raises(ExperimentError, match="exp is stopped"):
        manager.record_impression("exp", 1)
    assert [each.experiment_id for each in manager.list_experiments("stopped")] == ["exp"]


def test_overlapping_parts_of_a_layer_are_refused(manager: ABTestManager) -> None:
    manager.create_experiment("a", "A", layer={"name": "ranking", "first": 0.0, "last": 0.6})
    with pytest.raises(DataError, match=r"share users of the layer 'ranking'"):
        manager.create_experiment("b", "B", layer={"name": "ranking", "first": 0.5, "last": 1.0})
    manager.create_experiment("c", "C", layer={"name": "ranking", "first": 0.6, "last": 1.0})
    manager.create_experiment("d", "D", layer={"name": "other"})


@pytest.mark.parametrize(
    "fields",
    [
        {"treatment_percentage": 50},
        {"treatment_percentage": 0.0},
        {"coverage": 1.5},
        {"nonsense": 1},
        {"arms": [{"name": "only", "share": 1.0}]},
        {"arms": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.6}]},
        {"arms": [{"name": "a", "share": 0.5}, {"name": "a", "share": 0.5}]},
        {"start_date": "2026-01-02", "end_date": "2026-01-01"},
        {"start_date": "yesterday"},
        {"forced": {"ann": "blue"}},
    ],
)
def test_proposals_that_make_no_sense_are_refused(manager: ABTestManager, fields: dict[str, object]) -> None:
    with pytest.raises(DataError):
        manager.create_experiment("bad", "Bad", **fields)  # type: ignore[arg-type]


def test_a_ramp_moves_nobody(manager: ABTestManager) -> None:
    manager.create_experiment("ramp", "Ramp", treatment_percentage=0.1)
    manager.start_experiment("ramp")
    before = {user: manager.record_impression("ramp", user).arm for user in range(500)}
    manager.update_experiment_allocation("ramp", 0.5)
    assert {user: manager.get_variant("ramp", user) for user in range(500)} == before
    assert {manager.get_variant("ramp", user) for user in range(500, 600)} == {"control", "treatment"}
    for user in range(1_000):
        manager.record_impression("ramp", user)
    measured = measured_of(manager, "ramp")
    assert (measured.n_users, measured.n_conflicting) == (1_000, 0)
    assert measured.phase.tolist().count(0) == 500
    assert measured.shares.tolist() == [[0.9, 0.1], [0.5, 0.5]]


def test_coverage_never_shrinks(manager: ABTestManager) -> None:
    with pytest.raises(DataError, match="coverage 0.5 is below 1"):
        manager.update_experiment_allocation("exp", coverage=0.5)


def test_users_of_two_arms_are_left_out_and_counted(manager: ABTestManager) -> None:
    manager.record_exposure("exp", 1, "control")
    manager.record_exposure("exp", 1, "treatment")
    manager.record_exposure("exp", 2)
    measured = measured_of(manager)
    assert (measured.n_users, measured.n_conflicting) == (1, 1)


def test_bots_are_left_out_and_counted(manager: ABTestManager) -> None:
    manager.create_experiment("shy", "Shy", max_events_an_hour=10)
    manager.start_experiment("shy")
    for user, n_events in ((1, 10), (2, 11)):
        for _ in range(n_events):
            manager.record_impression("shy", user)
    measured = measured_of(manager, "shy")
    assert (measured.n_users, measured.n_bots) == (1, 1)


def test_an_arm_without_users_gives_no_wrong_number(manager: ABTestManager) -> None:
    for user in range(50):
        if manager.get_variant("exp", user) == "control":
            manager.record_impression("exp", user)
    results = manager.analyze_experiment("exp")
    assert results["recommendations"]["action"] in ACTIONS
    assert all(comparison.difference is None for comparison in manager.analyze("exp").comparisons)


def test_exposures_of_one_arm_only_are_an_alarm(manager: ABTestManager) -> None:
    """A build that logs only the treatment's exposures must not be believed."""
    for user in range(3_000):
        if manager.get_variant("exp", user) == "treatment":
            manager.record_impression("exp", user)
    results = manager.analyze_experiment("exp")
    assert results["srm"]["status"] == "failed"
    assert results["recommendations"]["action"] == "investigate_further"


def test_the_past_explains_what_is_done_since(manager: ABTestManager, clock: Clock) -> None:
    manager.create_experiment("past", "Past", target_metrics=[Metric(name="buys", numerator="buys")])
    manager.start_experiment("past")
    habits = np.random.default_rng(0).integers(1, 9, 200).tolist()
    for user, habit in enumerate(habits):
        manager.record_custom_metric("past", user, "buys", habit)
    clock.now += DAY
    for user, habit in enumerate(habits):
        manager.record_exposure("past", user)
        manager.record_custom_metric("past", user, "buys", 2 * habit)
    clock.now += 2 * DAY
    manager.flush()
    measured = measure(manager.store_url, manager.get_experiment("past"), int(clock.now))
    assert (measured.totals["buys"] == 2 * measured.before["buys"]).all()
    assert measured.before["buys"].sum() == sum(habits)
    assert measured.days == 3


def test_a_store_is_shared_and_outlives_its_managers(store_url: str) -> None:
    with ABTestManager(store=store_url) as first:
        first.create_experiment("exp", "Test")
        first.start_experiment("exp")
        arms = {user: first.record_impression("exp", user).arm for user in range(100)}
    with ABTestManager(store=store_url) as second:
        assert {user: second.get_variant("exp", user) for user in range(100)} == arms
        assert sum(second.analyze("exp").users) == 100


def test_recording_takes_microseconds_and_nothing_is_lost(tmp_path_factory: pytest.TempPathFactory) -> None:
    with ABTestManager() as manager:
        manager.create_experiment("exp", "Test")
        manager.start_experiment("exp")
        took = []
        for user in range(20_000):
            started = time.perf_counter()
            manager.record_click("exp", user % 1_000)
            took.append(time.perf_counter() - started)
        manager.flush()
        assert np.quantile(took, 0.9) < 50e-6
        assert manager.n_dropped == 0


def test_users_and_days_are_planned_by_what_users_did(manager: ABTestManager, clock: Clock) -> None:
    manager.create_experiment("next", "Next", target_metrics=["conversion_rate"], minimum_effect=0.2)
    with pytest.raises(DataError, match="0 users did anything"):
        manager.power_analysis("next")
    for user in range(1_400):
        manager.record_impression("exp", user)
        if user % 10 == 0:
            manager.record_conversion("exp", user)
    clock.now += 60
    plan = manager.power_analysis("next", past_days=14)
    assert plan.baseline == pytest.approx(0.1)
    assert plan.users_a_day == 100
    assert plan.users_needed is not None
    # 10% to 12%, a twentieth and 80%: 3,841 an arm for a single look; five planned looks cost a few per cent.
    assert 2 * 3_841 < plan.users_needed < 1.1 * 2 * 3_841
    assert plan.detectable_effect == pytest.approx(0.2, rel=1e-3)
    assert plan.days % 7 == 0
    assert plan.days >= plan.users_needed / 100
