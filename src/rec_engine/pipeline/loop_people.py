"""The people of the closed loop: they ask, look at what they are shown, click, and the truth says what it was worth."""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from rec_engine.data.clickstream_sim import ClickstreamSimulator
from rec_engine.data.dataset import BoolArray, ExternalId, LongArray
from rec_engine.data.events import Event
from rec_engine.data.simulated_policies import Asked, OraclePolicy, PopularityPolicy, RandomPolicy, Recommend
from rec_engine.data.simulated_visits import Visits
from rec_engine.data.simulated_world import NOTHING, SECONDS_A_DAY
from rec_engine.pipeline.loop_service import Answering, Page, Shop

K = 10
SECONDS_A_PAGE, SECONDS_A_REACTION = 60, 2
NEW_DAYS = 14.0
"""An item counts as new for so long after its release."""
ENGINE, ORACLE, POPULARITY, RANDOM = "engine", "oracle", "popularity", "random"
OF_NEW, OF_FIRST = "of new items", "of the first place"
"""Parts of what a page is worth."""


class People:
    """Those who come to a shop.

    Args:
        simulator: after its past.
        shop: that they come to.
        known: ids of the users who have done something in that past.
        seed: of the random pages that theirs are compared with.
    """

    def __init__(self, simulator: ClickstreamSimulator, shop: Shop, known: pl.Series, seed: int) -> None:
        world = simulator.world
        self._simulator, self._shop = simulator, shop
        self._user_ids: list[ExternalId] = world.users["user_id"].to_list()
        self._days_before = float(world.days(np.array([simulator.now]))[0])
        self._codes = {str(item): code for code, item in enumerate(world.items["item_id"].to_list())}
        self._known: set[ExternalId] = set(known.to_list())
        self._others: dict[str, Recommend] = {
            ORACLE: OraclePolicy(world),
            POPULARITY: PopularityPolicy(),
            RANDOM: RandomPolicy(seed),
        }

    def visit(self, model: Answering, n_days: float, name: str, beside: Mapping[str, Answering]) -> pl.DataFrame:
        """Return one row an answer to a person in the next days; see `Loop.answers`.

        Args:
            model: answers them.
            n_days: how long.
            name: with which the ids of requests begin.
            beside: models that would have answered otherwise, by the column in which it says what that was worth.
        """
        visits, today, rows = self._simulator.next_visits(n_days), -1, list[dict[str, object]]()
        for number, moment in enumerate(visits.moments.tolist()):
            if moment // SECONDS_A_DAY != today:
                today = moment // SECONDS_A_DAY
                self._shop.offer(moment)
                for each in (model, *beside.values()):
                    each.refresh()
            rows += self._pages(model, visits, number, f"{name}-{number}", beside)
        return pl.DataFrame(rows)

    def _pages(
        self, model: Answering, visits: Visits, visit: int, name: str, beside: Mapping[str, Answering]
    ) -> Iterator[dict[str, object]]:
        """Yield what became of each page of a visit; nothing is shown twice in it."""
        user, moment = int(visits.user_codes[visit]), int(visits.moments[visit])
        user_id, before = self._user_ids[user], list[ExternalId]()
        for number in range(int(visits.n_pages[visit])):
            request_id, asked = f"{name}-{number}", self._asked(user, moment, before)
            page = model.answer(user_id, moment, request_id, K, before)
            others = {each: other.answer(user_id, moment, request_id, K, before) for each, other in beside.items()}
            pages = {ENGINE: self._coded(page)} | {each: self._coded(other) for each, other in others.items()}
            pages |= {each: policy(asked).item_codes[0] for each, policy in self._others.items()}
            row = self._row(asked, pages) | self._about(user, number, page)
            events = self._reactions(user, page, moment)
            self._shop.take_note(page, user_id, moment, events)
            if not self._simulator.world.is_bot[user]:
                clicked = [event.item_id for event in events if event.event == "click"]
                yield row | {
                    "clicks": len(clicked),
                    "clicks_first": sum(item == str(page.item_ids[0]) for item in clicked),
                }
            if events:
                self._known.add(user_id)
            before += page.item_ids
            moment += SECONDS_A_PAGE

    def _about(self, user: int, number: int, page: Page) -> dict[str, object]:
        """Return who asks, for which page of his visit, and who answers."""
        return {
            "user": user,
            "is_first": self._user_ids[user] not in self._known,
            "has_joined": bool(self._simulator.world.joined_day[user] > self._days_before),
            "is_first_page": number == 0,
            "request_id": page.request_id,
            "version": page.version,
        }

    def _asked(self, user: int, moment: int, before: list[ExternalId]) -> Asked:
        """Return what a policy is asked; what the visit has shown is out of the question for all of them."""
        asked = self._simulator.asked(np.array([user]), np.array([moment]), K)
        asked.eligible[0, [self._codes[str(item)] for item in before]] = False
        return asked

    def _row(self, asked: Asked, pages: Mapping[str, LongArray]) -> dict[str, object]:
        """Return what pages and their parts are worth, and how much is new of the engine's page and of all items."""
        stacked, world = np.stack(list(pages.values())), self._simulator.world
        age = world.days(asked.moments)[0] - world.released_day
        is_new = (age >= 0) & (age < NEW_DAYS)
        of_new = np.where((stacked != NOTHING) & is_new[stacked], stacked, NOTHING)
        of_first = np.where(np.arange(stacked.shape[1]) == 0, stacked, NOTHING)
        parts = np.concatenate([stacked, of_new, of_first])
        users, moments = np.repeat(asked.user_codes, len(parts)), np.repeat(asked.moments, len(parts))
        worth = self._simulator.expected_clicks(users, parts, moments).tolist()
        names = [f"{policy}{part}" for part in ("", f" {OF_NEW}", f" {OF_FIRST}") for policy in pages]
        shown = pages[ENGINE][pages[ENGINE] != NOTHING]
        new = {"new_shown": _share(is_new[shown]), "new_there": _share(is_new[asked.eligible[0]])}
        return dict(zip(names, worth, strict=True)) | new

    def _coded(self, page: Page) -> LongArray:
        codes = [self._codes[str(item)] for item in page.item_ids]
        return np.array(codes + [NOTHING] * (K - len(codes)), dtype=np.int64)

    def _reactions(self, user: int, page: Page, moment: int) -> list[Event]:
        found = self._simulator.react(user, self._coded(page), moment)
        return [
            Event(
                event_id=f"{page.request_id}-{place}-{event}",
                user_id=str(self._user_ids[user]),
                item_id=str(page.item_ids[place]),
                event=event,
                timestamp=moment + SECONDS_A_REACTION * number,
                request_id=page.request_id,
            )
            for number, (place, event) in enumerate(found, start=1)
        ]


def _share(those: BoolArray) -> float:
    return float(those.mean()) if len(those) else 0.0
