"""Item statistics that keep up: popularity, trends and ages as of the latest events, worked out beside the requests."""

import threading
import time
from dataclasses import replace

import numpy as np

from rec_engine.data.dataset import IntArray, LongArray
from rec_engine.data.events import Event, EventStore
from rec_engine.data.live import event_arrays
from rec_engine.errors import StoreError
from rec_engine.serving.live import LiveModel
from rec_engine.utils.logger import get_logger

REFRESH_SECONDS = 10.0
REST_SHARE = 20
"""Refreshing takes at most one part in so many of a core's time, however much there is to count."""
MAX_EVENTS = 2_000_000
"""Latest events that count beside what the model was trained with: 24 MB of codes and times."""

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
        self._position = live.bundle.manifest.log_position
        self._codes: IntArray = np.empty(0, dtype=np.int32)
        self._times: LongArray = np.empty(0, dtype=np.int64)
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-statistics", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._is_closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def refresh(self) -> bool:
        """Return whether there was anything new; if so the model's next answers go by it.

        Raises:
            StoreError: if the log cannot be read.
        """
        n_before = self._position
        while not self._is_closed.is_set() and (news := self._store.news(self._position)).position > self._position:
            self._count(news.events)
            self._position = news.position
        if self._position == n_before or not len(self._codes):
            return False
        timeline = self._trained.timeline.then(self._codes, self._times)
        met = np.bincount(self._codes, minlength=timeline.n_items).astype(np.float32)
        knowledge = replace(self._trained, popularity=self._trained.popularity + met, timeline=timeline)
        self._live.exchange(knowledge)
        return True

    def _count(self, events: tuple[Event, ...]) -> None:
        codes, weights, times = event_arrays(events, self._live.catalogue.code, self._live.bundle.config.data)
        self._codes = np.concatenate([self._codes, codes[weights > 0]])[-MAX_EVENTS:]
        self._times = np.concatenate([self._times, times[weights > 0]])[-MAX_EVENTS:]

    def _run(self) -> None:
        wait_seconds = 0.0
        while not self._is_closed.wait(wait_seconds):
            started = time.monotonic()
            try:
                self.refresh()
            except StoreError as error:
                logger.warning("item statistics stay as they are: %s", error)
            wait_seconds = max(REFRESH_SECONDS, REST_SHARE * (time.monotonic() - started))
