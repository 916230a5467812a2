"""When simulated people come: long-tailed activity, the rhythm of week and day, return visits, arrivals and churn."""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rec_engine.data.dataset import LongArray
from rec_engine.data.simulated_world import SECONDS_A_DAY, World

DEVICES: Final = ("mobile", "desktop", "tablet")
SHARE_OF_DEVICE = (0.6, 0.32, 0.08)
OWN_DEVICE = 0.85
END_OF_VISIT = np.array([0.32, 0.23, 0.28])
"""Probability, by device, that a page is the last one."""
MAX_PAGES = 8
NO_LIMIT = np.iinfo(np.int64).max

ACTIVITY_SPREAD = 0.75
BOTS_ARE_BUSIER = 5.0
RETURNS, RETURN_DAYS = 0.3, 1.2
"""Probability that a visit brings another one soon, and after how many days on average."""
WEEKDAY_WEIGHTS = (0.9, 0.9, 0.95, 1.0, 1.1, 1.3, 1.25)
HOUR_WEIGHTS = (1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 6, 5, 5, 5, 6, 8, 10, 11, 10, 7, 3)
EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday
MEDIAN_GAP_SECONDS, GAP_SPREAD = 18.0, 0.9

DoubleArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Visits:
    """Visits in the order of their beginnings.

    Attributes:
        user_codes: (n,) int64.
        moments: (n,) int64, Unix seconds of the beginning.
        n_pages: (n,) int64, pages that are looked at, unless `max_clicks` is reached before.
        max_clicks: (n,) int64, after which a visit ends.
        devices: (n,) int64, places in DEVICES.
    """

    user_codes: LongArray
    moments: LongArray
    n_pages: LongArray
    max_clicks: LongArray
    devices: LongArray

    def __len__(self) -> int:
        return len(self.user_codes)

    def taken(self, order: LongArray) -> "Visits":
        """Return the visits of these rows."""
        return Visits(
            self.user_codes[order],
            self.moments[order],
            self.n_pages[order],
            self.max_clicks[order],
            self.devices[order],
        )


class Rhythm(Protocol):
    """When the people of a world come, and how fast they click."""

    def visits(self, start: int, n_days: float, rng: np.random.Generator) -> Visits:
        """Return the visits that begin within the `n_days` after `start` (Unix seconds)."""
        ...

    def gaps_seconds(self, n: int, rng: np.random.Generator) -> LongArray:
        """Return (n,) int64: how long people look before they click."""
        ...


@dataclass(frozen=True, slots=True)
class ShopRhythm:
    """The habits of a shop's customers.

    Attributes:
        world: whose people come.
        visits_a_day: (n_users,) float64, of each user on an average day between joining and leaving, return visits
            left out.
        own_devices: (n_users,) int64, places in DEVICES.
    """

    world: World
    visits_a_day: DoubleArray
    own_devices: LongArray

    def visits(self, start: int, n_days: float, rng: np.random.Generator) -> Visits:
        """Return the visits that begin within the `n_days` after `start` (Unix seconds)."""
        first_day = (start - self.world.start) / SECONDS_A_DAY
        begins = np.maximum(self.world.joined_day, first_day).astype(np.float64)
        ends = np.minimum(self.world.left_day, first_day + n_days).astype(np.float64)
        users, days = self._planned(begins, np.maximum(ends, begins), rng)
        back_users, back_days = _returns(users, days, rng)
        users, days = np.concatenate([users, back_users]), np.concatenate([days, back_days])
        is_there = days < ends[users]
        users, days = users[is_there], days[is_there]
        moments = self.world.start + (days * SECONDS_A_DAY).astype(np.int64)
        devices = visit_devices(self.own_devices[users], rng)
        n_pages = np.minimum(rng.geometric(END_OF_VISIT[devices]), MAX_PAGES)
        unlimited = np.full(len(users), NO_LIMIT)
        return Visits(users, moments, n_pages, unlimited, devices).taken(np.lexsort((users, moments)))

    def gaps_seconds(self, n: int, rng: np.random.Generator) -> LongArray:
        """Return (n,) int64: how long people look before they click."""
        return np.ceil(MEDIAN_GAP_SECONDS * np.exp(GAP_SPREAD * rng.standard_normal(n))).astype(np.int64)

    def _planned(
        self, begins: DoubleArray, ends: DoubleArray, rng: np.random.Generator
    ) -> tuple[LongArray, DoubleArray]:
        """Return users and days of the visits that no other visit has brought about: a Poisson process a user."""
        first, last = int(np.floor(begins.min())), int(np.ceil(ends.max()))
        edges = np.arange(first, last + 1)
        weights = np.array([self._weekday_weight(day) for day in range(first, last)]) / np.mean(WEEKDAY_WEIGHTS)
        passed = np.concatenate([[0.0], np.cumsum(weights)])
        low, high = np.interp(begins, edges, passed), np.interp(ends, edges, passed)
        users = np.repeat(np.arange(len(begins)), rng.poisson(self.visits_a_day * (high - low)))
        drawn = np.interp(rng.uniform(low[users], high[users]), passed, edges)
        rhythmic = np.floor(drawn) + _hours(len(users), rng) / 24
        return users, np.where(rhythmic < begins[users], drawn, rhythmic)

    def _weekday_weight(self, day: int) -> float:
        return WEEKDAY_WEIGHTS[(self.world.start // SECONDS_A_DAY + day + EPOCH_WEEKDAY) % 7]


def shop_rhythm(world: World, rng: np.random.Generator, *, visits_a_day: float) -> ShopRhythm:
    """Return habits with a long tail.

    Args:
        world: whose people come; a column `device` of its users says what they have.
        rng: of the draws.
        visits_a_day: of an average user, return visits included.
    """
    n_users = world.users.height
    activity = np.exp(ACTIVITY_SPREAD * rng.standard_normal(n_users))
    activity *= visits_a_day * (1 - RETURNS) / activity.mean()
    activity[world.is_bot] *= BOTS_ARE_BUSIER
    drawn = rng.choice(len(DEVICES), n_users, p=SHARE_OF_DEVICE)
    if "device" not in world.users.columns:
        return ShopRhythm(world, activity, drawn)
    known = {device: place for place, device in enumerate(DEVICES)}
    told = world.users["device"].replace_strict(known, default=None).to_numpy()
    return ShopRhythm(world, activity, np.where(np.isnan(told.astype(np.float64)), drawn, told).astype(np.int64))


def visit_devices(own: LongArray, rng: np.random.Generator) -> LongArray:
    """Return (n,) int64: the device of each visit, mostly the user's own (n,)."""
    other = rng.choice(len(DEVICES), len(own), p=SHARE_OF_DEVICE)
    return np.where(rng.random(len(own)) < OWN_DEVICE, own, other)


def _returns(users: LongArray, days: DoubleArray, rng: np.random.Generator) -> tuple[LongArray, DoubleArray]:
    """Return users and days of the visits that follow these: each on a later day than the one before."""
    counts = rng.geometric(1 - RETURNS, len(users)) - 1
    waits = np.ceil(rng.exponential(RETURN_DAYS, counts.sum()))
    passed = np.cumsum(waits)
    before = np.concatenate([[0.0], passed])[np.cumsum(counts) - counts]
    back = np.floor(np.repeat(days, counts)) + passed - np.repeat(before, counts)
    return np.repeat(users, counts), back + _hours(len(back), rng) / 24


def _hours(n: int, rng: np.random.Generator) -> DoubleArray:
    weights = np.array(HOUR_WEIGHTS)
    hours: DoubleArray = rng.choice(24, n, p=weights / weights.sum()) + rng.random(n)
    return hours
