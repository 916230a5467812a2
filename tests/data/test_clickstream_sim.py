"""The simulated shop: repeatable, of the promised size, and a world in which taste, intent and position matter."""

import numpy as np
import polars as pl
import pytest

from rec_engine.data.clickstream_sim import N_DAYS, START, Clickstream, demo_frames
from rec_engine.data.dataset import RecommendationDataset


@pytest.fixture(scope="module")
def demo() -> Clickstream:
    return demo_frames()


def test_same_seed_same_frames_to_the_bit_another_seed_others() -> None:
    small = {"n_users": 100, "n_items": 80, "n_interactions": 3_000}
    first, again, other = (demo_frames(seed, **small) for seed in (1, 1, 2))
    for name in ("interactions", "users", "items", "impressions"):
        assert getattr(first, name).equals(getattr(again, name))
    assert np.array_equal(first.truth.tastes_at_end, again.truth.tastes_at_end)
    assert not first.interactions.equals(other.interactions)


def test_sizes_are_as_promised(demo: Clickstream) -> None:
    assert (demo.users.height, demo.items.height) == (2_000, 1_000)
    assert 135_000 <= demo.interactions.height <= 165_000


def test_every_id_exists_and_every_moment_lies_in_the_period(demo: Clickstream) -> None:
    assert demo.interactions["item_id"].is_in(demo.items["item_id"].implode()).all()
    assert demo.interactions["user_id"].is_in(demo.users["user_id"].implode()).all()
    assert demo.interactions["timestamp"].is_between(START, START + (N_DAYS + 1) * 86_400).all()


def test_nothing_is_met_before_it_exists(demo: Clickstream) -> None:
    met = demo.impressions.join(demo.items, on="item_id").join(demo.users, on="user_id")
    assert (met["timestamp"] >= met["released"]).all()
    assert (met["timestamp"] >= met["joined"] - 86_400).all()


def test_popularity_and_activity_have_long_tails(demo: Clickstream) -> None:
    by_item = demo.interactions["item_id"].value_counts()["count"].sort(descending=True)
    by_user = demo.interactions["user_id"].value_counts()["count"]
    assert 0.33 <= by_item.head(100).sum() / demo.interactions.height <= 0.6
    assert by_user.quantile(0.95) > 2.5 * by_user.median()  # type: ignore[operator]


def test_clicks_fall_with_position_although_every_position_is_shown_as_often(demo: Clickstream) -> None:
    by_position = demo.impressions.group_by("position").agg(pl.len(), rate=pl.col("clicked").mean()).sort("position")
    assert by_position["len"].n_unique() == 1
    assert (by_position["rate"].diff().drop_nulls() < 0).all()


def test_users_take_what_they_like(demo: Clickstream) -> None:
    taken = demo.interactions.sample(5_000, seed=0)
    users, items = taken["user_id"].to_numpy() - 1, taken["item_id"].to_numpy() - 1
    taste = demo.truth.tastes_at_start[users]
    liking = (taste * demo.truth.item_vectors[items]).sum(axis=1).mean()
    chance = (taste * demo.truth.item_vectors[np.random.default_rng(0).permutation(items)]).sum(axis=1).mean()
    assert liking > chance + 0.3


def test_items_of_one_session_are_more_alike_than_those_of_one_user(demo: Clickstream) -> None:
    following = pl.col("item_id", "session_id").shift(-1).over("user_id").name.prefix("next_")
    clicks = demo.interactions.filter(event="click").with_columns(following).drop_nulls()
    vectors = demo.truth.item_vectors
    alike = (vectors[clicks["item_id"].to_numpy() - 1] * vectors[clicks["next_item_id"].to_numpy() - 1]).sum(axis=1)
    same = (clicks["session_id"] == clicks["next_session_id"]).to_numpy()
    assert alike[same].mean() > alike[~same].mean() + 0.02


def test_texts_and_prices_look_like_a_shop(demo: Clickstream) -> None:
    assert demo.items["title"].n_unique() == demo.items.height
    assert (demo.items["price"] > 0).all()
    assert demo.items["categories"].list.len().is_between(1, 3).all()
    assert demo.items["description"].str.len_chars().min() > 40  # type: ignore[operator]


def test_carts_follow_clicks_and_purchases_follow_carts(demo: Clickstream) -> None:
    counts = dict(demo.interactions["event"].value_counts().iter_rows())
    assert counts["click"] > counts["add_to_cart"] > counts["purchase"] > 0
    purchases = demo.interactions.filter(event="purchase").select("user_id", "item_id", "session_id")
    carts = demo.interactions.filter(event="add_to_cart").select("user_id", "item_id", "session_id")
    assert purchases.join(carts, on=purchases.columns, how="anti").is_empty()


def test_frames_are_a_dataset_without_rejects(demo: Clickstream) -> None:
    dataset = RecommendationDataset(demo.interactions, demo.users, demo.items)
    assert len(dataset.interactions) == demo.interactions.height
    assert dataset.items["title"].null_count() == 0
