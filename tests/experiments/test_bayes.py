"""Posterior figures beside closed forms, a reference and sampling."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from rec_engine.experiments.bayes import beta_posterior, normal_posterior


def test_shares_are_the_reference() -> None:
    found = beta_posterior(np.array([50.0, 60.0]), np.array([1000.0, 1000.0]))
    assert_allclose(found.prob_best[1], 0.8356112648, rtol=1e-9)
    assert_allclose(found.expected_loss[1], 8.93465645e-04, rtol=1e-8)
    assert_allclose(found.prob_best.sum(), 1.0, rtol=1e-9)


@pytest.mark.parametrize("deviations", [(1.0, 1.0), (1.0, 0.01), (1e-4, 1.0)])
def test_two_normal_arms_have_a_closed_form(deviations: tuple[float, float]) -> None:
    mean, variance = np.array([0.0, 0.1]), np.square(deviations)
    found = normal_posterior(mean, variance)
    spread = float(np.hypot(*deviations))
    assert_allclose(found.prob_best[1], stats.norm.cdf(0.1 / spread), rtol=1e-9)
    loss = spread * stats.norm.pdf(0.1 / spread) - 0.1 * stats.norm.cdf(-0.1 / spread)
    assert_allclose(found.expected_loss[1], loss, rtol=1e-6, atol=1e-12)


def test_four_arms_agree_with_sampling() -> None:
    mean, variance = np.array([0.0, 0.1, 0.15, -0.3]), np.array([0.04, 0.01, 0.02, 0.09])
    drawn = np.random.default_rng(0).normal(mean, np.sqrt(variance), (400_000, 4))
    found = normal_posterior(mean, variance)
    assert_allclose(found.prob_best, np.bincount(drawn.argmax(axis=1)) / 400_000, atol=0.003)
    assert_allclose(found.expected_loss, (drawn.max(axis=1)[:, None] - drawn).mean(axis=0), atol=0.002)


def test_arms_without_users_are_all_alike() -> None:
    found = beta_posterior(np.zeros(3), np.zeros(3))
    assert_allclose(found.prob_best, 1 / 3)
    assert_allclose(found.expected_loss, 0.25)
