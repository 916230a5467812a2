"""Visits played page by page: all people of one moment at once, so that a million impressions take seconds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from rec_engine.data.click_models import ClickModel
from rec_engine.data.dataset import BoolArray, FloatArray, LongArray
from rec_engine.data.simulated_policies import Asked, Recommend, Shown
from rec_engine.data.simulated_visits import Visits
from rec_engine.data.simulated_world import NOTHING, SECONDS_A_DAY, World
from rec_engine.errors import DataError

MAX_CELLS = 4_000_000
"""Users times items that are looked at together: bounds memory, and matrices stay in the cache."""
SECONDS_A_PAGE = 10
"""What people spend on a page that they leave without a click."""
BOT_CLICKS = 0.25
"""Share of what it is shown that a bot clicks, wherever it stands."""
CLICKED_AGAIN = 0.2
"""How much of its attraction an item keeps for whoever has clicked it before."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages that were shown, in the order in which they were played.

    Attributes:
        visits: (n,) int64, row of the visit.
        numbers: (n,) int64, of the page within the visit, from 0.
        shown_at: (n,) int64, Unix seconds.
        item_codes: (n, k) int64, NOTHING behind the last item of a shorter page.
        propensities: (n, k) float32.
        attraction: (n, k) float32, the truth.
        clicked: (n, k) bool.
        clicked_at: (n, k) int64, Unix seconds; meaningless where nothing was clicked.
    """

    visits: LongArray
    numbers: LongArray
    shown_at: LongArray
    item_codes: LongArray
    propensities: FloatArray
    attraction: FloatArray
    clicked: BoolArray
    clicked_at: LongArray


class Browsing:
    """The people of a world, with what they remember.

    Args:
        world: the truth.
        click_model: how they look at a page.
        gaps_seconds: how long n of them look before they click, drawn.
        rng: of what they do.

    Attributes:
        met: (n_users, n_items) bool, what they have clicked.
        item_clicks: (n_items,) int64, clicks of everybody so far.
    """

    def __init__(
        self,
        world: World,
        click_model: ClickModel,
        gaps_seconds: Callable[[int, np.random.Generator], LongArray],
        rng: np.random.Generator,
    ) -> None:
        self._world, self._click_model, self._gaps_seconds, self._rng = world, click_model, gaps_seconds, rng
        n_users, n_items = world.users.height, world.items.height
        self.met: BoolArray = np.zeros((n_users, n_items), dtype=np.bool_)
        self.item_clicks: LongArray = np.zeros(n_items, dtype=np.int64)

    def attraction(self, user_codes: LongArray, item_codes: LongArray, moments: LongArray) -> FloatArray:
        """Return (n, k) float32: the attraction of pages (n, k) to users who remember what they have clicked."""
        first_time = self._world.attraction(user_codes, item_codes, moments)
        again = self.met[user_codes[:, None], item_codes]
        return np.where(again, np.float32(CLICKED_AGAIN) * first_time, first_time)

    def play(self, visits: Visits, recommend: Recommend, k: int, *, wave_seconds: int = SECONDS_A_DAY) -> Pages:
        """Return the pages of these visits: day by day, and within a day every user's first visit before his second.

        Args:
            visits: in the order of their beginnings.
            recommend: who decides what is shown.
            k: items a page.
            wave_seconds: more than a day where the policy does not learn from what others do: fewer, larger steps.

        Raises:
            DataError: if an answer is none.
        """
        rows = max(1, MAX_CELLS // self._world.items.height)
        pages = [
            page
            for wave in _waves(visits, wave_seconds)
            for first in range(0, len(wave), rows)
            for page in self._together(visits, wave[first : first + rows], recommend, k)
        ]
        return _joined(pages, k)

    def _together(self, visits: Visits, rows: LongArray, recommend: Recommend, k: int) -> Iterator[Pages]:
        """Yield the pages of visits by distinct users, everybody's first, then everybody's second, and so on."""
        clock, n_clicks = visits.moments[rows], np.zeros(len(rows), dtype=np.int64)
        recent = np.full(len(rows), NOTHING)
        seen = np.zeros((len(rows), self._world.items.height), dtype=np.bool_)
        for number in range(int(visits.n_pages[rows].max())):
            on = np.flatnonzero((visits.n_pages[rows] > number) & (n_clicks < visits.max_clicks[rows]))
            if not len(on):
                return
            of = rows[on]
            users = visits.user_codes[of]
            asked = self.asked(users, clock[on], recent[on], k)
            asked.eligible[seen[on]] = False
            page = self._look(
                of, number, asked, _checked(recommend(asked), asked), visits.max_clicks[of] - n_clicks[on]
            )
            self._remember(users, page.item_codes, page.clicked)
            places, columns = np.nonzero(page.item_codes != NOTHING)
            seen[on[places], page.item_codes[places, columns]] = True
            n_clicks[on] += page.clicked.sum(axis=1)
            has_clicked = page.clicked.any(axis=1)
            clock[on] = np.where(has_clicked, page.clicked_at.max(axis=1), page.shown_at + SECONDS_A_PAGE)
            latest = page.item_codes[np.arange(len(on)), k - 1 - page.clicked[:, ::-1].argmax(axis=1)]
            recent[on] = np.where(has_clicked, latest, recent[on])
            yield page

    def asked(self, users: LongArray, moments: LongArray, recent: LongArray, k: int) -> Asked:
        """Return what a policy is asked when these users (n,) want pages at these moments (n,)."""
        released = self._world.released_day <= self._world.days(moments)[:, None]
        return Asked(users, moments, k, recent, released & ~self.met[users], self.item_clicks.copy())

    def react(self, users: LongArray, item_codes: LongArray, moments: LongArray) -> BoolArray:
        """Return (n, k) bool: what distinct users (n,) click of pages (n, k), and let them remember it."""
        clicked = self._clicks(users, item_codes, self.attraction(users, item_codes, moments))
        self._remember(users, item_codes, clicked)
        return clicked

    def _look(self, of: LongArray, number: int, asked: Asked, shown: Shown, left: LongArray) -> Pages:
        attraction = self.attraction(asked.user_codes, shown.item_codes, asked.moments)
        clicked = self._clicks(asked.user_codes, shown.item_codes, attraction)
        clicked &= np.cumsum(clicked, axis=1) <= left[:, None]
        gaps = np.zeros(clicked.shape, dtype=np.int64)
        gaps[clicked] = self._gaps_seconds(int(clicked.sum()), self._rng)
        propensities = np.ones(clicked.shape, dtype=np.float32) if shown.propensities is None else shown.propensities
        return Pages(
            visits=of,
            numbers=np.full(len(of), number),
            shown_at=asked.moments,
            item_codes=shown.item_codes,
            propensities=propensities,
            attraction=attraction,
            clicked=clicked,
            clicked_at=asked.moments[:, None] + np.cumsum(gaps, axis=1),
        )

    def _clicks(self, users: LongArray, item_codes: LongArray, attraction: FloatArray) -> BoolArray:
        clicked = self._click_model.clicks(attraction, self._rng)
        is_bot = self._world.is_bot[users]
        if is_bot.any():
            clicked[is_bot] = self._rng.random((int(is_bot.sum()), item_codes.shape[1])) < BOT_CLICKS
        clicked[item_codes == NOTHING] = False
        return clicked

    def _remember(self, users: LongArray, item_codes: LongArray, clicked: BoolArray) -> None:
        rows, places = np.nonzero(clicked)
        taken = item_codes[rows, places]
        self.met[users[rows], taken] = True
        np.add.at(self.item_clicks, taken, 1)


def _waves(visits: Visits, wave_seconds: int) -> list[LongArray]:
    """Return rows of visits: a day's, in waves in which nobody comes twice."""
    days = visits.moments // wave_seconds
    order = np.lexsort((np.arange(len(days)), visits.user_codes, days))
    day, user = days[order], visits.user_codes[order]
    is_first = np.ones(len(order), dtype=np.bool_)
    is_first[1:] = (day[1:] != day[:-1]) | (user[1:] != user[:-1])
    starts = np.flatnonzero(is_first)
    turns = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    in_waves = np.lexsort((turns, day))
    day, turns = day[in_waves], turns[in_waves]
    ends = np.flatnonzero((day[1:] != day[:-1]) | (turns[1:] != turns[:-1])) + 1
    return [wave for wave in np.split(order[in_waves], ends) if len(wave)]


def _checked(shown: Shown, asked: Asked) -> Shown:
    """Return an answer if it is one."""
    wanted, n_items = (len(asked.user_codes), asked.k), len(asked.item_clicks)
    items = np.asarray(shown.item_codes)
    if items.shape != wanted or not np.issubdtype(items.dtype, np.integer):
        raise DataError(
            f"the policy answered {items.dtype} of shape {items.shape}, not integers of shape {wanted}",
            hint=f"fill up shorter pages with {NOTHING}",
        )
    if items.size and not (items.min() >= NOTHING and items.max() < n_items):
        raise DataError(
            f"the policy answered items {items.min()} to {items.max()}",
            hint=f"codes are rows of the items, 0 to {n_items - 1:,}",
        )
    if shown.propensities is not None and np.shape(shown.propensities) != wanted:
        raise DataError(f"the policy's propensities have the shape {np.shape(shown.propensities)}, not {wanted}")
    return Shown(items.astype(np.int64, copy=False), shown.propensities)


def _joined(pages: list[Pages], k: int) -> Pages:
    nothing = np.empty(0, dtype=np.int64)
    flat = np.empty((0, k), dtype=np.int64)
    empty = Pages(
        nothing,
        nothing,
        nothing,
        flat,
        flat.astype(np.float32),
        flat.astype(np.float32),
        flat.astype(np.bool_),
        flat,
    )
    parts = [empty, *pages]
    return Pages(
        visits=np.concatenate([page.visits for page in parts]),
        numbers=np.concatenate([page.numbers for page in parts]),
        shown_at=np.concatenate([page.shown_at for page in parts]),
        item_codes=np.concatenate([page.item_codes for page in parts]),
        propensities=np.concatenate([page.propensities for page in parts]),
        attraction=np.concatenate([page.attraction for page in parts]),
        clicked=np.concatenate([page.clicked for page in parts]),
        clicked_at=np.concatenate([page.clicked_at for page in parts]),
    )
