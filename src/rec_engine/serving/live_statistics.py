"""Item statistics that keep up: popularity, trends and ages as of the latest events, worked out beside the requests."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rec_engine.data.dataset import IntArray, LongArray
from rec_engine.data.events import EventStore, Row
from rec_engine.data.live import weights_of
from rec_engine.errors import StoreError
from rec_engine.serving.live import LiveModel
from rec_engine.utils.background import BackgroundLoop
from rec_engine.utils.config import DataSettings
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
        self._is_behind = False  # what was counted and answers do not go by yet
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
        self._count_what_waited()
        met = list[_Met]()
        try:
            while not self._loop.is_closed:
                until, rows = self._store.met_after(self._position)
                if until == self._position:
                    break
                met.append(self._known(*_liked(rows, self._live.bundle.config.data)))
                self._position = until
        finally:
            self._add(met)  # what was read is not read again
        if not self._is_behind:
            return False
        timeline = self._trained.timeline.then(self._codes, self._times)
        n_met = np.bincount(self._codes, minlength=timeline.n_items).astype(np.float32)
        knowledge = replace(self._trained, popularity=self._trained.popularity + n_met, timeline=timeline)
        self._live.exchange(knowledge)
        self._is_behind = False
        return True

    def _count_what_waited(self) -> None:
        """Count events that were kept because nobody knew their items, as far as somebody does by now."""
        n_items = self._live.catalogue.n_items
        if n_items == self._n_items:
            return
        self._n_items = n_items
        waited = list(self._unknown)
        self._unknown.clear()
        self._add([self._known([name for name, _ in waited], np.array([at for _, at in waited], dtype=np.int64))])

    def _known(self, item_ids: Sequence[str], times: LongArray) -> "_Met":
        """Return what was met of the items that are known; the rest waits until it is."""
        codes = self._live.catalogue.codes_of_many(item_ids)
        is_known = codes >= 0
        self._unknown.extend((item_ids[place], int(times[place])) for place in np.flatnonzero(~is_known).tolist())
        return codes[is_known], times[is_known]

    def _add(self, met: Sequence["_Met"]) -> None:
        self._is_behind |= any(len(codes) > 0 for codes, _ in met)
        self._codes = np.concatenate([self._codes, *(codes for codes, _ in met)])[-MAX_EVENTS:]
        self._times = np.concatenate([self._times, *(times for _, times in met)])[-MAX_EVENTS:]

    def _step(self) -> float:
        started = time.monotonic()
        try:
            self.refresh()
        except StoreError as error:
            logger.warning("item statistics stay as they are: %s", error)
        return max(REFRESH_SECONDS, REST_SHARE * (time.monotonic() - started))


_Met = tuple[IntArray, LongArray]
"""(n,) item codes and (n,) Unix seconds."""


def _liked(rows: Sequence[Row], settings: DataSettings) -> tuple[list[str], LongArray]:
    """Return item id and Unix seconds of those events (item id, type, value, time) that speak for their items."""
    if not rows:
        return [], np.empty(0, dtype=np.int64)
    item_ids, events, values, times = zip(*rows, strict=True)
    weights = weights_of(events, values, settings)
    liked = np.flatnonzero(weights > 0)
    return [item_ids[place] for place in liked.tolist()], np.array(times, dtype=np.int64)[liked]
