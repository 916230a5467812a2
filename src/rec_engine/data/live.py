"""Histories as of now: what a model was trained with, and what the log holds since."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rec_engine.data.dataset import (
    ExternalId,
    FloatArray,
    IdMap,
    IntArray,
    Interactions,
    LongArray,
    event_place,
    event_weights,
)
from rec_engine.data.events import Event, EventStore, News, user_hash
from rec_engine.data.state import COLD, UserState, state_of
from rec_engine.utils.config import DataSettings

MAX_USERS = 50_000
"""Users whose latest events are kept in memory; those of others are read again when they come."""


@dataclass(frozen=True, slots=True)
class LiveUser:
    """One user at one position of the log.

    Attributes:
        user_code: COLD for one whom the model does not know, or who was erased.
        item_codes: (n,) int32, in time order.
        weights: (n,) float32.
        timestamps: (n,) int64, Unix seconds.
        version: grows with each of his events, and when his answers are to be made anew; 0 where the log has nothing.
    """

    user_code: int
    item_codes: IntArray
    weights: FloatArray
    timestamps: LongArray
    version: int

    def at(self, now: int) -> UserState:
        """Return the state of the user, asking at `now` (Unix seconds)."""
        return UserState(self.user_code, self.item_codes, self.weights, self.timestamps, now)


class LiveHistories:
    """Users as the log has them.

    Args:
        base: what the model was trained with.
        user_ids: of the base.
        code_of: item id to code, -1 for items that nobody knows.
        settings: the `data:` section of the model: what events weigh.
        store: the log.
        since: position of the log at which the base was made; later events come on top of it.
    """

    def __init__(  # noqa: PLR0913 - what the model knows, and what came after it
        self,
        base: Interactions,
        user_ids: IdMap,
        code_of: Callable[[str], int],
        *,
        settings: DataSettings,
        store: EventStore,
        since: int,
    ) -> None:
        self._base = base
        self._user_ids = user_ids
        self._code_of = code_of
        self._settings = settings
        self._store = store
        self._since = since
        self._erased: dict[str, int] = {}
        self._touched: dict[str, int] = {}
        self._users: OrderedDict[str, LiveUser] = OrderedDict()

    @property
    def n_kept(self) -> int:
        """Users in memory."""
        return len(self._users)

    def follow(self, news: News) -> None:
        """Forget what is no longer true: the next question is answered from the log."""
        for event in news.events:
            self._users.pop(event.user_id, None)
        if news.items:
            self._users.clear()  # events of items that nobody knew may count from now on
        if news.erased or news.touched:
            self._erased |= news.erased
            self._touched |= news.touched
            self._users.clear()

    def forget(self) -> None:
        """Forget all users: whoever comes is read from the log again."""
        self._users.clear()

    def user(self, user_id: ExternalId) -> LiveUser:
        """Return a user, as all his events that were written have made him.

        Raises:
            StoreError: if the log cannot be read.
        """
        name = str(user_id)
        known = self._users.get(name)
        if known is None:
            known = self._users[name] = self._read(name)
            if len(self._users) > MAX_USERS:
                self._users.popitem(last=False)
        else:
            self._users.move_to_end(name)
        return known

    def base_user(self, user_id: ExternalId) -> LiveUser:
        """Return a user as the model was trained with him: what there is without the log."""
        return self._merged(self._base_code(str(user_id)), [], 0)

    def _read(self, name: str) -> LiveUser:
        events = self._store.events_of(name, self._since)
        hashed = user_hash(name) if self._erased or self._touched else ""
        marked = self._erased.get(hashed, 0), self._touched.get(hashed, 0)
        version = max([*marked, *(event.position for event in events)])
        return self._merged(self._base_code(name), events, version)

    def _base_code(self, name: str) -> int:
        is_erased = bool(self._erased) and self._erased.get(user_hash(name), 0) > self._since
        return COLD if is_erased else self._user_ids.code(name)

    def _merged(self, user_code: int, events: list[Event], version: int) -> LiveUser:
        base = state_of(self._base, user_code, 0)
        if not events:
            return LiveUser(user_code, base.item_codes, base.weights, base.timestamps, version)
        codes, weights, times = event_arrays(events, self._code_of, self._settings)
        timestamps = np.concatenate([base.timestamps, times])
        order = np.argsort(timestamps, kind="stable")  # late events go where they belong
        return LiveUser(
            user_code=user_code,
            item_codes=np.concatenate([base.item_codes, codes])[order],
            weights=np.concatenate([base.weights, weights])[order],
            timestamps=timestamps[order],
            version=version,
        )


def event_arrays(
    events: Sequence[Event], code_of: Callable[[str], int], settings: DataSettings
) -> tuple[IntArray, FloatArray, LongArray]:
    """Return code, weight and Unix seconds of the events whose items and types are known, each (n,), in their order."""
    codes = np.array([code_of(event.item_id) for event in events], dtype=np.int32)
    weights = weights_of([event.event for event in events], [event.value for event in events], settings)
    times = np.array([event.timestamp for event in events], dtype=np.int64)
    known = (codes >= 0) & ~np.isnan(weights)
    return codes[known], weights[known], times[known]


def weights_of(events: Sequence[str], values: Sequence[float | None], settings: DataSettings) -> FloatArray:
    """Return (n,) float32, the weights of events by their types and values; nan for a type that nobody knows here."""
    places = np.array([event_place(event) for event in events], dtype=np.uint8)
    return event_weights(places, np.array(values, dtype=np.float32), settings)  # None is nan
