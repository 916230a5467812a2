"""Bounds beside published ones, brute force and themselves."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from rec_engine.experiments.sequential import Path, _integrate, bounds, inflation, p_value, spent

PUBLISHED = {
    2: [2.9626, 1.9686],
    3: [3.7103, 2.5114, 1.9930],
    5: [4.8769, 3.3570, 2.6803, 2.2898, 2.0310],
}


@pytest.mark.parametrize("n_looks", PUBLISHED)
def test_bounds_of_the_obrien_fleming_type_are_the_published_ones(n_looks: int) -> None:
    assert_allclose(bounds(Path.equal(n_looks), 0.05), PUBLISHED[n_looks], atol=1e-4)


def test_bounds_of_ten_looks_and_of_the_pocock_type() -> None:
    assert_allclose(np.array(bounds(Path.equal(10), 0.05))[[0, 9]], [6.9914, 2.0812], atol=1e-4)
    assert_allclose(bounds(Path.equal(5), 0.05, "pocock"), [2.4380, 2.4268, 2.4102, 2.3966, 2.3860], atol=1e-4)


def test_the_other_convention_which_spends_both_sides_together_is_reproduced() -> None:
    information = Path.equal(5).information
    both_sides = spent(np.array(information), 0.05)
    found = _integrate(information, np.diff(both_sides / 2, prepend=0.0))[0]
    assert_allclose(found, [4.3826, 3.0997, 2.5534, 2.2538, 2.0635], atol=1e-4)


def test_looks_at_uneven_fractions_cost_the_level_and_no_more() -> None:
    path = Path((0.1, 0.12, 0.5, 0.51, 0.9, 1.0), (0.1, 0.12, 0.5, 0.51, 0.9, 1.0))
    steps = np.sqrt(np.diff(path.information, prepend=0.0))
    sums = np.random.default_rng(0).normal(size=(400_000, 6)) * steps
    z = np.abs(sums.cumsum(axis=1)) / np.sqrt(path.information)
    crossed = (z > np.array(bounds(path, 0.05))).any(axis=1).mean()
    assert abs(crossed - 0.05) < 3 * math.sqrt(0.05 * 0.95 / 400_000)


def test_information_that_grew_otherwise_than_users_is_followed() -> None:
    even = bounds(Path.equal(3), 0.05)
    late = bounds(Path((1 / 3, 2 / 3, 1.0), (0.05, 0.3, 1.0)), 0.05)
    assert late[0] == pytest.approx(even[0], abs=1e-6)
    assert late[2] > even[2]


def test_a_hundred_looks_are_still_one_level() -> None:
    found = np.array(bounds(Path.equal(100), 0.05))
    sums = np.random.default_rng(1).normal(0, 0.1, (50_000, 100)).cumsum(axis=1)
    crossed = (np.abs(sums) / np.sqrt(np.arange(1, 101) / 100) > found).any(axis=1).mean()
    assert abs(crossed - 0.05) < 0.004


def test_a_look_with_nothing_left_to_spend_cannot_be_crossed() -> None:
    assert bounds(Path((1.0, 1.0), (1.0, 1.2)), 0.05)[1] == math.inf
    assert bounds(Path((0.001,), (0.001,)), 0.05)[0] == math.inf


def test_the_p_value_is_the_level_at_which_a_look_is_just_crossed() -> None:
    for look, bound in enumerate(PUBLISHED[5]):
        z = [0.0] * 5
        z[look] = bound
        if bound < 4:
            assert p_value(Path.equal(5), z) == pytest.approx(0.05, rel=2e-3)
    assert p_value(Path.equal(1), [1.2]) == pytest.approx(2 * stats.norm.sf(1.2), rel=1e-12)
    assert p_value(Path.equal(3), [None, None, None]) == 1.0


def test_a_later_look_never_takes_back_a_rejection() -> None:
    early = p_value(Path((0.4,), (0.4,)), [4.0])
    later = p_value(Path((0.4, 0.7, 1.0), (0.4, 0.7, 1.0)), [4.0, 0.1, 0.0])
    assert later == pytest.approx(early, rel=1e-3)


def test_looks_cost_few_users_with_the_obrien_fleming_type_and_more_with_pocock() -> None:
    assert inflation(1, 0.05, 0.8) == pytest.approx(1.0, abs=1e-5)
    assert inflation(5, 0.05, 0.8) == pytest.approx(1.025, abs=0.002)
    assert inflation(5, 0.05, 0.8, "pocock") > 1.15
