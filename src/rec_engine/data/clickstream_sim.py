"""Shoppers with hidden tastes meet a catalogue, page by page, and leave a clickstream whose truth is known."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rec_engine.data.click_models import CLICK_MODELS
from rec_engine.data.dataset import BoolArray, ExternalId, FloatArray, IntArray, LongArray
from rec_engine.data.demo_catalogue import make_catalogue
from rec_engine.data.simulated_browsing import Browsing, Pages
from rec_engine.data.simulated_policies import Asked, OraclePolicy, OrganicPolicy, Recommend
from rec_engine.data.simulated_visits import DEVICES, NO_LIMIT, Rhythm, Visits, shop_rhythm
from rec_engine.data.simulated_world import N_DAYS as N_DAYS
from rec_engine.data.simulated_world import NOTHING, SECONDS_A_DAY, HiddenItems, World, hide, make_world
from rec_engine.data.simulated_world import START as START
from rec_engine.data.tables import to_polars
from rec_engine.errors import ConfigError, NotFoundError

SLATE = 10
VISITS_A_DAY = 0.1
INTERACTIONS_A_VISIT = 8.0
"""What a visit to the demo shop yields on average; it decides how many visits a wanted size takes."""
STAGES, SECONDS_A_STAGE = ("click", "add_to_cart", "purchase"), 2
CART_OF_ATTRACTION, PURCHASE_OF_CART = 0.25, 0.4
DWELL_SECONDS, DWELL_SPREAD = 30.0, 0.8
SHARE_OF_FIRST_DAY = 0.8
_VISITS, _ORGANIC, _BROWSING, _AFTERWARDS = range(1, 5)


@dataclass(frozen=True, slots=True)
class Clickstream:
    """A simulated stretch of time in the data contract.

    Attributes:
        interactions: user_id, item_id, timestamp, event (click, add_to_cart, purchase), session_id, position, device,
            request_id, dwell_seconds (of clicks).
        users: as the world has them.
        items: as the world has them.
        impressions: request_id, session_id, user_id, timestamp, item_id, position (from 1), propensity, clicked.
        truth: the world behind it; who is a bot is said there only.
    """

    interactions: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    impressions: pl.DataFrame
    truth: World


class ClickstreamSimulator:
    """A shop with its customers, whose time passes as often as `simulate_period` is called: they remember.

    The same frames, seed and calls give the same log, to the bit. Who comes when does not depend on what is shown, so
    two policies in two simulators of one seed meet the same visits.

    Args:
        users_df: user_id and, where there are, joined (Unix seconds) and device (mobile, desktop, tablet).
        items_df: item_id and, where there are, categories and released (Unix seconds).
        seed: of everything.
        click_model: position_based or cascade.

    Attributes:
        world: the truth.

    Raises:
        ConfigError: if there is no such click model.
        DataError: if a frame lacks its id, or holds one twice.
    """

    def __init__(
        self, users_df: object, items_df: object, seed: int = 0, *, click_model: str = "position_based"
    ) -> None:
        users, items = to_polars(users_df), to_polars(items_df)
        rng = np.random.default_rng(seed)
        world = make_world(users, items, hide(items, rng), rng)
        self._fill(world, shop_rhythm(world, rng, visits_a_day=VISITS_A_DAY), seed, click_model)

    @classmethod
    def in_world(cls, world: World, rhythm: Rhythm, seed: int, *, click_model: str = "position_based") -> Self:
        """Return the simulator of a world that is there already, whose people come as `rhythm` says."""
        simulator = cls.__new__(cls)
        simulator._fill(world, rhythm, seed, click_model)  # noqa: SLF001 - of its own class
        return simulator

    def _fill(self, world: World, rhythm: Rhythm, seed: int, click_model: str) -> None:
        if click_model not in CLICK_MODELS:
            raise ConfigError(f"there is no click model {click_model!r}", hint=f"there are {', '.join(CLICK_MODELS)}")
        self.world, self._rhythm, self._click_model = world, rhythm, CLICK_MODELS[click_model]
        self._visit_rng, browsing_rng, self._rng = (
            np.random.default_rng([seed, part]) for part in (_VISITS, _BROWSING, _AFTERWARDS)
        )
        self._organic = OrganicPolicy(world, seed + _ORGANIC)
        self._browsing = Browsing(world, self._click_model, rhythm.gaps_seconds, browsing_rng)
        self._n_visits, self._n_requests, self._now = 0, 0, world.start

    def simulate_period(
        self, recommend: Recommend | None = None, *, n_days: float = 30.0, k: int = SLATE
    ) -> Clickstream:
        """Return the clickstream of the next `n_days`; the first period begins with the world.

        Args:
            recommend: who decides what is shown; without it what a shop shows that has no engine.
            n_days: how long.
            k: items a page.

        Raises:
            ConfigError: if there are no days or no items.
            DataError: if an answer of `recommend` is none.
        """
        if not n_days > 0 or k < 1:
            raise ConfigError(f"{n_days} days with {k} items a page: both are above 0")
        return self._played(self.next_visits(n_days), recommend, k)

    def next_visits(self, n_days: float) -> Visits:
        """Return who comes within the next `n_days`, for whoever plays the pages himself; that time passes.

        Raises:
            ConfigError: if there are no days.
        """
        if not n_days > 0:
            raise ConfigError(f"{n_days} days: above 0")
        visits = self._rhythm.visits(self._now, n_days, self._visit_rng)
        self._now += round(n_days * SECONDS_A_DAY)
        return visits

    @property
    def now(self) -> int:
        """The end of what was simulated so far, in Unix seconds."""
        return self._now

    def simulate_user_session(
        self,
        user_id: ExternalId,
        recommend: Recommend | None = None,
        *,
        at: int | None = None,
        n_pages: int = 3,
        k: int = SLATE,
    ) -> Clickstream:
        """Return the clickstream of one visit.

        Args:
            user_id: who comes.
            recommend: as in `simulate_period`.
            at: Unix seconds; the end of what was simulated so far without it.
            n_pages: pages that are looked at.
            k: items a page.

        Raises:
            ConfigError: if there are no pages or no items.
            DataError: if an answer of `recommend` is none.
            NotFoundError: if there is no such user.
        """
        if n_pages < 1 or k < 1:
            raise ConfigError(f"{n_pages} pages with {k} items: both are above 0")
        found = np.flatnonzero((self.world.users["user_id"].cast(pl.String) == str(user_id)).to_numpy())
        if not len(found):
            raise NotFoundError(f"there is no user {user_id!r}", hint="it is one of the world's users")
        moments = np.array([self._now if at is None else at])
        device = self._visit_rng.integers(len(DEVICES), size=1)
        return self._played(Visits(found, moments, np.array([n_pages]), np.array([NO_LIMIT]), device), recommend, k)

    def expected_clicks(self, user_codes: LongArray, item_codes: LongArray, moments: LongArray) -> NDArray[np.float64]:
        """Return (n,) float64: how many clicks pages are worth, by the truth and with what people remember now.

        Args:
            user_codes: (n,) rows of the world's users; of people, for a bot looks at nothing.
            item_codes: (n, k) rows of the world's items, best place first.
            moments: (n,) Unix seconds.
        """
        return self._click_model.expected(self._browsing.attraction(user_codes, item_codes, moments))

    def best_pages(self, user_codes: LongArray, moments: LongArray, k: int = SLATE) -> LongArray:
        """Return (n, k) int64: the pages that are worth most to users (n,), with what they remember now."""
        return OraclePolicy(self.world)(self.asked(user_codes, moments, k)).item_codes

    def asked(self, user_codes: LongArray, moments: LongArray, k: int = SLATE) -> Asked:
        """Return what a policy is asked when these users (n,) want pages of k items, the first of their visits."""
        return self._browsing.asked(user_codes, moments, np.full(len(user_codes), NOTHING), k)

    def remember(self, user_codes: IntArray | LongArray, item_codes: IntArray | LongArray) -> None:
        """Let users (n,) have clicked items (n,) before."""
        self._browsing.met[user_codes, item_codes] = True

    def react(self, user_code: int, item_codes: LongArray, moment: int) -> list[tuple[int, str]]:
        """Return what a user does with one page (k,) at a moment (Unix seconds): places on it, and events in order."""
        users, page, moments = np.array([user_code]), item_codes[None, :], np.array([moment])
        attraction = self._browsing.attraction(users, page, moments)[0]
        places = np.flatnonzero(self._browsing.react(users, page, moments)[0])
        is_in_cart, is_bought = _conversions(attraction[places], self._rng)
        return [
            (int(place), event)
            for place, *also in zip(places, is_in_cart, is_bought, strict=True)
            for event, happens in zip(STAGES, (True, *also), strict=True)
            if happens
        ]

    def _played(self, visits: Visits, recommend: Recommend | None, k: int) -> Clickstream:
        pages = self._browsing.play(visits, recommend or self._organic, k)
        impressions = _impressions(pages, visits, self.world, self._n_requests, self._n_visits)
        interactions = _interactions(impressions, self._rng)
        self._n_requests += len(pages.visits)
        self._n_visits += len(visits)
        order = ("user_id", "timestamp", "session_id")
        return Clickstream(
            interactions=interactions.sort(*order, maintain_order=True),
            users=self.world.users,
            items=self.world.items,
            impressions=impressions.drop("attraction", "clicked_at", "device").sort(*order, "position"),
            truth=self.world,
        )


def demo_frames(
    seed: int = 0, n_users: int = 2_000, n_items: int = 1_000, n_interactions: int = 150_000
) -> Clickstream:
    """Return a simulated half year of a shop; the same seed gives the same frames, to the bit.

    A user sees pages of ten items that fit his taste, the last item he clicked and popularity; he examines a position
    with probability 1 / position ** 0.6 and clicks what he examines as it attracts him. Some clicks go on to the cart
    and some of those to a purchase. Tastes drift, items and users arrive over time, some users leave, one in two
    hundred is a bot, activity and popularity have long tails.

    Args:
        seed: of everything.
        n_users: shoppers.
        n_items: items in the catalogue.
        n_interactions: clicks, carts and purchases together, within about a tenth; fewer where a small catalogue runs
            out of what people like.
    """
    return demo_simulator(seed, n_users, n_items, n_interactions).simulate_period(n_days=N_DAYS)


def demo_simulator(
    seed: int = 0, n_users: int = 2_000, n_items: int = 1_000, n_interactions: int = 150_000
) -> ClickstreamSimulator:
    """Return the demo shop before its first day; its first half year is `demo_frames`."""
    rng = np.random.default_rng(seed)
    catalogue = make_catalogue(rng, n_items, START, N_DAYS)
    hidden = HiddenItems(catalogue.vectors, catalogue.kind_vectors, catalogue.log_popularity)
    world = make_world(_shoppers(rng, n_users), catalogue.items, hidden, rng)
    stays = np.minimum(world.left_day, N_DAYS) - world.joined_day
    visits_a_day = n_interactions / INTERACTIONS_A_VISIT / float(stays.sum())
    return ClickstreamSimulator.in_world(world, shop_rhythm(world, rng, visits_a_day=visits_a_day), seed)


def _shoppers(rng: np.random.Generator, n_users: int) -> pl.DataFrame:
    is_early = rng.random(n_users) < SHARE_OF_FIRST_DAY
    joined_day = np.where(is_early, 0.0, rng.uniform(0, 0.95 * N_DAYS, n_users))
    ages = ["18-24", "25-34", "35-49", "50-64", "65+"]
    return pl.DataFrame(
        {
            "user_id": np.arange(1, n_users + 1),
            "age_group": rng.choice(ages, n_users, p=[0.15, 0.3, 0.3, 0.17, 0.08]),
            "country": rng.choice(["DE", "FR", "GB", "NL", "US"], n_users, p=[0.3, 0.2, 0.2, 0.1, 0.2]),
            "device": rng.choice(DEVICES, n_users, p=[0.6, 0.32, 0.08]),
            "joined": (START + joined_day * SECONDS_A_DAY).astype(np.int64),
        }
    )


def _impressions(pages: Pages, visits: Visits, world: World, n_requests: int, n_visits: int) -> pl.DataFrame:
    """Return one row an item that was shown; ids of requests and sessions go on after those of earlier periods."""
    n, k = pages.item_codes.shape
    shown = pages.item_codes.ravel() != NOTHING
    of_page = np.repeat(np.arange(n), k)[shown]
    of_visit = pages.visits[of_page]
    return pl.DataFrame(
        {
            "request_id": n_requests + of_page,
            "session_id": n_visits + of_visit,
            "user_id": world.users["user_id"].gather(visits.user_codes[of_visit]),
            "timestamp": pages.shown_at[of_page],
            "item_id": world.items["item_id"].gather(pages.item_codes.ravel()[shown]),
            "position": np.tile(np.arange(1, k + 1), n)[shown],
            "propensity": pages.propensities.ravel()[shown],
            "clicked": pages.clicked.ravel()[shown],
            "attraction": pages.attraction.ravel()[shown],
            "clicked_at": pages.clicked_at.ravel()[shown],
            "device": pl.Series(DEVICES).gather(visits.devices[of_visit]),
        }
    )


def _interactions(impressions: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Return the clicks, some of them followed by a cart and a purchase: the more attractive, the more and longer."""
    clicks = impressions.filter("clicked").with_columns(timestamp=pl.col("clicked_at"))
    attraction = clicks["attraction"].to_numpy()
    seconds = DWELL_SECONDS * np.exp(attraction + DWELL_SPREAD * rng.standard_normal(clicks.height))
    is_in_cart, is_bought = _conversions(attraction, rng)
    clicks = clicks.with_columns(dwell_seconds=pl.Series(seconds).round(1))
    later = clicks.with_columns(dwell_seconds=pl.lit(None, dtype=pl.Float64))
    rows_of_stage = (clicks, later.filter(is_in_cart), later.filter(is_bought))
    table = pl.concat(
        rows.with_columns(event=pl.lit(event), timestamp=pl.col("timestamp") + SECONDS_A_STAGE * number)
        for number, (event, rows) in enumerate(zip(STAGES, rows_of_stage, strict=True))
    )
    columns = ["user_id", "item_id", "timestamp", "event", "session_id", "position", "device", "request_id"]
    return table.select(*columns, "dwell_seconds")


def _conversions(attraction: FloatArray, rng: np.random.Generator) -> tuple[BoolArray, BoolArray]:
    """Return for clicks (n,) of some attraction which of them go on to the cart, and which of those to a purchase."""
    is_in_cart = rng.random(len(attraction)) < CART_OF_ATTRACTION * attraction
    return is_in_cart, is_in_cart & (rng.random(len(attraction)) < PURCHASE_OF_CART)
