"""Item statistics that keep up: popularity, trends and ages as of the latest events, worked out beside the requests."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rec_engine.data.dataset import IntArray, LongArray
from rec_engine.data.events import Event, EventStore
from rec_engine.data.live import event_arrays
from rec_engine.errors import StoreError
from rec_engine.serving.live import LiveModel
from rec_engine.utils.background import BackgroundLoop
from rec_engine.utils.logger import get_logger

REFRESH_SECONDS = 10.0
REST_SHARE = 20
"""Refreshing takes at most one part in so many of a core's time, however much there is to count."""
MAX_EVENTS = 2_000_000
"""Latest events that count beside what the model was trained with: 24 MB of codes and times."""
MAX_UNKNOWN = 100_000
"""Latest events of items that nobody knows yet, kept until somebody does; a restart counts the others too."""

logger = get_logger(__name__)


class LiveStatistics:
    """Lets a model's statistics follow the log, by a thread of its own.

    Args:
        live: the model; its request path is exchanged when there is something new.
        store: the log.
    """

    def __init__(self, live: LiveModel, store: EventStore) -> None:
        self._live = live
        self._store = store
        self._trained = live.knowledge
        self._position = live.since
        self._codes: IntArray = np.empty(0, dtype=np.int32)
        self._times: LongArray = np.empty(0, dtype=np.int64)
        self._unknown: deque[tuple[str, int]] = deque(maxlen=MAX_UNKNOWN)
        self._n_items = live.catalogue.n_items
        self._loop = BackgroundLoop("live-statistics", self._step)

    def start(self) -> None:
        """Begin to follow."""
        self._loop.start()

    def close(self) -> None:
        """Stop following."""
        self._loop.close()

    def refresh(self) -> bool:
        """Return whether there was anything new; if so the model's next answers go by it.

        Raises:
            StoreError: if the log cannot be read.
        """
        n_before = self._position
        is_new = self._count_what_waited()
        while not self._loop.is_closed:
            until, events = self._store.events_after(self._position)
            if until == self._position:
                break
            self._count(events)
            self._position = until
        if not (is_new or self._position > n_before) or not len(self._codes):
            return False
        timeline = self._trained.timeline.then(self._codes, self._times)
        met = np.bincount(self._codes, minlength=timeline.n_items).astype(np.float32)
        knowledge = replace(self._trained, popularity=self._trained.popularity + met, timeline=timeline)
        self._live.exchange(knowledge)
        return True

    def _count(self, events: Sequence[Event]) -> None:
        _, weights, times = event_arrays(events, lambda _: 0, self._live.bundle.config.data)
        is_liked = weights > 0
        liked = [event.item_id for event, counts in zip(events, is_liked.tolist(), strict=True) if counts]
        self._add(liked, times[is_liked])

    def _count_what_waited(self) -> bool:
        """Return whether items have become known of which events had been kept; these are counted now."""
        n_items = self._live.catalogue.n_items
        if n_items == self._n_items:
            return False
        self._n_items = n_items
        waited = list(self._unknown)
        self._unknown.clear()
        return self._add([item_id for item_id, _ in waited], np.array([at for _, at in waited], dtype=np.int64))

    def _add(self, item_ids: Sequence[str], times: LongArray) -> bool:
        """Return whether any of these items is known; what is not waits until it is."""
        codes = np.array([self._live.catalogue.code(item_id) for item_id in item_ids], dtype=np.int32)
        is_known = codes >= 0
        self._codes = np.concatenate([self._codes, codes[is_known]])[-MAX_EVENTS:]
        self._times = np.concatenate([self._times, times[is_known]])[-MAX_EVENTS:]
        self._unknown.extend((item_ids[place], int(times[place])) for place in np.flatnonzero(~is_known).tolist())
        return bool(is_known.any())

    def _step(self) -> float:
        started = time.monotonic()
        try:
            self.refresh()
        except StoreError as error:
            logger.warning("item statistics stay as they are: %s", error)
        return max(REFRESH_SECONDS, REST_SHARE * (time.monotonic() - started))
