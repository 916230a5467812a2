"""The sample-ratio alarm beside published figures, and what it sees."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rec_engine.experiments.sample_ratio import chi_square_p_value, log_odds, sample_ratio

EVEN = np.array([[0.5, 0.5]])


@pytest.mark.parametrize(
    ("users", "p_value", "odds"),
    [
        ((10000, 10050), 0.7240042702, -2.5933443602),
        ((5000, 5200), 0.0476703807, -0.3777820036),
        ((821588, 815482), 1.82179287e-06, 6.5323676663),
        ((3300, 3400, 3650), 8.10625195e-05, 4.6179525612),
    ],
)
def test_both_figures_are_the_reference_ones(users: tuple[int, ...], p_value: float, odds: float) -> None:
    n, shares = np.array([users], dtype=np.float64), np.full((1, len(users)), 1 / len(users))
    assert chi_square_p_value(n, shares) == pytest.approx(p_value, rel=1e-8)
    assert_allclose(log_odds(n, shares, concentration=100.0), odds, rtol=1e-9)


def test_every_phase_is_held_to_its_own_shares() -> None:
    ramp = np.array([[9_000.0, 1_000.0], [5_000.0, 5_000.0]])
    shares = np.array([[0.9, 0.1], [0.5, 0.5]])
    assert sample_ratio(ramp, shares).status == "ok"
    swapped = np.array([[9_200.0, 800.0], [4_800.0, 5_200.0]])
    assert sample_ratio(swapped, shares).status == "failed"


def test_a_user_where_no_user_can_be_is_a_fault() -> None:
    found = sample_ratio(np.array([[100.0, 1.0]]), np.array([[1.0, 0.0]]))
    assert found.status == "failed"
    assert found.p_value == 0.0
    assert found.log_odds is None


def test_few_users_are_no_fault_and_none_are_unknown() -> None:
    assert sample_ratio(np.array([[3.0, 0.0]]), EVEN).status == "ok"
    assert sample_ratio(np.array([[3.0, 0.0]]), EVEN).p_value is None
    assert sample_ratio(np.zeros((1, 2)), EVEN).status == "unknown"


def test_an_arm_that_gets_no_users_at_all_is_a_fault_soon() -> None:
    assert sample_ratio(np.array([[30.0, 0.0]]), EVEN).status == "failed"
