"""Experiments from Python: the brief's snippet, the whole API, bad input, and how fast recording is."""

import math
import time
from collections.abc import Iterator
from datetime import date

import numpy as np
import pytest
from clocks import Clock

from rec_engine.errors import DataError, ExperimentError, NotFoundError
from rec_engine.evaluation.ab_testing import ABTestManager
from rec_engine.experiments.definition import MAX_PHASES
from rec_engine.experiments.design import Metric
from rec_engine.experiments.measurements import Measurements
from rec_engine.experiments.measuring import measure, whole_days
from rec_engine.experiments.recording import When

ACTIONS = {"deploy_treatment", "keep_control", "no_clear_winner", "investigate_further", "continue_running"}
DAY = 86_400


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


@pytest.mark.parametrize(
    "when",
    [
        {"event_id": "a\0b"},
        {"event_id": "\ud800"},
        {"event_id": 1.5},
        {"event_id": ""},
        {"timestamp": "noon"},
        {"timestamp": True},
        {"timestamp": -1},
        {"timestamp": math.inf},
    ],
)
def test_what_is_no_event_and_no_moment_is_refused_before_it_could_stop_the_writer(
    manager: ABTestManager, when: When
) -> None:
    with pytest.raises(DataError):
        manager.record_click("exp", 1, **when)
    manager.flush()


def test_values_and_names_that_could_not_be_summed_are_refused(manager: ABTestManager) -> None:
    for value in (10**400, 1e200, -1e200):
        with pytest.raises(DataError, match="finite number"):
            manager.record_custom_metric("exp", 1, "basket", value)
    for name in ("", "a\0b", "x" * 101, 5, None):
        with pytest.raises(DataError, match="name of a total"):
            manager.record_custom_metric("exp", 1, name, 1.0)  # type: ignore[arg-type]
    for seconds in ("long", None, math.nan, -1):
        with pytest.raises(DataError, match="engagement_time"):
            manager.record_engagement("exp", 1, seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize("as_of", [math.nan, math.inf, -5, "noon"])
def test_what_is_no_moment_to_look_back_at_is_refused(manager: ABTestManager, as_of: float) -> None:
    with pytest.raises(DataError, match="timestamp"):
        manager.analyze("exp", as_of=as_of)


def test_other_bad_input_is_told_to_whoever_gave_it(manager: ABTestManager) -> None:
    for fields in ({"treatment_percentage": "half"}, {"coverage": "all"}, {"coverage": math.nan}):
        with pytest.raises(DataError):
            manager.update_experiment_allocation("exp", **fields)
    for days in (0, 10**30, "week"):
        with pytest.raises(DataError, match="past_days"):
            manager.power_analysis("exp", past_days=days)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="user_id"):
        manager.get_variant("exp", "\ud800")


def test_one_id_may_name_an_impression_and_its_click_and_its_purchase(manager: ABTestManager) -> None:
    for _ in range(2):
        manager.record_impression("exp", 1, event_id="request-1")
        manager.record_click("exp", 1, event_id="request-1")
        manager.record_conversion("exp", 1, revenue=5.0, event_id="request-1")
        manager.record_conversion("exp", 1, revenue=5.0, event_id=1)
    totals = measured_of(manager).totals
    found = {name: totals[name].tolist() for name in ("impressions", "clicks", "conversions", "revenue")}
    assert found == {"impressions": [1], "clicks": [1], "conversions": [2], "revenue": [10]}


def test_totals_may_have_any_name(store_url: str) -> None:
    names = ["n_events", "user_id", "first_event", "clicks", "before clicks", "now clicks", '50% "off": x', "y" * 100]
    with ABTestManager(store=store_url) as manager:
        metrics = [Metric(name=f"metric {place}", numerator=name) for place, name in enumerate(names)]
        manager.create_experiment("names", "Names", target_metrics=metrics)
        manager.start_experiment("names")
        manager.record_exposure("names", 1)
        for place, name in enumerate(names):
            manager.record_custom_metric("names", 1, name, place + 1.0)
        totals = measured_of(manager, "names").totals
    assert {name: values.tolist() for name, values in totals.items()} == {
        name: [place + 1] for place, name in enumerate(names)
    }


def test_nobody_meets_an_experiment_before_its_start(manager: ABTestManager, clock: Clock) -> None:
    started = int(clock.now)
    with pytest.raises(DataError, match="was started only at"):
        manager.record_exposure("exp", 1, timestamp=started - 2 * DAY)
    manager.record_exposure("exp", 2, timestamp=started - 30)  # a clock that is behind
    manager.record_click("exp", 2, timestamp=started - 10)
    measured = measured_of(manager)
    assert (measured.n_users, measured.totals["clicks"].tolist()) == (1, [0])


def test_those_whom_it_is_for_can_be_told_with_their_impression(manager: ABTestManager) -> None:
    manager.create_experiment("french", "French", targeting={"country": ["fr"]})
    manager.start_experiment("french")
    manager.record_impression("french", 1, attributes={"country": "fr"})
    manager.record_impression("french", 2, attributes={"country": "de"})
    manager.record_impression("french", 3)
    assert measured_of(manager, "french").n_users == 1


def test_an_experiment_can_have_so_many_allocations_and_is_not_lost_by_one_more(manager: ABTestManager) -> None:
    for place in range(1, MAX_PHASES):
        manager.update_experiment_allocation("exp", 0.1 + place / 1_000)
    with pytest.raises(ExperimentError, match="can have no more"):
        manager.update_experiment_allocation("exp", 0.5)
    assert len(manager.get_experiment("exp").phases) == MAX_PHASES


def test_days_count_from_the_start_date(manager: ABTestManager, clock: Clock) -> None:
    manager.create_experiment("later", "Later", start_date=int(clock.now) + 10 * DAY)
    manager.start_experiment("later")
    clock.now += 12 * DAY
    manager.record_impression("later", 1)
    assert manager.analyze("later").days == 2


def test_a_date_is_its_midnight_in_utc(manager: ABTestManager) -> None:
    # What YAML makes of 2026-01-02.
    assert manager.create_experiment("day", "Day", start_date=date(2026, 1, 2)).starts_at == 1_767_312_000


def test_a_single_metric_may_be_named_without_a_list(manager: ABTestManager) -> None:
    made = manager.create_experiment("one", "One", target_metrics="ctr")
    assert [metric.name for metric in made.design.metrics] == ["ctr"]


def test_users_of_an_allocation_that_is_not_known_yet_wait_for_the_next_look(manager: ABTestManager) -> None:
    stale = manager.get_experiment("exp")
    manager.record_impression("exp", 1)
    manager.update_experiment_allocation("exp", 0.4)
    manager.record_impression("exp", 2)
    manager.flush()
    assert measure(manager.store_url, stale, 2**40).n_users == 1
    assert measured_of(manager).n_users == 2


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


def test_an_impression_that_cannot_be_used_leaves_no_exposure_either(manager: ABTestManager) -> None:
    with pytest.raises(DataError, match="event_id"):
        manager.record_impression("exp", 1, event_id="")
    manager.record_impression("exp", 2, event_id="shown")
    measured = measured_of(manager)
    assert (measured.n_users, measured.totals["impressions"].tolist()) == (1, [1.0])


def test_days_in_which_it_was_paused_are_not_among_those_that_it_ran(manager: ABTestManager, clock: Clock) -> None:
    day, steps = 86_400, (manager.pause_experiment, manager.resume_experiment) * 2
    began, hashed = int(clock.now), manager.get_experiment("exp").config_hash
    for step, days in zip(steps, (2, 5, 1, 3), strict=True):  # runs 2 days, rests 5, runs 1, rests 3
        clock.now += days * day
        step("exp")
    clock.now += 2 * day
    experiment = manager.get_experiment("exp")
    moments = {0: 0, 2: 2, 4: 2, 7: 2, 8: 3, 10: 3, 13: 5}
    assert {at: whole_days(experiment, began + at * day) for at in moments} == moments
    assert "5 of at least 7 days have passed" in manager.analyze("exp").recommendation.reason
    manager.pause_experiment("exp")
    clock.now += 4 * day
    assert manager.analyze("exp").days == 5
    assert manager.get_experiment("exp").config_hash == hashed


def test_who_does_much_in_many_hours_is_no_bot(manager: ABTestManager, clock: Clock) -> None:
    manager.create_experiment("shy", "Shy", max_events_an_hour=10)
    manager.start_experiment("shy")
    began = clock.now
    clock.now += 7_200
    for user, seconds in (("fast", 7_199), ("at the limit", 7_200)):
        for number in range(20):
            manager.record_impression("shy", user, timestamp=began + seconds * number / 19)
    measured = measured_of(manager, "shy")
    assert (measured.n_users, measured.n_bots) == (1, 1)
    assert measured.totals["impressions"].tolist() == [20.0]


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
