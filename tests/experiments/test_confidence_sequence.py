"""The sequence holds at all times together, and its p-value says the same as its interval."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import optimize

from rec_engine.experiments.confidence_sequence import always_valid_p_value, multiplier


def test_it_is_missed_at_any_time_with_no_more_than_its_level() -> None:
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(4_000, 1_000)).cumsum(axis=1)
    n = np.arange(1, 1_001)
    missed = np.abs(sums) / np.sqrt(n) > multiplier(n / 500, 0.05)
    assert missed.any(axis=1).mean() <= 0.05


def test_it_is_the_published_formula() -> None:
    n, rho = 300.0, 0.1
    published = math.sqrt(2 * (n * rho**2 + 1) / (n * rho**2) * math.log(math.sqrt(n * rho**2 + 1) / 0.05))
    tuned_to = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / rho**2
    assert_allclose(multiplier(n / tuned_to, 0.05), published, rtol=1e-12)


def test_it_is_narrow_about_the_planned_size() -> None:
    def width(share: float) -> float:
        mixture = share * float(-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1))
        return math.sqrt(2 * (mixture + 1) / mixture * math.log(math.sqrt(mixture + 1) / 0.05))

    best = optimize.minimize_scalar(width, bounds=(0.1, 10), method="bounded").fun
    assert float(multiplier(1.0, 0.05)) < 1.01 * best


@given(z=st.floats(-8, 8), fraction=st.floats(0.01, 3))
def test_the_p_value_is_below_the_level_exactly_when_the_interval_excludes_zero(z: float, fraction: float) -> None:
    excluded = abs(z) > float(multiplier(fraction, 0.05))
    p_value = float(always_valid_p_value(z, fraction, 0.05))
    assert math.isclose(p_value, 0.05, rel_tol=1e-9) or excluded == (p_value < 0.05)
