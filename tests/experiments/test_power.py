"""Sample sizes beside published ones and statsmodels."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from statsmodels.stats.power import TTestIndPower

from rec_engine.errors import DataError
from rec_engine.experiments.design import Design, Metric
from rec_engine.experiments.power import (
    Baseline,
    baseline,
    detectable_effect,
    duration_days,
    users_an_arm_for_means,
    users_an_arm_for_shares,
    users_needed,
)

CTR = Metric(name="ctr", numerator="clicks", denominator="impressions", role="primary")
CONVERSION = Metric(name="conversion", numerator="conversions", is_share=True, role="primary")


@pytest.mark.parametrize(
    ("shares", "wald", "pooled", "at_90"),
    [
        ((0.032, 0.037), 20911.61, 20914.36, 27994.7),
        ((0.018, 0.021), 33344.66, 33347.40, 44639.0),
        ((0.05, 0.055), 31230.69, 31233.44, 41809.0),
    ],
)
def test_two_shares_need_the_published_users(
    shares: tuple[float, float], wald: float, pooled: float, at_90: float
) -> None:
    assert_allclose(users_an_arm_for_shares(*shares), wald, atol=0.01)
    assert_allclose(users_an_arm_for_shares(*shares, is_pooled=True), pooled, atol=0.01)
    assert_allclose(users_an_arm_for_shares(*shares, power=0.9), at_90, atol=0.1)


def test_two_means_need_what_statsmodels_says() -> None:
    assert_allclose(users_an_arm_for_means(0.1), 1570.733, atol=1e-3)
    oracle = TTestIndPower().solve_power(effect_size=0.35, alpha=0.01, power=0.9)
    assert_allclose(users_an_arm_for_means(0.35, level=0.01, power=0.9), oracle, rtol=1e-6)


def test_the_plan_of_a_share_is_both_arms_together() -> None:
    design = Design(metrics=(CONVERSION,), method="fixed", minimum_effect=0.1)
    needed = users_needed(Baseline(0.05, 0.05 * 0.95, is_share=True), design, (0.5, 0.5))
    assert needed == math.ceil(2 * users_an_arm_for_shares(0.05, 0.055))


def test_what_shares_the_level_and_the_looks_costs_users() -> None:
    of, even = Baseline(1.0, 4.0), (0.5, 0.5)
    once = Design(metrics=(CTR,), method="fixed", minimum_effect=0.05)
    fixed = users_needed(of, once, even)
    planned = users_needed(of, Design(metrics=(CTR,), minimum_effect=0.05), even)
    any_time = users_needed(of, Design(metrics=(CTR,), method="always_valid", minimum_effect=0.05), even)
    assert fixed < planned < 1.05 * fixed < 1.5 * fixed < any_time
    assert users_needed(of, once, (0.4, 0.3, 0.3)) > 1.5 * fixed
    assert users_needed(Baseline(1.0, 4.0, explained=0.4), once, even) == pytest.approx(0.6 * fixed, abs=1)


@pytest.mark.parametrize("of", [Baseline(0.05, 0.0475, is_share=True), Baseline(3.0, 50.0, explained=0.2)])
def test_the_detectable_effect_is_the_other_way_round(of: Baseline) -> None:
    design = Design(metrics=(CTR,), minimum_effect=0.08)
    needed = users_needed(of, design, (0.7, 0.3))
    assert detectable_effect(of, design, (0.7, 0.3), needed) == pytest.approx(0.08, rel=1e-4)


def test_so_few_users_find_no_share() -> None:
    assert detectable_effect(Baseline(0.9, 0.09, is_share=True), Design(metrics=(CTR,)), (0.5, 0.5), 4) == math.inf


def test_a_duration_is_whole_weeks() -> None:
    assert duration_days(1_000, 100) == 14
    assert duration_days(10, 100) == 7
    assert duration_days(700, 100) == 7


def test_a_baseline_comes_from_users_totals() -> None:
    rng = np.random.default_rng(0)
    impressions = rng.integers(1, 20, 5_000).astype(np.float64)
    clicks = np.minimum(impressions, rng.poisson(1.0, 5_000)).astype(np.float64)
    before = {"clicks": clicks + rng.poisson(1.0, 5_000), "impressions": impressions}
    plain = baseline(CTR, {"clicks": clicks, "impressions": impressions})
    assert plain.mean == pytest.approx(clicks.sum() / impressions.sum())
    assert plain.explained == 0
    with_past = baseline(CTR, {"clicks": clicks, "impressions": impressions}, before)
    assert with_past.explained > 0.3
    assert with_past.variance == pytest.approx(plain.variance, rel=1e-6)


def test_what_cannot_be_planned_says_why() -> None:
    with pytest.raises(DataError, match="ctr cannot be planned from 0 users"):
        baseline(CTR, {})
    with pytest.raises(DataError, match="effect to be found"):
        users_needed(Baseline(1.0, 1.0), Design(metrics=(CTR,)), (0.5, 0.5))
