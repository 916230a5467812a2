"""What users were shown, as of now: read from the log once an hour for each user who comes."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import ExternalId
from rec_engine.data.events import EventStore, News
from rec_engine.data.showings import KEPT_SECONDS, NOTHING_SHOWN, SETTLING_SECONDS, Showings
from rec_engine.data.shown_rows import placed

MAX_USERS = 10_000
"""Users whose showings are kept in memory; those of others are read again when they come."""
MAX_ITEMS = 100_000
"""Items whose codes are at hand: to find one costs ten times as much as all else that is done with an impression."""
MAX_ROWS = 5_000_000
"""Of all users together: some 80 MB."""
MAX_ANSWERS = 1_000
"""The latest answers of one user that are read: eleven a day. Of whoever gets more, training knows more."""
COMPLETE_SECONDS = SETTLING_SECONDS - 60
"""How long what was read holds all that has settled: an answer is in the log within the minute."""


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
        self._n_rows = 0
        self._codes: dict[ExternalId, int] = {}

    def follow(self, news: News) -> None:
        """Forget what the log has forgotten."""
        if news.erased:
            self._users.clear()
            self._n_rows = 0

    def of_user(self, user_id: ExternalId, now: int) -> Showings:
        """Return what a user was shown, complete as far as it has settled at `now` (Unix seconds).

        Raises:
            StoreError: if the log cannot be read.
        """
        name = str(user_id)
        known = self._users.get(name)
        if known is None or not 0 <= now - known.at <= COMPLETE_SECONDS:
            known = _Read(self._read(name, now), now)
            self._keep(name, known)
        self._users.move_to_end(name)
        return known.showings

    def kept(self, user_id: ExternalId) -> Showings:
        """Return what was last read of a user, whatever has come since; nothing where that is forgotten."""
        known = self._users.get(str(user_id))
        return known.showings if known else NOTHING_SHOWN

    def _keep(self, name: str, read: _Read) -> None:
        """Let go of those who came least lately, as far as there is no room for them."""
        if former := self._users.pop(name, None):
            self._n_rows -= len(former.showings)
        self._users[name] = read
        self._n_rows += len(read.showings)
        while len(self._users) > 1 and (len(self._users) > MAX_USERS or self._n_rows > MAX_ROWS):
            self._n_rows -= len(self._users.popitem(last=False)[1].showings)

    def _read(self, name: str, now: int) -> Showings:
        items, positions, times = list[int](), list[int](), list[int]()
        for timestamp, shown in self._store.shown_to(name, now - KEPT_SECONDS, now, MAX_ANSWERS):
            for item_id, position in placed(shown):
                items.append(self._code(item_id))
                positions.append(position)
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
