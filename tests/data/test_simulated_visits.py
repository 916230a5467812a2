"""People come as the rhythm of the shop says."""

import numpy as np
import polars as pl
import pytest

from rec_engine.data.clickstream_sim import ClickstreamSimulator
from rec_engine.data.simulated_visits import DEVICES, ShopRhythm, Visits, shop_rhythm
from rec_engine.data.simulated_world import SECONDS_A_DAY, START, World

N_USERS, N_DAYS = 4_000, 70


@pytest.fixture(scope="module")
def world() -> World:
    joined = START + SECONDS_A_DAY * np.where(np.arange(N_USERS) % 4 == 0, 30.5, 0)
    devices = ["tablet" if user % 2 else None for user in range(N_USERS)]
    users = pl.DataFrame({"user_id": range(N_USERS), "joined": joined, "device": devices})
    return ClickstreamSimulator(users, pl.DataFrame({"item_id": range(20)}), seed=1).world


@pytest.fixture(scope="module")
def rhythm(world: World) -> ShopRhythm:
    return shop_rhythm(world, np.random.default_rng(0), visits_a_day=0.3)


@pytest.fixture(scope="module")
def visits(rhythm: ShopRhythm) -> Visits:
    return rhythm.visits(START, N_DAYS, np.random.default_rng(0))


def test_nobody_comes_before_he_joined_or_after_he_left(world: World, visits: Visits) -> None:
    days = (visits.moments - START) / SECONDS_A_DAY
    assert (days >= world.joined_day[visits.user_codes] - 1e-4).all()
    assert (days <= world.left_day[visits.user_codes] + 1e-4).all()
    assert (days >= 0).all()
    assert (days < N_DAYS).all()
    assert (np.diff(visits.moments) >= 0).all()


def test_people_come_as_often_as_wanted(world: World, visits: Visits) -> None:
    stays = np.minimum(world.left_day, N_DAYS) - world.joined_day
    assert len(visits) / stays.sum() == pytest.approx(0.3, rel=0.1)


def test_activity_has_a_long_tail_and_bots_are_busy(world: World, rhythm: ShopRhythm) -> None:
    people = rhythm.visits_a_day[~world.is_bot]
    assert np.quantile(people, 0.95) > 3 * np.median(people)
    assert np.median(rhythm.visits_a_day[world.is_bot]) > 2 * np.median(people)


def test_weekends_and_evenings_are_busier(visits: Visits) -> None:
    weekdays = np.bincount((visits.moments // SECONDS_A_DAY + 3) % 7, minlength=7)
    hours = np.bincount(visits.moments // 3_600 % 24, minlength=24)
    assert weekdays[5:].mean() > 1.1 * weekdays[:5].mean()
    assert hours[18:22].mean() > 5 * hours[:6].mean()


def test_visits_bring_visits(visits: Visits) -> None:
    days = (visits.moments - START) // SECONDS_A_DAY
    came = set(zip(visits.user_codes.tolist(), days.tolist(), strict=True))

    def again(lag: int) -> int:
        return sum((user, day + lag) in came for user, day in came)

    # Eight days later it is the same day of the week as one day later.
    assert again(1) > 1.25 * again(8)


def test_devices_are_mostly_the_users_own(visits: Visits) -> None:
    owners = visits.user_codes % 2 == 1
    assert (visits.devices[owners] == DEVICES.index("tablet")).mean() > 0.8
    assert (visits.devices[~owners] == DEVICES.index("mobile")).mean() > 0.5
    pages = [visits.n_pages[visits.devices == place].mean() for place in range(len(DEVICES))]
    assert pages[DEVICES.index("desktop")] > pages[DEVICES.index("mobile")] + 0.4
