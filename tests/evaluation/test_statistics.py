"""Intervals against scipy, and what must hold of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from rec_engine.evaluation.statistics import bootstrap_mean, paired_bootstrap

VALUES = np.random.default_rng(3).exponential(size=400)
PROPERTY = settings(max_examples=50, deadline=None)  # a busy machine is no failure


def test_interval_is_scipys_percentile_interval() -> None:
    theirs = bootstrap((VALUES,), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(0))
    ours = bootstrap_mean(VALUES, n_resamples=5000)
    assert ours.mean == pytest.approx(VALUES.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.01)


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    found = [bootstrap_mean(rng.normal(5, 2, 80), n_resamples=400) for _ in range(300)]
    assert 0.90 <= np.mean([estimate.low <= 5 <= estimate.high for estimate in found]) <= 0.98


def test_same_seed_same_interval_and_nan_left_out() -> None:
    assert bootstrap_mean(VALUES) == bootstrap_mean(VALUES.copy())
    with_nan = np.concatenate([VALUES, [np.nan, np.nan]])
    assert bootstrap_mean(with_nan) == bootstrap_mean(VALUES)
    assert bootstrap_mean(VALUES, seed=1) != bootstrap_mean(VALUES, seed=2)


def test_pairing_sees_a_small_gain_that_two_separate_intervals_do_not() -> None:
    better = VALUES + 0.02 + 0.001 * np.random.default_rng(5).standard_normal(len(VALUES))
    gain = paired_bootstrap(better, VALUES)
    assert gain.is_significant
    assert gain.absolute.mean == pytest.approx(0.02, abs=0.001)
    assert gain.relative.mean == pytest.approx(0.02 / VALUES.mean(), abs=0.002)
    assert bootstrap_mean(better).low < bootstrap_mean(VALUES).high


def test_no_difference_is_not_significant() -> None:
    gain = paired_bootstrap(VALUES, VALUES)
    assert gain.absolute.mean == 0
    assert not gain.is_significant


def test_nobody_to_measure_gives_nan() -> None:
    assert np.isnan(bootstrap_mean(np.array([np.nan])).mean)
    assert np.isnan(paired_bootstrap(np.array([np.nan]), np.array([1.0])).absolute.mean)


def test_users_with_nan_in_either_model_are_left_out_of_the_pairs() -> None:
    a, b = np.array([1.0, np.nan, 3.0, 5.0]), np.array([2.0, 9.0, np.nan, 4.0])
    assert paired_bootstrap(a, b) == paired_bootstrap(np.array([1.0, 5.0]), np.array([2.0, 4.0]))


def test_gain_over_a_model_that_finds_nothing_is_absolute_only() -> None:
    gain = paired_bootstrap(VALUES, np.zeros(len(VALUES)))
    assert gain.is_significant
    assert np.isnan([gain.relative.mean, gain.relative.low, gain.relative.high]).all()


def test_relative_gain_over_a_model_that_finds_one_user_has_no_interval() -> None:
    base = np.zeros(len(VALUES))
    base[0] = 1
    gain = paired_bootstrap(VALUES, base)
    assert gain.relative.mean == pytest.approx(VALUES.sum() - 1)
    assert np.isnan([gain.relative.low, gain.relative.high]).all()
    assert np.isfinite([gain.absolute.low, gain.absolute.high]).all()


@PROPERTY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 1000))
def test_interval_lies_within_the_values_and_widens_with_the_level(values: list[float], seed: int) -> None:
    narrow, wide = (bootstrap_mean(np.array(values), seed=seed, n_resamples=100, level=level) for level in (0.5, 0.95))
    assert min(values) - 1e-9 <= wide.low <= narrow.low <= narrow.high <= wide.high <= max(values) + 1e-9
    assert wide.half_width == pytest.approx((wide.high - wide.low) / 2)
