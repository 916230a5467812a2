"""Item statistics that keep up: popularity, trends, ages and looks as of the latest events, beside the requests."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rec_engine.data.dataset import FloatArray, IntArray, LongArray
from rec_engine.data.events import EventStore, Row
from rec_engine.data.item_looks import ItemLooks
from rec_engine.data.live import weights_of
from rec_engine.errors import StoreError
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_looks import LiveLooks
from rec_engine.utils.background import BackgroundLoop
from rec_engine.utils.config import DataSettings
from rec_engine.utils.logger import get_logger

REFRESH_SECONDS = 10.0
REST_SHARE = 20
"""Refreshing takes at most one part in so many of a core's time, however much there is to count."""
MAX_EVENTS = 2_000_000
"""Latest events that count beside what the model was trained with: 40 MB of codes, times and who it was."""
MAX_UNKNOWN = 100_000
"""Latest events of items that nobody knows yet, kept until somebody does; a restart counts the others too."""
MET = 0

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
        self._meetings: LongArray = np.empty(0, dtype=np.int64)
        self._unknown: deque[tuple[str, str, int]] = deque(maxlen=MAX_UNKNOWN)
        self._n_items = live.catalogue.n_items
        ranker, is_own_log = live.bundle.ranker, live.bundle.manifest.log_id == store.log_id
        self._looks: LiveLooks | None = None
        if ranker and ranker.reads_looks:
            self._looks = LiveLooks(live.knowledge.looks, live.catalogue, store, is_own_log=is_own_log)
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
                met.append(self._known(_liked(rows, self._live.bundle.config.data)))
                self._position = until
        finally:
            self._add(met)  # what was read is not read again
        looks = self._looked_at()
        if not self._is_behind:
            return False
        timeline = self._trained.timeline.then(self._codes, self._times)
        popularity = self._trained.popularity + self._new_users(timeline.n_items)
        self._live.exchange(replace(self._trained, popularity=popularity, timeline=timeline, looks=looks))
        self._is_behind = False
        return True

    def _looked_at(self) -> ItemLooks:
        """Return how often people looked at the items, as far as the ranker asks."""
        if self._looks is None:
            return self._trained.looks
        while not self._loop.is_closed and self._looks.follow():
            pass
        self._is_behind |= self._looks.count()
        return self._looks.looks

    def _count_what_waited(self) -> None:
        """Count events that were kept because nobody knew their items, as far as somebody does by now."""
        n_items = self._live.catalogue.n_items
        if n_items == self._n_items:
            return
        self._n_items = n_items
        waited = list(self._unknown)
        self._unknown.clear()
        self._add([self._known(waited)])

    def _known(self, liked: Sequence[tuple[str, str, int]]) -> "_Met":
        """Return what was met of the items that are known, of user, item and time; the rest waits until it is."""
        codes = self._live.catalogue.codes_of_many([item_id for _, item_id, _ in liked])
        self._unknown.extend(liked[place] for place in np.flatnonzero(codes < 0).tolist())
        known = np.flatnonzero(codes >= 0)
        users = [liked[place][0] for place in known.tolist()]
        times = np.array([liked[place][2] for place in known.tolist()], dtype=np.int64)
        return codes[known], times, self._numbered(users, codes[known])

    def _numbered(self, users: Sequence[str], codes: IntArray) -> LongArray:
        """Return (n,) int64: a number for each user and item that met; MET where the model was trained with it."""
        past = self._live.bundle.history
        meetings = np.array([hash(pair) or 1 for pair in zip(users, codes.tolist(), strict=True)], dtype=np.int64)
        user_codes = self._live.bundle.user_ids.codes(users)
        for place in np.flatnonzero(user_codes >= 0).tolist():
            rows = slice(past.starts[user_codes[place]], past.starts[user_codes[place] + 1])
            if ((past.item_codes[rows] == codes[place]) & (past.weights[rows] > 0)).any():
                meetings[place] = MET
        return meetings

    def _new_users(self, n_items: int) -> FloatArray:
        """Return (n_items,) float32: how many users met each item that had not met it before."""
        meetings, places = np.unique(self._meetings, return_index=True)
        return np.bincount(self._codes[places[meetings != MET]], minlength=n_items).astype(np.float32)

    def _add(self, met: Sequence["_Met"]) -> None:
        codes, times, meetings = zip((self._codes, self._times, self._meetings), *met, strict=True)
        self._is_behind |= sum(map(len, codes)) > len(self._codes)
        self._codes = np.concatenate(codes)[-MAX_EVENTS:]
        self._times = np.concatenate(times)[-MAX_EVENTS:]
        self._meetings = np.concatenate(meetings)[-MAX_EVENTS:]

    def _step(self) -> float:
        started = time.monotonic()
        try:
            self.refresh()
        except StoreError as error:
            logger.warning("item statistics stay as they are: %s", error)
        return max(REFRESH_SECONDS, REST_SHARE * (time.monotonic() - started))


_Met = tuple[IntArray, LongArray, LongArray]
"""(n,) item codes, (n,) Unix seconds and (n,) numbers of who met what."""


def _liked(rows: Sequence[Row], settings: DataSettings) -> list[tuple[str, str, int]]:
    """Return user, item and Unix seconds of those events (user, item, type, value, time) that speak for their items."""
    weights = weights_of([row[2] for row in rows], [row[3] for row in rows], settings)
    return [(rows[place][0], rows[place][1], rows[place][4]) for place in np.flatnonzero(weights > 0).tolist()]
