"""Policies show what may be shown, and say with which probability."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from rec_engine.data.clickstream_sim import ClickstreamSimulator
from rec_engine.data.simulated_policies import (
    Asked,
    OraclePolicy,
    OrganicPolicy,
    PopularityPolicy,
    RandomPolicy,
    Recommend,
)
from rec_engine.data.simulated_world import NOTHING, START, World

N_USERS, N_ITEMS = 6, 8


@pytest.fixture(scope="module")
def world() -> World:
    users, items = pl.DataFrame({"user_id": range(N_USERS)}), pl.DataFrame({"item_id": range(N_ITEMS)})
    return ClickstreamSimulator(users, items, seed=3).world


def asked_by(users: list[int], k: int = 3) -> Asked:
    eligible = np.ones((len(users), N_ITEMS), dtype=np.bool_)
    eligible[:, 2] = False
    codes = np.array(users)
    return Asked(codes, np.full(len(codes), START), k, np.full(len(codes), NOTHING), eligible, np.arange(N_ITEMS))


def policies(world: World) -> dict[str, Recommend]:
    return {
        "random": RandomPolicy(0),
        "popularity": PopularityPolicy(),
        "oracle": OraclePolicy(world),
        "organic": OrganicPolicy(world, 0),
    }


@pytest.mark.parametrize("name", ["random", "popularity", "oracle", "organic"])
def test_what_is_shown_is_eligible_and_distinct(world: World, name: str) -> None:
    shown = policies(world)[name](asked_by([0, 3, 5])).item_codes
    assert shown.shape == (3, 3)
    assert all(len(set(row)) == 3 and 2 not in row and NOTHING not in row for row in shown.tolist())


@pytest.mark.parametrize("name", ["random", "popularity", "oracle", "organic"])
def test_where_too_little_is_eligible_the_rest_of_the_page_is_nothing(world: World, name: str) -> None:
    asked = asked_by([1, 4], k=10)
    few = replace(asked, eligible=np.isin(np.arange(N_ITEMS), [[5, 7]]) & np.array([[True], [False]]))
    shown = policies(world)[name](few)
    assert sorted(shown.item_codes[0, :2].tolist()) == [5, 7]
    assert (shown.item_codes[0, 2:] == NOTHING).all()
    assert (shown.item_codes[1] == NOTHING).all()
    if shown.propensities is not None:
        assert np.isfinite(shown.propensities).all()


@pytest.mark.parametrize("name", ["random", "organic"])
def test_propensities_are_how_often_each_item_is_shown_first_and_second(world: World, name: str) -> None:
    policy, n = policies(world)[name], 40_000
    asked = asked_by([0] * n, k=2)
    shown = policy(asked)
    assert shown.propensities is not None
    first, second = shown.item_codes.T
    for item in set(first.tolist()):
        told = shown.propensities[first == item, 0]
        assert np.ptp(told) == 0
        assert told[0] == pytest.approx((first == item).mean(), abs=0.012)
    leader = np.bincount(first).argmax()
    follower = np.bincount(second[first == leader]).argmax()
    told = shown.propensities[(first == leader) & (second == follower), 1]
    assert told[0] == pytest.approx((second[first == leader] == follower).mean(), abs=0.02)


def test_popularity_goes_by_clicks_and_the_oracle_by_the_truth(world: World) -> None:
    asked = asked_by([0, 1])
    assert PopularityPolicy()(asked).item_codes.tolist() == [[7, 6, 5]] * 2
    best = OraclePolicy(world)(asked).item_codes
    attraction = world.attraction_of_all(asked.user_codes, asked.moments)
    attraction[:, 2] = -1
    assert best.tolist() == np.argsort(-attraction, axis=1)[:, :3].tolist()
    assert world.attraction(asked.user_codes, best, asked.moments) == pytest.approx(
        np.take_along_axis(attraction, best, axis=1)
    )
