"""A world whose truth is known: shoppers with hidden tastes meet a catalogue, page by page, and leave a clickstream."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from rec_engine.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from rec_engine.data.demo_catalogue import LATENT_DIM, Catalogue, make_catalogue

START = 1_735_689_600  # 1 January 2025, a Wednesday
N_DAYS = 180
SECONDS_A_DAY = 86_400
SLATE = 10
MAX_SESSIONS, MAX_PAGES = 60, 8
INTERACTIONS_A_SESSION = 8.0
"""What the click model below yields on average; it decides how many sessions a wanted size takes."""

POSITION_EXPONENT = 0.6
"""Examination falls with position as 1 / position ** 0.6."""
TASTE_IN_SLATE, TASTE_IN_CLICK, ATTRACTION_BIAS = 4.5, 5.0, -1.6
INTENT_OF_LAST_ITEM = 0.6
DRIFT = 0.5
TINY = np.float32(1e-30)
CART_RATE, PURCHASE_RATE = 0.15, 0.4
WEEKDAY_WEIGHTS = (0.9, 0.9, 0.95, 1.0, 1.1, 1.3, 1.25)
HOUR_WEIGHTS = (1, 1, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 6, 5, 5, 5, 6, 8, 10, 11, 10, 7, 3)


@dataclass(frozen=True, slots=True)
class Truth:
    """What nobody could know outside a simulation.

    Attributes:
        tastes_at_start: (n_users, LATENT_DIM) float32; tastes move in a straight line to those at the end.
        tastes_at_end: (n_users, LATENT_DIM) float32.
        item_vectors: (n_items, LATENT_DIM) float32.
    """

    tastes_at_start: FloatArray
    tastes_at_end: FloatArray
    item_vectors: FloatArray

    def taste(self, user_rows: IntArray | LongArray, days: FloatArray) -> FloatArray:
        """Return (n, LATENT_DIM): the users' tastes after so many days."""
        share = (days / N_DAYS)[:, None].astype(np.float32)
        return (1 - share) * self.tastes_at_start[user_rows] + share * self.tastes_at_end[user_rows]


@dataclass(frozen=True, slots=True)
class DemoFrames:
    """A simulated shop in the data contract.

    Attributes:
        interactions: user_id, item_id, timestamp, event, session_id, position, device.
        users: user_id, age_group, country, device, joined.
        items: see `Catalogue`.
        impressions: session_id, user_id, timestamp, item_id, position (from 1), clicked.
        truth: the hidden tastes.
    """

    interactions: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    impressions: pl.DataFrame
    truth: Truth


def demo_frames(seed: int = 0, n_users: int = 2_000, n_items: int = 1_000, n_interactions: int = 150_000) -> DemoFrames:
    """Return a simulated half year of a shop; the same seed gives the same frames, to the bit.

    A user sees pages of ten items that fit his taste, the last item he clicked and popularity; he examines a position
    with probability 1 / position ** 0.6 and clicks what he examines as it attracts him. Some clicks go on to the cart
    and some of those to a purchase. Tastes drift, items and users arrive over time, activity and popularity have long
    tails.

    Args:
        seed: of everything.
        n_users: shoppers.
        n_items: items in the catalogue.
        n_interactions: clicks, carts and purchases together, within about a tenth.
    """
    rng = np.random.default_rng(seed)
    catalogue = make_catalogue(rng, n_items, START, N_DAYS)
    users, joined_day = _shoppers(rng, n_users)
    truth = _truth(rng, catalogue, n_users)
    sessions = _sessions(rng, joined_day, n_interactions)
    impressions = _play(rng, catalogue, truth, sessions)
    devices = users["device"].to_numpy()
    return DemoFrames(
        interactions=_interactions(rng, impressions, devices),
        users=users,
        items=catalogue.items,
        impressions=impressions,
        truth=truth,
    )


@dataclass(frozen=True, slots=True)
class _Sessions:
    """Visits in time order within each user: (n_sessions,) arrays; `turn` counts a user's visits from 0."""

    user_rows: LongArray
    turns: LongArray
    days: FloatArray
    n_pages: LongArray


def _shoppers(rng: np.random.Generator, n_users: int) -> tuple[pl.DataFrame, FloatArray]:
    joined_day = np.where(rng.random(n_users) < 0.8, 0.0, rng.uniform(0, 0.95 * N_DAYS, n_users)).astype(np.float32)
    users = pl.DataFrame(
        {
            "user_id": np.arange(1, n_users + 1),
            "age_group": rng.choice(
                ["18-24", "25-34", "35-49", "50-64", "65+"], n_users, p=[0.15, 0.3, 0.3, 0.17, 0.08]
            ),
            "country": rng.choice(["DE", "FR", "GB", "NL", "US"], n_users, p=[0.3, 0.2, 0.2, 0.1, 0.2]),
            "device": rng.choice(["mobile", "desktop", "tablet"], n_users, p=[0.6, 0.32, 0.08]),
            "joined": (START + joined_day * SECONDS_A_DAY).astype(np.int64),
        }
    )
    return users, joined_day


def _truth(rng: np.random.Generator, catalogue: Catalogue, n_users: int) -> Truth:
    """Return tastes that are mixtures of three kinds of product and a personal part."""
    interests = catalogue.kind_vectors[rng.integers(len(catalogue.kind_vectors), size=(n_users, 3))]
    shares = rng.dirichlet((1.5, 1.0, 0.6), n_users).astype(np.float32)
    mixed = (interests * shares[:, :, None]).sum(axis=1)
    start = _unit(mixed + 0.08 * rng.standard_normal((n_users, LATENT_DIM), dtype=np.float32))
    elsewhere = catalogue.kind_vectors[rng.integers(len(catalogue.kind_vectors), size=n_users)]
    return Truth(start, _unit(start + DRIFT * elsewhere), catalogue.vectors)


def _sessions(rng: np.random.Generator, joined_day: FloatArray, n_interactions: int) -> _Sessions:
    n_users = len(joined_day)
    activity = np.exp(0.75 * rng.standard_normal(n_users)) * (1 - joined_day / N_DAYS)
    wanted = n_interactions / INTERACTIONS_A_SESSION * activity / activity.sum()
    counts = np.clip(np.round(wanted), 2, MAX_SESSIONS).astype(np.int64)
    user_rows = np.repeat(np.arange(n_users), counts)
    turns = np.arange(len(user_rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    weights = np.array([WEEKDAY_WEIGHTS[(2 + day) % 7] for day in range(N_DAYS)])
    drawn = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(len(user_rows)))
    first = joined_day[user_rows]
    days = np.maximum(drawn, first + (N_DAYS - first) * rng.random(len(user_rows)) * (drawn < first))
    hours = rng.choice(24, len(user_rows), p=np.array(HOUR_WEIGHTS) / sum(HOUR_WEIGHTS))
    moments = np.minimum(np.floor(days), N_DAYS - 1) + (hours + rng.random(len(user_rows))) / 24
    order = np.lexsort((moments, user_rows))
    n_pages = np.clip(rng.geometric(0.28, len(user_rows)), 1, MAX_PAGES)
    return _Sessions(user_rows, turns, moments[order].astype(np.float32), n_pages)


def _play(rng: np.random.Generator, catalogue: Catalogue, truth: Truth, sessions: _Sessions) -> pl.DataFrame:
    """Play every user's first visit, then every second one, and so on; all users of a page at once."""
    n_users = len(truth.tastes_at_start)
    met = np.zeros((n_users, len(catalogue.vectors)), dtype=np.bool_)
    pages: list[pl.DataFrame] = []
    for turn in range(int(sessions.turns.max()) + 1):
        visits = np.flatnonzero(sessions.turns == turn)
        taste = truth.taste(sessions.user_rows[visits], sessions.days[visits])
        last_item = np.zeros_like(taste)
        for page in range(MAX_PAGES):
            going_on = sessions.n_pages[visits] > page
            visits, taste, last_item = visits[going_on], taste[going_on], last_item[going_on]
            if not len(visits):
                break
            users, days = sessions.user_rows[visits], sessions.days[visits]
            slate = _slate(rng, catalogue, taste + INTENT_OF_LAST_ITEM * last_item, met[users], days)
            clicked = _clicks(rng, catalogue.vectors[slate], taste)
            met[users[:, None], slate] = met[users[:, None], slate] | clicked
            has_clicked = np.asarray(clicked.any(axis=1))
            latest = slate[np.arange(len(slate)), SLATE - 1 - clicked[:, ::-1].argmax(axis=1)]
            last_item = np.where(has_clicked[:, None], catalogue.vectors[latest], last_item)
            pages.append(_page(visits, users, days, page, slate, clicked))
    return pl.concat(pages).sort("user_id", "timestamp", "session_id", "position", maintain_order=True)


def _slate(
    rng: np.random.Generator, catalogue: Catalogue, intent: FloatArray, met: BoolArray, days: FloatArray
) -> LongArray:
    """Return (n, SLATE) items drawn without repetition, in proportion to exp(fit + popularity) (Gumbel top-k)."""
    worth = TASTE_IN_SLATE * (intent @ catalogue.vectors.T) + catalogue.log_popularity
    worth -= np.log(np.maximum(rng.standard_exponential(worth.shape, dtype=np.float32), TINY))
    worth[met | (catalogue.released_day > days[:, None])] = -np.inf
    best = np.argpartition(-worth, SLATE, axis=1)[:, :SLATE]
    return np.take_along_axis(best, np.argsort(-np.take_along_axis(worth, best, axis=1), axis=1, kind="stable"), axis=1)


def _clicks(rng: np.random.Generator, shown: FloatArray, taste: FloatArray) -> BoolArray:
    """Return (n, SLATE) bool: examined, with a probability that falls with the position, and attractive."""
    fit = np.einsum("nkd,nd->nk", shown, taste)
    attraction = 1 / (1 + np.exp(-(TASTE_IN_CLICK * fit + ATTRACTION_BIAS)))
    examination = np.arange(1, SLATE + 1) ** -POSITION_EXPONENT
    return np.asarray(rng.random(fit.shape) < attraction * examination)


def _page(
    visits: LongArray, users: LongArray, days: FloatArray, page: int, slate: LongArray, clicked: BoolArray
) -> pl.DataFrame:
    """Return one row an impression; a page takes a minute and a half, a position five seconds."""
    opened = START + (days.astype(np.float64) * SECONDS_A_DAY).astype(np.int64) + 90 * page
    positions = np.arange(1, SLATE + 1)
    return pl.DataFrame(
        {
            "session_id": np.repeat(visits, SLATE),
            "user_id": np.repeat(users + 1, SLATE),
            "timestamp": (opened[:, None] + 5 * positions).ravel(),
            "item_id": slate.ravel() + 1,
            "position": np.tile(positions, len(visits)),
            "clicked": clicked.ravel(),
        }
    )


def _interactions(rng: np.random.Generator, impressions: pl.DataFrame, devices: np.ndarray) -> pl.DataFrame:
    """Return the clicks, some of them followed by a cart and a purchase."""
    clicks = impressions.filter("clicked").drop("clicked")
    clicks = clicks.with_columns(device=pl.Series(devices[clicks["user_id"].to_numpy() - 1]))
    in_cart = clicks.filter(pl.Series(rng.random(clicks.height) < CART_RATE))
    bought = in_cart.filter(pl.Series(rng.random(in_cart.height) < PURCHASE_RATE))
    stages = (("click", clicks, 0), ("add_to_cart", in_cart, 2), ("purchase", bought, 4))
    table = pl.concat(
        rows.with_columns(event=pl.lit(event), timestamp=pl.col("timestamp") + delay) for event, rows, delay in stages
    )
    columns = ["user_id", "item_id", "timestamp", "event", "session_id", "position", "device"]
    return table.sort("user_id", "timestamp", "session_id", maintain_order=True).select(columns)


def _unit(vectors: FloatArray) -> FloatArray:
    lengths: FloatArray = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / lengths
