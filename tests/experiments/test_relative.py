"""Fieller's interval: dual to the p-value for every input, and honest where a ratio has no bounds."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rec_engine.experiments.effects import Effect
from rec_engine.experiments.relative import relative_interval


def effect(control: float, treatment: float, deviations: tuple[float, float], shared: float, freedom: float) -> Effect:
    numbers = (control, treatment, deviations[0] ** 2, deviations[1] ** 2, shared, freedom, 1.0)
    return Effect(*(np.array(each) for each in numbers))


@settings(max_examples=300, deadline=None)
@given(
    control=st.floats(-10, 10),
    treatment=st.floats(-10, 10),
    deviations=st.tuples(st.floats(0.01, 10), st.floats(0.01, 10)),
    shared=st.floats(0, 4),
    freedom=st.floats(1, 1e6),
    level=st.floats(0.001, 0.3),
)
def test_the_interval_holds_no_effect_exactly_when_the_test_does_not_reject(
    control: float,
    treatment: float,
    deviations: tuple[float, float],
    shared: float,
    freedom: float,
    level: float,
) -> None:
    of = effect(control, treatment, deviations, shared, freedom)
    p_value = float(of.p_value())
    critical = float(of.critical(stats.norm.isf(level / 2)))
    if abs(p_value - level) > 1e-9:
        assert relative_interval(of, critical).contains(0.0) == (p_value >= level)


def test_a_hundred_thousand_experiments_hold_no_contradiction() -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    controls, treatments = rng.normal(1, 0.5, n), rng.normal(1, 0.5, n)
    deviations = rng.uniform(0.02, 0.6, (n, 2))
    z = (treatments - controls) / np.hypot(*deviations.T)
    contradictions = 0
    for control, treatment, pair, statistic in zip(controls, treatments, deviations, z, strict=True):
        found = relative_interval(effect(control, treatment, (pair[0], pair[1]), 0.0, 1e9), 1.96)
        contradictions += found.contains(0.0) != (abs(statistic) <= 1.96)
    assert contradictions == 0


def test_every_ratio_inside_is_not_rejected_and_every_one_outside_is() -> None:
    of = effect(2.0, 2.4, (0.2, 0.3), 0.01, 50.0)
    found = relative_interval(of, 2.0)
    assert found.low is not None
    assert found.high is not None
    for ratio in np.linspace(-0.5, 1.5, 101):
        assert found.contains(ratio) == (abs(float(of.statistic(1 + ratio))) <= 2.0)
    assert math.isclose(abs(float(of.statistic(1 + found.low))), 2.0, rel_tol=1e-9)
    assert math.isclose(abs(float(of.statistic(1 + found.high))), 2.0, rel_tol=1e-9)


def test_a_control_that_may_be_nothing_leaves_no_bounds() -> None:
    assert relative_interval(effect(0.1, 3.0, (1.0, 0.1), 0.0, 1e9), 1.96).shape == "below_and_above"
    assert relative_interval(effect(0.1, 0.1, (1.0, 1.0), 0.0, 1e9), 1.96).shape == "everything"
    assert relative_interval(effect(1.0, 1.0, (0.0, 0.0), 0.0, 1e9), 1.96).shape == "unknown"
    assert relative_interval(effect(math.nan, 1.0, (1.0, 1.0), 0.0, 1e9), 1.96).contains(0.0)
