"""Effects beside tea-tasting and statsmodels, and what they are for users of several phases."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from reference import (
    ARM,
    CLICKS,
    CUPED_MEAN,
    CUPED_RATIO,
    IMPRESSIONS,
    ONES,
    PRE_CLICKS,
    PRE_IMPRESSIONS,
    RATIO,
    RATIO_NORMAL,
    RATIO_T,
    clicks_by_impression,
)
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from rec_engine.experiments.effects import Effect, compare
from rec_engine.experiments.estimates import estimates
from rec_engine.experiments.moments import moments
from rec_engine.experiments.naive import naive_z
from rec_engine.experiments.variance_reduction import adjusted

Z = 1.959963984540054


def effect_on(*columns: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Effect:
    of = moments(columns, ARM, (1, 2))
    return compare(estimates(of) if len(columns) == 2 else adjusted(of).estimates, 1)


def test_a_ratio_is_what_tea_tasting_says() -> None:
    effect = effect_on(CLICKS, IMPRESSIONS)
    assert_allclose([effect.control, effect.difference, effect.statistic()], RATIO, rtol=1e-9)
    assert_allclose([effect.normal_p_value(), *effect.interval(Z)], RATIO_NORMAL, rtol=1e-9)
    assert_allclose([effect.p_value(), *effect.interval(effect.critical(Z))], RATIO_T, rtol=1e-9)


def test_cuped_is_what_tea_tasting_says() -> None:
    effect = effect_on(CLICKS, ONES, PRE_CLICKS, ONES)
    assert_allclose([effect.p_value(), *effect.interval(effect.critical(Z))], CUPED_MEAN, rtol=1e-9)
    ratio = effect_on(CLICKS, IMPRESSIONS, PRE_CLICKS, PRE_IMPRESSIONS)
    assert_allclose([ratio.p_value(), *ratio.interval(ratio.critical(Z))], CUPED_RATIO, rtol=1e-3)


def test_a_mean_is_welch_by_statsmodels() -> None:
    effect = effect_on(CLICKS, ONES)
    t, p_value, freedom = CompareMeans(DescrStatsW(CLICKS[ARM == 1]), DescrStatsW(CLICKS[ARM == 0])).ttest_ind(
        usevar="unequal"
    )
    assert_allclose([effect.statistic(), effect.p_value(), effect.degrees_of_freedom], [t, p_value, freedom], rtol=1e-9)


def test_the_variance_is_clustered_by_user_and_not_naive() -> None:
    """The mutant with the naive variance fails here: the oracle sees single impressions, clustered by user."""
    click, arm, user = clicks_by_impression()
    clustered = sm.OLS(click, sm.add_constant(arm)).fit(
        cov_type="cluster", cov_kwds={"groups": user.astype(int), "use_correction": False}
    )
    n = (ARM == 0).sum()
    effect = effect_on(CLICKS, IMPRESSIONS)
    assert_allclose(effect.standard_error, clustered.bse[1] * math.sqrt(n / (n - 1)), rtol=1e-9)
    naive = effect.difference / naive_z(moments([CLICKS, IMPRESSIONS], ARM, (1, 2)), 1)
    assert abs(naive / effect.standard_error - 1) > 0.02


def test_z_is_as_improbable_as_t_however_far_out() -> None:
    effect = effect_on(CLICKS, ONES)
    assert 0 < effect.z() < effect.statistic()
    assert_allclose(effect.critical(effect.z()), effect.statistic(), rtol=1e-9)
    far = moments([np.where(ARM == 1, 1e9, 0.0) + CLICKS, ONES], ARM, (1, 2))
    assert math.isfinite(float(compare(estimates(far), 1).z()))


def ramp(seed: int, *, level: float) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], Effect]:
    """Return naive difference and effect of an A/A ramp from 10% to 50% whose second phase has another level."""
    rng = np.random.default_rng(seed)
    n = 4_000
    phase = np.repeat([0, 1], n // 2)
    arm = (rng.random(n) < np.where(phase == 0, 0.1, 0.5)).astype(np.int64)
    value = rng.exponential(1.0, n) + level * phase
    effect = compare(estimates(moments([value, np.ones(n)], phase * 2 + arm, (2, 2))), 1)
    return np.array([value[arm == 1].mean() - value[arm == 0].mean()]), effect


def test_phases_are_combined_and_never_pooled() -> None:
    naive, effect = ramp(0, level=3.0)
    assert naive[0] > 0.5
    assert abs(float(effect.statistic())) < 3
    assert_allclose(effect.treatment - effect.control, effect.difference)


@pytest.mark.parametrize("empty", [0, 1])
def test_a_phase_that_lacks_an_arm_is_left_out(empty: int) -> None:
    rng = np.random.default_rng(1)
    value, arm = rng.normal(size=100), np.arange(100) % 2
    alone = compare(estimates(moments([value, np.ones(100)], arm, (1, 2))), 1)
    more = np.append(value, [5.0, 6.0, 7.0])
    cells = np.append(arm, [3 - empty] * 3)
    both = compare(estimates(moments([more, np.ones(103)], cells, (2, 2))), 1)
    assert_allclose([both.difference, both.standard_error], [alone.difference, alone.standard_error])


def test_nothing_to_compare_is_nan_and_no_warning() -> None:
    for cells in ([], [0], [0, 1], [0, 0, 0]):
        cell = np.array(cells, dtype=np.int64)
        effect = compare(estimates(moments([np.ones(len(cell))] * 2, cell, (1, 2))), 1)
        assert np.isnan([effect.p_value(), effect.z(), effect.statistic()]).all()
