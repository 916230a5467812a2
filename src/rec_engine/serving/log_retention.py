"""What is too old leaves the log by itself: one of all workers removes it, once a day, beside the requests."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing

from rec_engine.data.database import require_file
from rec_engine.data.experiment_log import ExperimentLog
from rec_engine.data.pruning import Kind, prune
from rec_engine.errors import RecEngineError
from rec_engine.experiments.retention import cut_off
from rec_engine.serving.metrics import Series
from rec_engine.utils.background import BackgroundLoop
from rec_engine.utils.config import StoreSettings
from rec_engine.utils.logger import get_logger

FIRST_SECONDS, POLL_SECONDS = 60.0, 3_600.0
"""When a worker asks for the first time whether it is its turn, and how often after that."""
DAY_SECONDS = 86_400
WORK = "retention"

logger = get_logger(__name__)


class LogRetention:
    """Keeps the log to the days that the settings name; what a running experiment measures stays longer.

    Args:
        url: of the log.
        settings: the `store:` section.
        clock: Unix seconds.
    """

    def __init__(self, url: str, settings: StoreSettings, clock: Callable[[], float] = time.time) -> None:
        days: dict[Kind, int | None] = {
            "events": settings.keep_events_days,
            "impressions": settings.keep_impressions_days,
        }
        self._days: dict[Kind, int] = {kind: n for kind, n in days.items() if n is not None}
        self._url = url
        self._clock = clock
        self._has_turn = False
        self._lock = threading.Lock()
        self._counted: Counter[Series] = Counter()
        self._loop = BackgroundLoop("log-retention", self._step, first_seconds=FIRST_SECONDS)

    def start(self) -> None:
        """Begin, where the settings name any days."""
        if self._days:
            self._loop.start()

    def close(self) -> None:
        """Leave the rest to whoever comes next."""
        self._loop.close()

    def take(self) -> Mapping[Series, float]:
        """Return what was removed since the last call."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        return counted

    def prune_once(self) -> bool:
        """Return whether it was this worker's turn; if so, what was too old is gone.

        Raises:
            RecEngineError: if the log cannot be read or written, or holds an experiment of a later release; it is still
                this worker's turn at the next call.
        """
        now = int(self._clock())
        require_file(self._url)
        if not self._has_turn:
            with closing(ExperimentLog(self._url)) as log:
                self._has_turn = log.take_turn(WORK, now, DAY_SECONDS)
            if not self._has_turn:
                return False
        for kind, days in self._days.items():
            self._prune(kind, days, now)
        self._has_turn = False
        return True

    def _prune(self, kind: Kind, days: int, now: int) -> None:
        started = time.monotonic()
        cut = cut_off(self._url, now - days * DAY_SECONDS, now)
        removed = prune(self._url, cut.before, [kind], is_over=lambda: self._loop.is_closed)
        n = {"events": removed.events, "impressions": removed.impressions}[kind]
        with self._lock:
            self._counted["pruned_rows_total", kind] += n
        logger.info(
            "removed %s %s of more than %d days from the log, in %.1f s%s",
            f"{n:,}",
            kind,
            days,
            time.monotonic() - started,
            f"; what {cut.held_by} measures stays" if cut.held_by else "",
        )

    def _step(self) -> float:
        try:
            self.prune_once()
        except RecEngineError as error:
            logger.warning("nothing is removed from the log: %s", error)
        return POLL_SECONDS
