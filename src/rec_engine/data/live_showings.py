"""What users were shown, as of now: read from the log once an hour for each user who comes."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from rec_engine.data.dataset import ExternalId
from rec_engine.data.events import EventStore, News
from rec_engine.data.showings import KEPT_SECONDS, NOTHING_SHOWN, SETTLING_SECONDS, Showings

MAX_USERS = 10_000
"""Users whose showings are kept in memory; those of others are read again when they come."""
MAX_ITEMS = 100_000
"""Items whose codes are at hand: to find one costs ten times as much as all else that is done with an impression."""
MAX_ANSWERS = 500
"""The latest answers of one user that are read; whoever gets more in KEPT_SECONDS is hardly a person."""
COMPLETE_SECONDS = SETTLING_SECONDS - 60
"""How long what was read holds all that has settled: an answer is in the log within the minute."""

_POSITION = 2
"""Of an item that was shown, after its id: score and propensity stand before."""


@dataclass(frozen=True, slots=True)
class _Read:
    showings: Showings
    at: int


class LiveShowings:
    """Showings as the log has them.

    Args:
        code_of: item id to code, -1 for items that nobody knows.
        store: the log.
    """

    def __init__(self, code_of: Callable[[str], int], store: EventStore) -> None:
        self._code_of, self._store = code_of, store
        self._users: OrderedDict[str, _Read] = OrderedDict()
        self._codes: dict[ExternalId, int] = {}

    def follow(self, news: News) -> None:
        """Forget what the log has forgotten."""
        if news.erased:
            self._users.clear()

    def of_user(self, user_id: ExternalId, now: int) -> Showings:
        """Return what a user was shown, complete as far as it has settled at `now` (Unix seconds).

        Raises:
            StoreError: if the log cannot be read.
        """
        name = str(user_id)
        known = self._users.get(name)
        if known is None or not 0 <= now - known.at <= COMPLETE_SECONDS:
            known = self._users[name] = _Read(self._read(name, now), now)
            if len(self._users) > MAX_USERS:
                self._users.popitem(last=False)
        self._users.move_to_end(name)
        return known.showings

    def kept(self, user_id: ExternalId) -> Showings:
        """Return what was last read of a user, whatever has come since; nothing where that is forgotten."""
        known = self._users.get(str(user_id))
        return known.showings if known else NOTHING_SHOWN

    def _read(self, name: str, now: int) -> Showings:
        items, positions, times = list[int](), list[int](), list[int]()
        for timestamp, shown in self._store.shown_to(name, now - KEPT_SECONDS, MAX_ANSWERS):
            for place, (item_id, *about) in enumerate(msgspec.json.decode(shown), start=1):
                items.append(self._code(item_id))
                positions.append(about[_POSITION] if len(about) > _POSITION else place)
                times.append(timestamp)
        codes, places = np.array(items, dtype=np.int32), np.array(positions, dtype=np.int32)
        return Showings.of(codes, places, np.array(times, dtype=np.int64))

    def _code(self, item_id: ExternalId) -> int:
        """Return the code of an item; one that is unknown may be there the next time."""
        code = self._codes.get(item_id, -1)
        if code < 0 and (code := self._code_of(str(item_id))) >= 0:
            if len(self._codes) >= MAX_ITEMS:
                self._codes.clear()
            self._codes[item_id] = code
        return code
