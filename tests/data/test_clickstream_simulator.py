"""The simulator of any shop: repeatable, with memory, and with a truth that can be asked."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from rec_engine.data.clickstream_sim import Clickstream, ClickstreamSimulator, demo_simulator
from rec_engine.data.simulated_policies import Asked, OraclePolicy, PopularityPolicy, RandomPolicy, Shown
from rec_engine.data.simulated_world import NOTHING, SECONDS_A_DAY, START
from rec_engine.errors import ConfigError, DataError, NotFoundError

USERS = pl.DataFrame({"user_id": [f"user-{number}" for number in range(120)]})
ITEMS = pl.DataFrame({"item_id": range(100, 160), "categories": [[["tea", "rum", "oats"][n % 3]] for n in range(60)]})


MANY_ITEMS = ITEMS.select(pl.all().repeat_by(6).explode()).with_columns(item_id=pl.arange(360))
"""So many that people who get what they like do not run out of it."""


def simulator(seed: int = 1, click_model: str = "position_based") -> ClickstreamSimulator:
    return ClickstreamSimulator(USERS, ITEMS, seed, click_model=click_model)


@pytest.fixture(scope="module")
def period() -> Clickstream:
    return simulator().simulate_period(n_days=60)


def test_same_seed_and_calls_same_log_to_the_bit_another_seed_another(period: Clickstream) -> None:
    again, other = simulator(), simulator(seed=2)
    first = again.simulate_period(n_days=60)
    assert first.impressions.equals(period.impressions)
    assert first.interactions.equals(period.interactions)
    assert not other.simulate_period(n_days=60).impressions.equals(period.impressions)
    second = again.simulate_period(n_days=60)
    assert not second.impressions.equals(period.impressions)
    assert second.impressions["timestamp"].min() >= START + 60 * SECONDS_A_DAY  # type: ignore[operator]
    assert second.impressions["request_id"].min() > period.impressions["request_id"].max()  # type: ignore[operator]


def test_clicks_of_the_interactions_are_those_of_the_impressions(period: Clickstream) -> None:
    keys = ["request_id", "item_id", "user_id", "session_id", "position"]
    clicked = period.impressions.filter("clicked").select(*keys, shown_at="timestamp")
    clicks = period.interactions.filter(event="click")
    both = clicked.join(clicks, on=keys)
    assert len(both) == len(clicked) == len(clicks) > 500
    assert (both["timestamp"] > both["shown_at"]).all()
    assert (both["dwell_seconds"] > 0).all()
    assert period.impressions["propensity"].is_between(0, 1, closed="right").all()


def test_who_comes_when_does_not_depend_on_what_is_shown() -> None:
    one, other = simulator().simulate_period(RandomPolicy(0)), simulator().simulate_period(PopularityPolicy())
    visits = [found.impressions.select("session_id", "user_id").unique().sort("session_id") for found in (one, other)]
    assert visits[0].equals(visits[1])


@pytest.mark.parametrize("click_model", ["position_based", "cascade"])
def test_the_oracle_earns_most_and_random_least(click_model: str) -> None:
    def rate(policy: object) -> float:
        shop = ClickstreamSimulator(USERS, MANY_ITEMS, 1, click_model=click_model)
        chosen = OraclePolicy(shop.world) if policy is OraclePolicy else policy
        return float(shop.simulate_period(chosen, n_days=30, k=2).impressions["clicked"].mean())  # type: ignore[arg-type]

    oracle, organic, random = rate(OraclePolicy), rate(None), rate(RandomPolicy(0))
    assert oracle > organic > 1.2 * random


def test_clicks_are_as_many_as_the_truth_expects() -> None:
    shop, expected = simulator(), list[float]()

    def shows(asked: Asked) -> Shown:
        shown = RandomPolicy(len(expected))(asked)
        is_human = ~shop.world.is_bot[asked.user_codes]
        expected.extend(shop.expected_clicks(asked.user_codes, shown.item_codes, asked.moments)[is_human])
        return shown

    found = shop.simulate_period(shows, n_days=90)
    bots = USERS["user_id"].filter(shop.world.is_bot)
    clicks = found.impressions.filter(~pl.col("user_id").is_in(bots.implode()))["clicked"].sum()
    assert clicks == pytest.approx(sum(expected), abs=4 * np.sqrt(sum(expected)))


def test_what_was_clicked_attracts_less_again() -> None:
    shop = simulator()
    codes, page, moments = np.array([0]), np.array([[7, NOTHING]]), np.array([START])
    fresh = shop.expected_clicks(codes, page, moments)
    for _ in range(20):
        shop.simulate_user_session("user-0", lambda asked: Shown(page[:, :1]), k=1, n_pages=20)
    assert shop.expected_clicks(codes, page, moments) < 0.5 * fresh


def test_pages_can_be_played_by_whoever_asks_who_comes() -> None:
    played, asked = simulator(), simulator()
    found = played.simulate_period(n_days=20)
    visits = asked.next_visits(20)
    assert asked.now == played.now == START + 20 * SECONDS_A_DAY
    ids = USERS["user_id"].gather(visits.user_codes)
    first = found.impressions.group_by("session_id").agg(pl.col("user_id", "timestamp").first()).sort("session_id")
    assert first["user_id"].to_list() == ids.to_list()
    assert first["timestamp"].to_list() == visits.moments.tolist()
    with pytest.raises(ConfigError, match="0 days"):
        asked.next_visits(0)
    user, now = visits.user_codes[:1], visits.moments[:1]
    asked.remember(user, np.array([3]))
    wanted = asked.asked(user, now, 5)
    assert np.flatnonzero(~wanted.eligible[0]).tolist() == [3]
    assert OraclePolicy(asked.world)(wanted).item_codes.tolist() == asked.best_pages(user, now, 5).tolist()


def test_one_session_is_one_users() -> None:
    shop = simulator()
    found = shop.simulate_user_session("user-7", at=START + 5_000, n_pages=4, k=5)
    assert found.impressions["user_id"].unique().to_list() == ["user-7"]
    assert (found.impressions["session_id"].n_unique(), found.impressions.height) == (1, 20)
    assert found.impressions["timestamp"].min() == START + 5_000
    with pytest.raises(NotFoundError, match="no user 'user-999'"):
        shop.simulate_user_session("user-999")


def test_bots_are_told_by_the_truth_only() -> None:
    shop = demo_simulator(seed=5, n_users=600, n_items=100, n_interactions=20_000)
    found = shop.simulate_period(n_days=120)
    bots = found.users["user_id"].filter(found.truth.is_bot)
    assert 1 <= len(bots) <= 12
    is_bot = found.impressions["user_id"].is_in(bots.implode())
    deep = found.impressions["position"] > 5
    assert found.impressions.filter(is_bot & deep)["clicked"].mean() > 0.15  # type: ignore[operator]
    assert found.impressions.filter(~is_bot & deep)["clicked"].mean() < 0.15  # type: ignore[operator]
    assert not any("bot" in column for frame in (found.users, found.interactions) for column in frame.columns)


def test_new_items_attract_more_than_old_ones() -> None:
    moments = np.array([START, START + 60 * SECONDS_A_DAY])
    items = ITEMS.with_columns(released=pl.lit(START))
    world = ClickstreamSimulator(USERS, items, 1).world
    users = np.array([3, 3])
    world_at = world.attraction_of_all(users, moments)
    world.tastes_at_end[3] = world.tastes_at_start[3]
    assert (world.attraction_of_all(users, moments)[0] > world.attraction_of_all(users, moments)[1]).all()
    assert not np.allclose(world_at[0], world_at[1])


def test_items_of_one_category_are_alike(period: Clickstream) -> None:
    likeness = period.truth.item_vectors @ period.truth.item_vectors.T
    same = np.arange(60)[:, None] % 3 == np.arange(60) % 3
    assert likeness[same].mean() > likeness[~same].mean() + 0.3


def test_pandas_frames_will_do() -> None:
    shop = ClickstreamSimulator(pd.DataFrame({"user_id": [1, 2]}), pd.DataFrame({"item_id": [5, 6, 7]}), seed=0)
    found = shop.simulate_user_session(2, n_pages=1, k=5)
    assert sorted(found.impressions["item_id"].to_list()) == [5, 6, 7]


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        (pl.DataFrame({"name": [1]}), ITEMS, "users: there is no column user_id"),
        (pl.DataFrame({"user_id": [1, 1]}), ITEMS, "user_id is missing or there twice"),
        (USERS, pl.DataFrame({"item_id": []}), "items: there is not one row"),
        (USERS, pl.DataFrame({"item_id": [1], "released": ["today"]}), "released: wanted Unix seconds"),
    ],
)
def test_frames_that_make_no_world_are_refused(users: pl.DataFrame, items: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ClickstreamSimulator(users, items, seed=0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Shown(np.array([[1, 2]])), "of shape"),
        (Shown(np.array([[1, 2, 60]])), "answered items 1 to 60"),
        (Shown(np.array([[1, 2, -2]])), "answered items -2 to 2"),
        (Shown(np.array([[1.0, 2.0, 3.0]])), "float64"),
        (Shown(np.array([[1, 2, 3]]), np.ones((1, 2), dtype=np.float32)), "propensities"),
    ],
)
def test_answers_that_are_none_are_refused(answer: Shown, message: str) -> None:
    with pytest.raises(DataError, match=message):
        simulator().simulate_user_session("user-0", lambda _: answer, k=3)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="no click model 'dbn'"):
        simulator(click_model="dbn")
    with pytest.raises(ConfigError, match="0 days"):
        simulator().simulate_period(n_days=0)
    with pytest.raises(ConfigError, match="0 pages"):
        simulator().simulate_user_session("user-0", n_pages=0)


def test_a_visit_shows_nothing_twice() -> None:
    found = demo_simulator(seed=1, n_users=80, n_items=60, n_interactions=2_000).simulate_period(n_days=60)
    shown = found.impressions.select("session_id", "item_id")
    assert shown.height > 1_000
    assert shown.is_duplicated().sum() == 0
