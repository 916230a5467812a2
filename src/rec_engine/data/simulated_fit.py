"""A world like a real one: as active users, as popular items, visits as long and as far apart; and how like it is."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from rec_engine.data.click_models import CLICK_MODELS
from rec_engine.data.clickstream_sim import SLATE, ClickstreamSimulator
from rec_engine.data.dataset import Interactions, LongArray, RecommendationDataset
from rec_engine.data.simulated_browsing import Browsing
from rec_engine.data.simulated_policies import OrganicPolicy
from rec_engine.data.simulated_visits import DEVICES, SHARE_OF_DEVICE, Visits
from rec_engine.data.simulated_world import SECONDS_A_DAY, World, hide, make_world

VISIT_ENDS_AFTER_SECONDS = 1_800
PATIENCE_PAGES = 30
"""Pages beyond one a click after which somebody gives up who finds no more to click."""
ROUNDS, CLICKS_A_ROUND = 6, 40_000
POPULARITY_GROUPS = 40
UNSEEN = 0.1
"""Interactions that every item is granted, so that one without any has a popularity at all."""

DoubleArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Habits:
    """When users of the past came, and how fast they went on.

    Attributes:
        starts: (n_users + 1,) int64; user u owns the visits starts[u] to starts[u + 1].
        begins: (n_visits,) int64, Unix seconds.
        lengths: (n_visits,) int64, interactions of each visit.
        gaps_seconds: (n,) int64, ascending, between the interactions of a visit.
        between_seconds: (n,) int64, ascending, between any two of a user's interactions that follow each other.
    """

    starts: LongArray
    begins: LongArray
    lengths: LongArray
    gaps_seconds: LongArray
    between_seconds: LongArray


@dataclass(frozen=True, slots=True)
class FittedRhythm:
    """Everybody has the habits of one user of the past, drawn with replacement.

    Attributes:
        habits: of the past.
        models: (n_users,) int64, whose habits each user has.
    """

    habits: Habits
    models: LongArray

    def visits(self, start: int, n_days: float, rng: np.random.Generator) -> Visits:
        """Return the visits that begin within the `n_days` after `start` (Unix seconds)."""
        first = self.habits.starts[self.models]
        counts = self.habits.starts[self.models + 1] - first
        users = np.repeat(np.arange(len(self.models)), counts)
        rows = np.arange(len(users)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        begins, lengths = self.habits.begins[rows], self.habits.lengths[rows]
        devices = rng.choice(len(DEVICES), len(users), p=SHARE_OF_DEVICE)
        visits = Visits(users, begins, lengths + PATIENCE_PAGES, lengths, devices)
        order = np.lexsort((users, begins))
        is_now = (begins[order] >= start) & (begins[order] < start + n_days * SECONDS_A_DAY)
        return visits.taken(order[is_now])

    def gaps_seconds(self, n: int, rng: np.random.Generator) -> LongArray:
        """Return (n,) int64: how long people look before they click."""
        known = self.habits.gaps_seconds if len(self.habits.gaps_seconds) else np.ones(1, dtype=np.int64)
        return known[rng.integers(len(known), size=n)]


@dataclass(frozen=True, slots=True)
class Likeness:
    """One distribution, in both worlds.

    Attributes:
        name: what is counted, and in what.
        real: (n,) float64, ascending.
        simulated: (m,) float64, ascending.
        distance: Kolmogorov and Smirnov's: the largest difference of the two distribution functions, from 0 to 1.
    """

    name: str
    real: DoubleArray
    simulated: DoubleArray
    distance: float


@dataclass(frozen=True, slots=True)
class Match:
    """How like the real world a simulated one is.

    Attributes:
        likenesses: of activity, popularity, visits and times.
        popularity_correlation: rank correlation (Spearman) of each item's interactions.
    """

    likenesses: tuple[Likeness, ...]
    popularity_correlation: float


def fitted_simulator(dataset: RecommendationDataset, seed: int) -> tuple[ClickstreamSimulator, float]:
    """Return the simulator of a world like this one, and how many days the past of the dataset took.

    The users and items are those of the dataset. Each user has the habits (visits, their lengths and moments) of a real
    one who is drawn; each item is as popular as it was; tastes are invented, alike for items that share categories.
    Every interaction counts as a click. Nobody clicks an item twice, so repeated purchases are not imitated.

    Args:
        dataset: the past.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    past = dataset.interactions
    habits = habits_of(past)
    start = int(past.timestamps.min())
    n_days = (int(past.timestamps.max()) - start + 1) / SECONDS_A_DAY
    hidden = hide(dataset.items, rng)
    world = make_world(dataset.users, dataset.items, hidden, rng, start=start, n_days=n_days)
    world = replace(world, is_bot=np.zeros(past.n_users, dtype=np.bool_))
    rhythm = FittedRhythm(habits, rng.integers(past.n_users, size=past.n_users))
    world = _as_popular(world, rhythm, past, n_days, rng)
    return ClickstreamSimulator.in_world(world, rhythm, seed), n_days


def habits_of(past: Interactions) -> Habits:
    """Return when users came; a visit ends when nothing happens for half an hour."""
    user_codes, gaps = past.user_codes, np.diff(past.timestamps)
    follows = user_codes[1:] == user_codes[:-1]
    goes_on = follows & (gaps < VISIT_ENDS_AFTER_SECONDS)
    firsts = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    visits_of_user = np.bincount(user_codes[firsts], minlength=past.n_users)
    return Habits(
        starts=np.concatenate([[0], np.cumsum(visits_of_user)]),
        begins=past.timestamps[firsts],
        lengths=np.diff(np.append(firsts, len(past))),
        gaps_seconds=np.sort(gaps[goes_on]),
        between_seconds=np.sort(gaps[follows]),
    )


def match(real: Interactions, simulated: Interactions) -> Match:
    """Return how like the real interactions the simulated ones are; both of the same users and items."""
    n_items = int(max(real.item_codes.max(), simulated.item_codes.max())) + 1
    popularity = [np.bincount(past.item_codes, minlength=n_items) for past in (real, simulated)]
    habits = [habits_of(past) for past in (real, simulated)]
    pairs = {
        "interactions a user": [np.diff(past.starts) for past in (real, simulated)],
        "interactions an item": popularity,
        "visits a user": [np.diff(of.starts) for of in habits],
        "interactions a visit": [of.lengths for of in habits],
        "seconds between interactions of a visit": [of.gaps_seconds for of in habits],
        "seconds between a user's interactions": [of.between_seconds for of in habits],
    }
    ranks = [rankdata(counts) for counts in popularity]
    return Match(
        tuple(_likeness(name, *pair) for name, pair in pairs.items()), float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    )


def ks_distance(real: DoubleArray, simulated: DoubleArray) -> float:
    """Return the two-sample statistic of Kolmogorov and Smirnov for ascending samples; nan where one is empty."""
    if not len(real) or not len(simulated):
        return float("nan")
    both = np.concatenate([real, simulated])
    shares = [np.searchsorted(sample, both, side="right") / len(sample) for sample in (real, simulated)]
    return float(np.abs(shares[0] - shares[1]).max())


def clicks_of(interactions: pl.DataFrame, dataset: RecommendationDataset) -> Interactions:
    """Return the clicks of a simulation of this dataset under the dataset's codes."""
    clicks = interactions.filter(event="click").select("user_id", "item_id", "timestamp", event=pl.lit("view"))
    return RecommendationDataset(clicks, dataset.users, dataset.items).interactions


def _likeness(name: str, real: LongArray, simulated: LongArray) -> Likeness:
    samples = [np.sort(sample).astype(np.float64) for sample in (real, simulated)]
    return Likeness(name, samples[0], samples[1], ks_distance(samples[0], samples[1]))


def _as_popular(
    world: World, rhythm: FittedRhythm, past: Interactions, n_days: float, rng: np.random.Generator
) -> World:
    """Return the world with popularities under which items are clicked about as often as in the past.

    A few users are simulated again and again, and items of about the same popularity are shown more where they were
    clicked too little.
    """
    wanted = np.bincount(past.item_codes, minlength=world.items.height).astype(np.float64)
    log_popularity = np.log(wanted + UNSEEN)
    visits = _some(rhythm.visits(world.start, n_days, rng), rng)
    groups, span = _groups(wanted), world.start + int(n_days * SECONDS_A_DAY) + 1
    target = np.bincount(groups, wanted + UNSEEN)
    for _ in range(ROUNDS):
        world = replace(world, log_popularity=(log_popularity - log_popularity.mean()).astype(np.float32))
        browsing = Browsing(world, CLICK_MODELS["position_based"], rhythm.gaps_seconds, rng)
        browsing.play(visits, OrganicPolicy(world, int(rng.integers(2**31))), SLATE, wave_seconds=span)
        scale = wanted.sum() / max(int(browsing.item_clicks.sum()), 1)
        log_popularity += np.log(target / np.bincount(groups, browsing.item_clicks * scale + UNSEEN))[groups]
    return replace(world, log_popularity=(log_popularity - log_popularity.mean()).astype(np.float32))


def _some(visits: Visits, rng: np.random.Generator) -> Visits:
    """Return the visits of so many users, drawn, that a round takes seconds."""
    n_users = int(visits.user_codes.max()) + 1
    order = rng.permutation(n_users)
    clicks = np.bincount(visits.user_codes, visits.max_clicks, n_users)[order]
    taken = order[: int(np.searchsorted(np.cumsum(clicks), CLICKS_A_ROUND)) + 1]
    return visits.taken(np.flatnonzero(np.isin(visits.user_codes, taken)))


def _groups(wanted: DoubleArray) -> LongArray:
    """Return (n_items,) int64: items of about the same popularity, each group with about as many items."""
    ranks = np.empty(len(wanted), dtype=np.int64)
    ranks[np.argsort(wanted, kind="stable")] = np.arange(len(wanted))
    return ranks * min(POPULARITY_GROUPS, len(wanted)) // len(wanted)
