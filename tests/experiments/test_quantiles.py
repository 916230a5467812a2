"""Quantiles of single values, beside a slow reference and over whole experiments, from events to the verdict."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from clocks import Clock
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rec_engine.data.events import Event, EventStore
from rec_engine.data.experiment_log import ExperimentLog, Exposure
from rec_engine.errors import DataError
from rec_engine.evaluation.ab_testing import ABTestManager
from rec_engine.experiments import measuring
from rec_engine.experiments.analysis import analyze
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.estimates import Estimates
from rec_engine.experiments.measurements import Measurements, SingleValues
from rec_engine.experiments.measuring import measure
from rec_engine.experiments.power import baseline
from rec_engine.experiments.proposal import Proposal
from rec_engine.experiments.quantiles import HALF_WIDTH, quantile_estimates
from rec_engine.experiments.results import Analysis

LATENCY = Metric(
    name="p99", numerator="latency_ms", quantile=0.99, higher_is_better=False, role="guardrail", margin=0.2
)
DAY, START = 86_400, 1_700_000_000


def single(values: Mapping[int, list[float]]) -> SingleValues:
    """Return the values of users, mixed."""
    pairs = [(user, value) for user, its_values in values.items() for value in its_values]
    order = np.random.default_rng(0).permutation(len(pairs))
    users = np.array([user for user, _ in pairs], dtype=np.int32)
    return SingleValues(users[order], np.array([value for _, value in pairs], dtype=np.float64)[order])


def one_cell(values: SingleValues, n_users: int, probability: float) -> Estimates:
    return quantile_estimates(values, np.zeros(n_users, dtype=np.int64), (1, 1), probability)


def reference(values: Mapping[int, list[float]], n_users: int, probability: float) -> tuple[float, float]:
    """Return the quantile and its variance from the definition: step by step, value by value."""
    everything = [value for its_values in values.values() for value in its_values]
    distinct, n = sorted(set(everything)), len(everything)
    middles = [(sum(each < at for each in everything) + everything.count(at) / 2) / n for at in distinct]

    def quantile(at: float) -> float:
        return float(np.interp(at, middles, distinct)) if n and middles[0] <= at < middles[-1] else np.nan

    def is_stable(at: float, half: float) -> bool:
        upper = next(place for place, middle in enumerate(middles) if middle > at)
        neighbours = distinct[upper - 1], distinct[upper]
        n_with = [sum(each in its_values for its_values in values.values()) for each in neighbours]
        return middles[upper] - middles[upper - 1] <= half / 2 or min(n_with) >= 5

    value = quantile(probability)
    if np.isnan(value):
        return value, np.nan
    upper = next(place for place, middle in enumerate(middles) if middle > probability)
    weight = (probability - middles[upper - 1]) / (middles[upper] - middles[upper - 1])
    parts = []
    for user in range(n_users):
        below = 0.0
        for each in values.get(user, []):
            for neighbour, its_weight in ((distinct[upper - 1], 1 - weight), (distinct[upper], weight)):
                below += its_weight * (float(each < neighbour) + float(each == neighbour) / 2)
        parts.append((below, len(values.get(user, []))))
    ratio = sum(below for below, _ in parts) / n
    residuals = [(below - ratio * count) / (n / n_users) for below, count in parts]
    half = HALF_WIDTH * np.sqrt(np.var(residuals, ddof=1) / n_users)
    low, high = probability - half, probability + half
    if np.isnan(quantile(low) + quantile(high)) or not all(is_stable(at, half) for at in (low, probability, high)):
        return value, np.nan
    return value, ((quantile(high) - quantile(low)) / (2 * HALF_WIDTH)) ** 2


@given(
    st.dictionaries(st.integers(0, 30), st.lists(st.integers(-5, 20).map(float), max_size=12), max_size=31),
    st.floats(0.05, 0.95),
)
def test_the_quantile_and_its_variance_are_those_of_the_definition(
    values: dict[int, list[float]], probability: float
) -> None:
    found = one_cell(single(values), 31, probability)
    value, variance = reference(values, 31, probability)
    np.testing.assert_allclose(found.value[0, 0], value, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.variance[0, 0], variance, rtol=1e-6, atol=1e-9)
    assert found.n[0, 0] == 31


def test_without_ties_it_is_the_common_quantile_and_its_error_the_one_of_density() -> None:
    rng = np.random.default_rng(4)
    values = rng.exponential(1.0, 50_000)
    found = one_cell(SingleValues(np.arange(50_000, dtype=np.int32), values), 50_000, 0.9)
    assert found.value[0, 0] == pytest.approx(np.quantile(values, 0.9, method="hazen"), rel=1e-12)
    assert found.variance[0, 0] == pytest.approx(0.9 * 0.1 / 50_000 / 0.1**2, rel=0.1)


def test_cells_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(5)
    user = rng.integers(0, 600, 9_000).astype(np.int32)
    values, cell = SingleValues(user, rng.lognormal(4, 1, 9_000)), rng.integers(0, 6, 600)
    together = quantile_estimates(values, cell, (3, 2), 0.8)
    for each in range(6):
        is_its = cell == each
        rows = (np.cumsum(is_its) - 1).astype(np.int32)
        its_values = SingleValues(rows[user[is_its[user]]], values.value[is_its[user]])
        alone = one_cell(its_values, int(is_its.sum()), 0.8)
        assert together.value.ravel()[each] == alone.value[0, 0]
        assert together.variance.ravel()[each] == pytest.approx(alone.variance[0, 0], rel=1e-9)


def latencies(n_users: int, factor: float = 1.0, seed: int = 1) -> Measurements:
    """Return users with ten latencies each, whose slowness differs, longer by a factor in the treatment."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, n_users).astype(np.int32)
    user = np.repeat(np.arange(n_users, dtype=np.int32), 10)
    slow = rng.normal(4, 0.5, n_users)
    value = np.floor(np.exp(rng.normal(slow[user], 0.5)) * np.where(arm[user] == 1, factor, 1.0))
    return Measurements(
        ("control", "treatment"),
        arm,
        np.zeros(n_users, dtype=np.int32),
        np.array([[0.5, 0.5]]),
        {"clicks": rng.poisson(3.0, n_users) + 0.5 * arm},
        values={"latency_ms": SingleValues(user, value)},
        days=14,
    )


def analysis_of(measured: Measurements, metric: Metric = LATENCY) -> Analysis:
    clicks = Metric(name="clicks", numerator="clicks", role="primary")
    return analyze(Design(metrics=(clicks, metric), planned_users=measured.n_users, min_sample_size=100), measured)


@pytest.mark.parametrize(
    ("factor", "action"),
    [(1.0, "deploy_treatment"), (1.2, "investigate_further"), (1.6, "keep_control")],
    ids=["safe", "unsettled", "harmed"],
)
def test_a_guardrail_may_be_a_quantile(factor: float, action: str) -> None:
    found = analysis_of(latencies(6_000, factor))
    assert found.recommendation.action == action
    p99 = found.find("p99", "treatment")
    assert p99.relative == pytest.approx(factor - 1, abs=0.08)
    assert p99.relative_ci is not None
    assert p99.relative_ci[0] is not None
    assert p99.relative_ci[1] is not None
    assert p99.relative_ci[0] < factor - 1 < p99.relative_ci[1]
    assert p99.naive_p_value is p99.variance_reduction is None
    assert found.figures[2].prob_best is not None


def test_a_quantile_is_shown_of_segments_too() -> None:
    users = latencies(4_000, 1.3)
    device = np.where(np.arange(4_000) % 4 == 0, "phone", "desk")
    median = Metric(name="median", numerator="latency_ms", quantile=0.5, role="primary")
    design = Design(metrics=(median,))
    desk, phone = analyze(design, replace(users, segments={"device": device})).segments
    is_phone = device == "phone"
    rows = (np.cumsum(is_phone) - 1).astype(np.int32)
    held = users.values["latency_ms"]
    of_phones = SingleValues(rows[held.user[is_phone[held.user]]], held.value[is_phone[held.user]])
    alone = Measurements(
        users.arms, users.arm[is_phone], users.phase[is_phone], users.shares, {}, values={"latency_ms": of_phones}
    )
    assert (desk.value, phone.value) == ("desk", "phone")
    assert phone.difference == pytest.approx(analyze(design, alone).find("median", "treatment").difference)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (SingleValues(np.empty(0, dtype=np.int32), np.empty(0)), "has no interval in control and treatment: too few"),
        (
            SingleValues(np.arange(60, dtype=np.int32), np.arange(60.0)),
            "the 0.99 quantile of latency_ms has no interval",
        ),
        (SingleValues(np.arange(60, dtype=np.int32), np.full(60, np.nan)), "60 of its values are not finite"),
        (SingleValues(np.empty(0, dtype=np.int32), np.empty(0), is_complete=False), "more single values than are held"),
    ],
    ids=["none", "few", "not finite", "too many"],
)
def test_what_a_quantile_lacks_is_said(held: SingleValues, says: str) -> None:
    found = analysis_of(replace(latencies(400), values={"latency_ms": held}))
    assert any(says in sentence for sentence in found.health)
    assert found.find("p99", "treatment").difference is None
    assert found.recommendation.action != "deploy_treatment"


def test_a_quantile_of_users_who_are_all_alike_is_not_tested() -> None:
    users = latencies(400)
    alike = SingleValues(users.values["latency_ms"].user, np.tile(np.arange(10.0), 400))
    found = analysis_of(replace(users, values={"latency_ms": alike}), LATENCY.model_copy(update={"quantile": 0.5}))
    assert found.find("p99", "treatment").p_value is None
    assert found.find("p99", "treatment").control == 4.5
    assert any("as many values of every user lie below it" in sentence for sentence in found.health)


def test_values_that_are_all_the_same_have_no_quantile_to_test() -> None:
    users = latencies(400)
    same = SingleValues(users.values["latency_ms"].user, np.full(4_000, 7.0))
    found = analysis_of(replace(users, values={"latency_ms": same}))
    assert found.find("p99", "treatment").p_value is None


@pytest.mark.parametrize("share_of_zeros", [0.5, 0.52, 0.7])
def test_a_quantile_at_the_edge_of_a_value_that_many_have_is_not_tested(share_of_zeros: float) -> None:
    """Its place is that of the least of the other values: two equal arms would differ in most experiments."""
    rng = np.random.default_rng(6)
    median = LATENCY.model_copy(update={"quantile": 0.5})
    for seed in range(10):
        users = latencies(2_000, seed=seed)
        held = users.values["latency_ms"]
        is_zero = rng.random(len(held.value)) < share_of_zeros
        cached = SingleValues(held.user, np.where(is_zero, 0.0, held.value + rng.random(len(held.value))))
        found = analysis_of(replace(users, values={"latency_ms": cached}), median)
        assert found.find("p99", "treatment").p_value is None
        assert any("too many next to it are the same" in sentence for sentence in found.health)


def test_values_belong_to_users() -> None:
    stranger = SingleValues(np.array([400], dtype=np.int32), np.ones(1))
    with pytest.raises(DataError, match="values of latency_ms are not one a row of the 400 users"):
        replace(latencies(400), values={"latency_ms": stranger})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"denominator": "requests"}, "neither a denominator nor is_share"),
        ({"is_share": True}, "neither a denominator nor is_share"),
        ({"cap_quantile": 0.99}, "no cap_quantile"),
        ({"variance_reduction": True}, r"no variance_reduction \(CUPED\)"),
        ({"quantile": 1.0}, "less than 1"),
    ],
    ids=["ratio", "share", "winsorised", "cuped", "maximum"],
)
def test_what_does_not_go_with_a_quantile_is_refused(fields: dict[str, object], says: str) -> None:
    given_fields = {"name": "p99", "numerator": "latency_ms", "quantile": 0.99} | fields
    with pytest.raises(ValidationError, match=says):
        Metric.model_validate(given_fields)
    with pytest.raises(DataError, match=says):
        Proposal.of(experiment_id="exp", name="Test", guardrails=[given_fields])


def test_a_quantile_comes_back_from_its_definition_as_it_was() -> None:
    assert not LATENCY.variance_reduction
    assert Metric.model_validate_json(LATENCY.model_dump_json()) == LATENCY
    assert Metric(name="clicks", numerator="clicks").variance_reduction


def test_users_are_not_planned_by_a_quantile() -> None:
    with pytest.raises(DataError, match=r"p99 is a quantile, and cannot be planned"):
        baseline(LATENCY, {"latency_ms": np.ones(500)})


@pytest.fixture
def spending(store_url: str) -> Experiment:
    """Users of the service who buy twice after they met an arm; one met two arms, and one is a bot."""
    median = Metric(name="order value", numerator="revenue", quantile=0.5, role="primary")
    proposal = Proposal.of(
        experiment_id="exp", name="Test", target_metrics=[median], reads_service=True, max_events_an_hour=20
    )
    experiment = proposal.experiment(START).model_copy(update={"status": "running", "started_at": START})
    log, store = ExperimentLog(store_url), EventStore(store_url)
    arms = ["treatment" if user % 2 else "control" for user in range(60)]
    log.write([Exposure("exp", f"{user}", arm, 0, START, 0.5, 0) for user, arm in enumerate(arms)])
    log.write([Exposure("exp", "7", "control", 0, START + 1, 0.5, 0)])
    bought = [(user, at, 10.0 * user + at) for user in range(60) for at in (1, 2)]
    bought += [(user, -1, 1e6) for user in range(60)] + [(8, 3, 1e6)] * 100
    store.write(
        [
            Event(f"{n}", f"{user}", "1", "purchase", START + 3_600 * at, value)
            for n, (user, at, value) in enumerate(bought)
        ]
    )
    store.write([Event(f"view {user}", f"{user}", "1", "view", START + 60, None) for user in range(60)])
    store.write([Event(f"free {user}", f"{user}", "1", "purchase", START + 60, None) for user in range(60)])
    log.close()
    store.close()
    return experiment


def test_values_of_events_count_like_their_sums(store_url: str, spending: Experiment) -> None:
    measured = measure(store_url, spending, START + DAY)
    assert (measured.n_users, measured.n_conflicting, measured.n_bots) == (58, 1, 1)
    held = measured.values["revenue"]
    np.testing.assert_allclose(np.bincount(held.user, held.value, minlength=58), measured.totals["revenue"])
    of_control = [10.0 * user + at for user in range(0, 60, 2) if user != 8 for at in (1, 2)]
    found = analyze(spending.design, measured).find("order value", "treatment")
    assert found.control == pytest.approx(np.median(of_control))


def test_no_more_values_are_held_than_there_is_room_for(
    store_url: str, spending: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MAX_VALUES", 116)
    assert measure(store_url, spending, START + DAY).values["revenue"].is_complete
    monkeypatch.setattr(measuring, "MAX_VALUES", 115)
    measured = measure(store_url, spending, START + DAY)
    assert not measured.values["revenue"].is_complete
    assert len(measured.values["revenue"].value) == 0
    assert any("more single values than are held" in each for each in analyze(spending.design, measured).health)


@pytest.mark.parametrize(("factor", "action"), [(1.0, "deploy_treatment"), (2.0, "keep_control")])
def test_recorded_values_lead_to_a_verdict(store_url: str, clock: Clock, factor: float, action: str) -> None:
    rng = np.random.default_rng(2)
    with ABTestManager(store=store_url, clock=clock) as manager:
        manager.create_experiment(
            "exp",
            "Test",
            target_metrics=["conversion_rate"],
            guardrails=[LATENCY.model_copy(update={"quantile": 0.5, "margin": 0.3})],
            planned_users=400,
            planned_looks=1,
            min_sample_size=100,
            min_days=0,
        )
        manager.start_experiment("exp")
        for user in range(400):
            arm = manager.record_impression("exp", user).arm
            is_treated = arm == "treatment"
            if rng.random() < (0.6 if is_treated else 0.2):
                manager.record_conversion("exp", user)
            for latency in rng.lognormal(4, 0.5, 5):
                manager.record_custom_metric("exp", user, "latency_ms", latency * (factor if is_treated else 1.0))
        found = manager.analyze("exp")
        assert found.recommendation.action == action, found.recommendation
        assert found.find("p99", "treatment").relative == pytest.approx(factor - 1, abs=0.15)
        assert "p99" in manager.report("exp")
