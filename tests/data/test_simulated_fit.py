"""A fitted world is as active, as popular and as hasty as the real one; and the distance tells when it is not."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import ks_2samp

from rec_engine.data.clickstream_sim import demo_frames
from rec_engine.data.dataset import Interactions, RecommendationDataset
from rec_engine.data.simulated_fit import clicks_of, fitted_simulator, habits_of, ks_distance, match


@pytest.fixture(scope="module")
def real() -> RecommendationDataset:
    """A world with other habits than the simulator's own: pages a second apart, and twenty items that all want."""
    shop = demo_frames(seed=3, n_users=300, n_items=200, n_interactions=12_000)
    clicks = shop.interactions.filter(event="click")
    popular = clicks.filter((pl.col("item_id") <= 20) | (pl.col("item_id") % 4 == 0))
    return RecommendationDataset(popular.select("user_id", "item_id", "timestamp"), shop.users, shop.items)


@pytest.fixture(scope="module")
def simulated(real: RecommendationDataset) -> Interactions:
    simulator, n_days = fitted_simulator(real, seed=0)
    return clicks_of(simulator.simulate_period(n_days=n_days).interactions, real)


def test_a_fitted_world_is_like_the_real_one(real: RecommendationDataset, simulated: Interactions) -> None:
    found = match(real.interactions, simulated)
    assert len(simulated) == pytest.approx(len(real.interactions), rel=0.15)
    assert found.popularity_correlation > 0.8
    assert {likeness.name: likeness.distance for likeness in found.likenesses if likeness.distance > 0.12} == {}


def test_another_world_is_not(real: RecommendationDataset) -> None:
    shop = demo_frames(seed=3, n_users=300, n_items=200, n_interactions=4_000)
    found = match(real.interactions, clicks_of(shop.interactions, real))
    far = {likeness.name for likeness in found.likenesses if likeness.distance > 0.2}
    assert {"interactions a user", "interactions an item"} <= far
    assert found.popularity_correlation < 0.8


def test_a_world_is_exactly_like_itself(real: RecommendationDataset) -> None:
    found = match(real.interactions, real.interactions)
    assert found.popularity_correlation == pytest.approx(1)
    assert all(likeness.distance == 0 for likeness in found.likenesses)


def test_the_same_seed_fits_the_same_world(real: RecommendationDataset, simulated: Interactions) -> None:
    simulator, n_days = fitted_simulator(real, seed=0)
    again = clicks_of(simulator.simulate_period(n_days=n_days).interactions, real)
    assert np.array_equal(again.item_codes, simulated.item_codes)
    assert np.array_equal(again.timestamps, simulated.timestamps)


def test_visits_end_after_half_an_hour_of_nothing() -> None:
    rows = [(1, 5, 1_000), (1, 6, 1_060), (1, 7, 1_060 + 1_800), (2, 5, 1_100)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    habits = habits_of(RecommendationDataset(frame).interactions)
    assert habits.starts.tolist() == [0, 2, 3]
    assert habits.begins.tolist() == [1_000, 2_860, 1_100]
    assert habits.lengths.tolist() == [2, 1, 1]
    assert habits.gaps_seconds.tolist() == [60]
    assert habits.between_seconds.tolist() == [60, 1_800]


def test_distance_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (5, 80), (300, 200)):
        one, other = np.sort(rng.integers(0, 9, n).astype(float)), np.sort(rng.normal(4, 2, m))
        assert ks_distance(one, other) == pytest.approx(ks_2samp(one, other).statistic)
    assert np.isnan(ks_distance(np.empty(0), np.ones(2)))
