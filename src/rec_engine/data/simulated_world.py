"""A world whose truth is known: what its people like, how its items attract them, and when either came."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from scipy.special import expit

from rec_engine.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from rec_engine.data.demo_catalogue import LATENT_DIM
from rec_engine.errors import DataError

START = 1_735_689_600  # 1 January 2025, a Wednesday
N_DAYS = 180
SECONDS_A_DAY = 86_400
NOTHING: Final = -1
"""Code of an item where a page shows none."""

TASTE_IN_CLICK, POPULARITY_IN_CLICK, NOVELTY_IN_CLICK, ATTRACTION_BIAS = 5.0, 0.5, 0.4, -2.2
NOVELTY_DAYS = 14.0
"""An item is 1 / e as new after so many days."""
DRIFT, PERSONAL = 0.5, 0.08
INTERESTS, SHARES_OF_INTERESTS = 3, (1.5, 1.0, 0.6)
CHURNING, DAYS_BEFORE_CHURN = 0.25, 120.0
BOT_SHARE = 0.005
MIN_KINDS, ITEMS_A_KIND = 4, 20
OWN_IN_ITEM, POPULARITY_SPREAD = 0.6, 1.7
LONG_AGO_DAYS = 365.0


@dataclass(frozen=True, slots=True)
class HiddenItems:
    """What is behind items.

    Attributes:
        vectors: (n_items, LATENT_DIM) float32, length 1.
        kind_vectors: (n_kinds, LATENT_DIM) float32, what people may be interested in.
        log_popularity: (n_items,) float32, how often an item is met whatever the taste.
    """

    vectors: FloatArray
    kind_vectors: FloatArray
    log_popularity: FloatArray


@dataclass(frozen=True, slots=True)
class World:
    """What nobody could know outside a simulation. The code of a user or an item is its row in the frame.

    Attributes:
        users: user_id and whatever else is known of them.
        items: item_id and whatever else is known of them.
        start: Unix seconds, from which days are counted.
        n_days: how long tastes take to change.
        tastes_at_start: (n_users, LATENT_DIM) float32; tastes move in a straight line to those at the end.
        tastes_at_end: (n_users, LATENT_DIM) float32.
        item_vectors: (n_items, LATENT_DIM) float32.
        log_popularity: (n_items,) float32.
        released_day: (n_items,) float32, negative before the start.
        joined_day: (n_users,) float32.
        left_day: (n_users,) float32, inf for those who stay.
        is_bot: (n_users,) bool: machines, which click whatever it is.
    """

    users: pl.DataFrame
    items: pl.DataFrame
    start: int
    n_days: float
    tastes_at_start: FloatArray
    tastes_at_end: FloatArray
    item_vectors: FloatArray
    log_popularity: FloatArray
    released_day: FloatArray
    joined_day: FloatArray
    left_day: FloatArray
    is_bot: BoolArray

    def days(self, moments: LongArray) -> FloatArray:
        """Return (n,) float32: Unix seconds as days since the start."""
        return ((moments - self.start) / SECONDS_A_DAY).astype(np.float32)

    def taste(self, user_codes: IntArray | LongArray, days: FloatArray) -> FloatArray:
        """Return (n, LATENT_DIM): the users' tastes after so many days."""
        share = np.clip(days / np.float32(self.n_days), 0, 1)[:, None].astype(np.float32)
        taste: FloatArray = (1 - share) * self.tastes_at_start[user_codes] + share * self.tastes_at_end[user_codes]
        return taste

    def attraction(self, user_codes: LongArray, item_codes: LongArray, moments: LongArray) -> FloatArray:
        """Return (n, k) float32: the probability that user n clicks an item that he looks at; 0 for NOTHING.

        The log-odds are 5 taste . item + 0.5 log popularity + 0.4 exp(-age / 14 days) - 2.2.

        Args:
            user_codes: (n,).
            item_codes: (n, k).
            moments: (n,) Unix seconds.
        """
        days = self.days(moments)
        fit = np.einsum("nkd,nd->nk", self.item_vectors[item_codes], self.taste(user_codes, days))
        age = days[:, None] - self.released_day[item_codes]
        found = _attraction(fit, self.log_popularity[item_codes], age)
        return np.where(item_codes == NOTHING, np.float32(0), found)

    def attraction_of_all(self, user_codes: LongArray, moments: LongArray) -> FloatArray:
        """Return (n, n_items) float32: the attraction of every item; see `attraction`."""
        days = self.days(moments)
        fit = self.taste(user_codes, days) @ self.item_vectors.T
        return _attraction(fit, self.log_popularity, days[:, None] - self.released_day)


def make_world(
    users: pl.DataFrame,
    items: pl.DataFrame,
    hidden: HiddenItems,
    rng: np.random.Generator,
    *,
    start: int = START,
    n_days: float = N_DAYS,
) -> World:
    """Return a world of these users and items; tastes are mixtures of three kinds of item and a personal part.

    Args:
        users: user_id and, where there is, joined (Unix seconds); without it all are there from the start.
        items: item_id and, where there is, released (Unix seconds); without it all are there long before.
        hidden: what is behind the items.
        rng: of the draws.
        start: Unix seconds.
        n_days: how long tastes take to change.

    Raises:
        DataError: if there are no users or items, an id is missing or not unique, or a moment is no number.
    """
    _check_ids(users, "user_id", "users")
    _check_ids(items, "item_id", "items")
    n_users = users.height
    interests = hidden.kind_vectors[rng.integers(len(hidden.kind_vectors), size=(n_users, INTERESTS))]
    shares = rng.dirichlet(SHARES_OF_INTERESTS, n_users).astype(np.float32)
    mixed = (interests * shares[:, :, None]).sum(axis=1)
    tastes = unit(mixed + PERSONAL * rng.standard_normal((n_users, LATENT_DIM), dtype=np.float32))
    elsewhere = hidden.kind_vectors[rng.integers(len(hidden.kind_vectors), size=n_users)]
    joined_day = np.maximum(_days_of(users, "joined", start, missing=0.0), 0)
    stays = rng.random(n_users) >= CHURNING
    left_day = joined_day + np.where(stays, np.inf, rng.exponential(DAYS_BEFORE_CHURN, n_users))
    return World(
        users=users,
        items=items,
        start=start,
        n_days=n_days,
        tastes_at_start=tastes,
        tastes_at_end=unit(tastes + DRIFT * elsewhere),
        item_vectors=hidden.vectors,
        log_popularity=hidden.log_popularity,
        released_day=_days_of(items, "released", start, missing=-LONG_AGO_DAYS),
        joined_day=joined_day,
        left_day=left_day.astype(np.float32),
        is_bot=rng.random(n_users) < BOT_SHARE,
    )


def hide(items: pl.DataFrame, rng: np.random.Generator) -> HiddenItems:
    """Return what is behind items: those that share categories are alike, and popularity has a long tail.

    Args:
        items: with a column `categories` (a list, or text split by |) where there is one; without it the kinds are
            drawn.
        rng: of the draws.
    """
    members = _categories(items, rng)
    names = members["category"].unique().sort()
    kind_vectors = unit(rng.standard_normal((len(names), LATENT_DIM), dtype=np.float32))
    rows = members["row"].to_numpy()
    vectors = OWN_IN_ITEM * unit(rng.standard_normal((items.height, LATENT_DIM), dtype=np.float32))
    np.add.at(vectors, rows, kind_vectors[names.search_sorted(members["category"]).to_numpy()])
    log_popularity = POPULARITY_SPREAD * rng.standard_normal(items.height, dtype=np.float32)
    return HiddenItems(unit(vectors), kind_vectors, log_popularity)


def unit(vectors: FloatArray) -> FloatArray:
    """Return the vectors of the last axis with length 1."""
    lengths: FloatArray = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths


def _attraction(fit: FloatArray, log_popularity: FloatArray, age_days: FloatArray) -> FloatArray:
    novelty = np.exp(-np.maximum(age_days, 0) / np.float32(NOVELTY_DAYS))
    log_odds = TASTE_IN_CLICK * fit + POPULARITY_IN_CLICK * log_popularity + NOVELTY_IN_CLICK * novelty
    return expit(log_odds + ATTRACTION_BIAS).astype(np.float32)


def _categories(items: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Return `row` and `category`, one row a membership; kinds that are drawn where no item has a category."""
    rows = pl.Series("row", np.arange(items.height))
    if "categories" in items.columns:
        column = items["categories"]
        lists = column if isinstance(column.dtype, pl.List) else column.cast(pl.String).str.split("|")
        members = pl.DataFrame([rows, lists.alias("category")]).explode("category").drop_nulls()
        members = members.with_columns(pl.col("category").cast(pl.String))
        if not members.is_empty():
            return members
    kinds = rng.integers(max(MIN_KINDS, items.height // ITEMS_A_KIND), size=items.height)
    return pl.DataFrame([rows, pl.Series("category", kinds).cast(pl.String)])


def _days_of(table: pl.DataFrame, column: str, start: int, *, missing: float) -> FloatArray:
    if column not in table.columns:
        return np.full(table.height, missing, dtype=np.float32)
    moments = table[column]
    if not moments.dtype.is_numeric():
        raise DataError(f"{column}: wanted Unix seconds, found {moments.dtype}", hint="cast the column, or drop it")
    return ((moments - start) / SECONDS_A_DAY).fill_null(missing).cast(pl.Float32).to_numpy()


def _check_ids(table: pl.DataFrame, key: str, what: str) -> None:
    if key not in table.columns:
        raise DataError(f"{what}: there is no column {key}", hint=f"it has {', '.join(table.columns) or 'none'}")
    if table.is_empty():
        raise DataError(f"{what}: there is not one row", hint="a world needs users and items")
    if table[key].null_count() or table[key].n_unique() != table.height:
        raise DataError(f"{what}: {key} is missing or there twice in some rows", hint="one row each")
