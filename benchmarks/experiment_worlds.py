"""Simulated users for `experiments.py`: clustered, heavy-tailed, with effects that are known."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec_engine.experiments.interleaving import credit, team_draft
from rec_engine.experiments.moments import DoubleArray, Moments

CLICK_RATE = (1.0, 19.0)
"""Beta parameters of users' rates: a mean of 5%, and users who differ."""
CONVERSION_SHARE = 0.3
PRICE_SIGMA = 1.2
"""Of a lognormal: a hundredth of the buyers pay a sixth of the revenue."""

Draw = Callable[[np.random.Generator, tuple[int, ...], DoubleArray], list[DoubleArray]]
"""(rng, shape, factor) to columns of that shape, numerator first; the factor (broadcast to shape) is 1 + effect."""


def clicks(rng: np.random.Generator, shape: tuple[int, ...], factor: DoubleArray) -> list[DoubleArray]:
    """Return clicks and impressions of users with some ten impressions each, and the same from before."""
    rate = rng.beta(*CLICK_RATE, shape)
    impressions = _impressions(rng, shape)
    return [
        rng.binomial(impressions, np.minimum(rate * factor, 1.0)).astype(np.float64),
        impressions.astype(np.float64),
    ]


def clicks_with_past(rng: np.random.Generator, shape: tuple[int, ...], factor: DoubleArray) -> list[DoubleArray]:
    """Return clicks and impressions, now and before, of users who keep their rate."""
    rate = rng.beta(*CLICK_RATE, shape)
    now, before = _impressions(rng, shape), _impressions(rng, shape)
    counted = [rng.binomial(now, np.minimum(rate * factor, 1.0)), now, rng.binomial(before, rate), before]
    return [each.astype(np.float64) for each in counted]


def conversions(rng: np.random.Generator, shape: tuple[int, ...], factor: DoubleArray) -> list[DoubleArray]:
    """Return who converted."""
    return [(rng.random(shape) < CONVERSION_SHARE * factor).astype(np.float64), np.ones(shape)]


def revenue(rng: np.random.Generator, shape: tuple[int, ...], factor: DoubleArray) -> list[DoubleArray]:
    """Return revenue: most pay nothing, some a lot."""
    buys = rng.random(shape) < CONVERSION_SHARE * factor
    paid = np.zeros(shape)
    paid[buys] = rng.lognormal(3.0, PRICE_SIGMA, int(buys.sum()))
    return [paid, np.ones(shape)]


def session_seconds(rng: np.random.Generator, shape: tuple[int, ...], factor: DoubleArray) -> list[DoubleArray]:
    """Return exponential times."""
    return [rng.exponential(300.0, shape) * factor, np.ones(shape)]


def correlated(correlation: float) -> Draw:
    """Return a draw of means whose past has this correlation with them."""

    def draw(rng: np.random.Generator, shape: tuple[int, ...], factor: DoubleArray) -> list[DoubleArray]:
        past = rng.normal(size=shape)
        now = correlation * past + math.sqrt(1 - correlation**2) * rng.normal(size=shape)
        return [(10 + now) * factor, np.ones(shape), 10 + past, np.ones(shape)]

    return draw


def _impressions(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.ceil(rng.lognormal(1.8, 1.0, shape)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Plan:
    """How experiments are simulated.

    Attributes:
        n_runs: experiments.
        n_looks: how often each is looked at.
        users_a_look: new users of each arm at every look.
        effect: relative, of the treatment.
    """

    n_runs: int
    n_looks: int
    users_a_look: int
    effect: float = 0.0


def simulated(draw: Draw, plan: Plan, rng: np.random.Generator, users_a_chunk: int = 400_000) -> Moments:
    """Return the moments of (n_runs, n_looks, 1 phase, 2 arms), of all users up to each look."""
    users_a_run = plan.n_looks * 2 * plan.users_a_look
    runs_a_chunk = max(1, users_a_chunk // users_a_run)
    parts = []
    for first in range(0, plan.n_runs, runs_a_chunk):
        shape = (min(runs_a_chunk, plan.n_runs - first), plan.n_looks, 2, plan.users_a_look)
        factor = np.array([1.0, 1 + plan.effect])[:, None]
        parts.append(_cumulated(draw(rng, shape, factor)))
    return Moments(*(np.concatenate([part[place] for part in parts]) for place in range(3)))


def _cumulated(columns: list[DoubleArray]) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Return n, mean and covariance over looks so far of (n_runs, n_looks, 2, users) columns."""
    n_users, k = columns[0].shape[-1], len(columns)
    middle = [float(column.mean()) for column in columns]
    centred = [column - at for column, at in zip(columns, middle, strict=True)]
    n = n_users * np.cumsum(np.ones(columns[0].shape[:-1]), axis=1)
    sums = np.stack([column.sum(axis=-1).cumsum(axis=1) for column in centred], axis=-1)
    products = np.empty((*n.shape, k, k))
    for i in range(k):
        for j in range(i + 1):
            product = np.einsum("...u,...u->...", centred[i], centred[j]).cumsum(axis=1)
            products[..., i, j] = products[..., j, i] = product
    mean = sums / n[..., None]
    covariance = (products - n[..., None, None] * mean[..., :, None] * mean[..., None, :]) / (n - 1)[..., None, None]
    return n[:, :, None], (mean + middle)[:, :, None], covariance[:, :, None]


EXAMINED = 0.85 ** np.arange(10)
"""Probability that a position is looked at."""


@dataclass(frozen=True, slots=True)
class Visits:
    """Visits of users who come some twelve times each and differ in how readily they click; ten of thirty items show.

    Attributes:
        user: (n_visits,) who comes.
        relevance: (n_visits, 30) of the items to him.
        readiness: (n_visits,) probability of clicking what is looked at and wholly relevant.
    """

    user: NDArray[np.int64]
    relevance: DoubleArray
    readiness: DoubleArray

    @classmethod
    def drawn(cls, rng: np.random.Generator, n_users: int) -> "Visits":
        """Return the visits of so many users."""
        visits = np.ceil(rng.lognormal(2.0, 1.0, n_users)).astype(np.int64)
        user = np.repeat(np.arange(n_users), visits)
        return cls(user, rng.beta(1, 4, (n_users, 30))[user], rng.beta(1, 2, n_users)[user])

    def ranked(self, rng: np.random.Generator, noise: float) -> NDArray[np.int64]:
        """Return (n_visits, 10) items by a ranker that knows relevance up to some noise."""
        return np.argsort(-(self.relevance + rng.normal(0, noise, self.relevance.shape)), axis=1)[:, :10]

    def clicks(self, rng: np.random.Generator, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (n_visits, 10) whether each position is clicked."""
        chance = EXAMINED * self.readiness[:, None] * np.take_along_axis(self.relevance, items, axis=1)
        return rng.random(items.shape) < chance

    def credits(self, rng: np.random.Generator, rankings: list[NDArray[np.int64]]) -> list[DoubleArray]:
        """Return (n_visits,) clicks credited to either ranker when they are interleaved."""
        drafts = [team_draft(a, b, 10, rng) for a, b in zip(*(each.tolist() for each in rankings), strict=True)]
        items = np.array([draft.items for draft in drafts], dtype=np.int64)
        clicked = self.clicks(rng, items)
        counted = [credit(draft, draft.items[hit].tolist()) for draft, hit in zip(drafts, clicked, strict=True)]
        return list(np.array(counted, dtype=np.float64).T)
