"""A bandit's shares, and the interval that holds in spite of them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from rec_engine.errors import DataError
from rec_engine.experiments.bandit import PURPOSE, allocation, reward_difference


def test_shares_follow_the_probability_to_be_best_and_keep_the_floor() -> None:
    shares = allocation(np.array([5.0, 50.0, 8.0]), np.array([100.0, 100.0, 100.0]), 0.05)
    assert_allclose(shares.sum(), 1.0)
    assert_allclose(shares[[0, 2]], 0.05, atol=1e-6)
    assert_allclose(allocation(np.zeros(4), np.zeros(4), 0.1), 0.25)


@pytest.mark.parametrize("floor", [0.0, 0.6])
def test_a_floor_that_cannot_be_given_is_refused(floor: float) -> None:
    with pytest.raises(DataError, match="cannot be given"):
        allocation(np.zeros(2), np.zeros(2), floor)


@pytest.mark.parametrize("truth", [(0.1, 0.12), (0.9, 0.5)])
def test_the_interval_holds_where_shares_followed_rewards(truth: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(200):
        successes, trials = np.zeros((10, 2)), np.zeros((10, 2))
        for at in range(10):
            treated = rng.binomial(400, allocation(successes.sum(axis=0), trials.sum(axis=0), 0.05)[1])
            trials[at] = 400 - treated, treated
            successes[at] = rng.binomial(trials[at].astype(np.int64), truth)
        found = reward_difference(successes, trials, 1)
        assert found.ci is not None
        covered.append(found.ci[0] <= truth[1] - truth[0] <= found.ci[1])
    assert np.mean(covered) >= 0.9


def test_one_batch_is_the_ordinary_difference() -> None:
    found = reward_difference(np.array([[50.0, 60.0]]), np.array([[1000.0, 1000.0]]), 1)
    assert found.difference == pytest.approx(0.01)
    assert found.purpose == PURPOSE


def test_batches_without_an_arm_say_nothing() -> None:
    assert reward_difference(np.zeros((2, 2)), np.array([[5.0, 0.0], [0.0, 5.0]]), 1).difference is None
    assert reward_difference(np.zeros((0, 2)), np.zeros((0, 2)), 1).batches == 0
