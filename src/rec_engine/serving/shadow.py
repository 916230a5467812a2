"""Shadow mode: another version answers a share of the requests as well, beside them, and the answers are compared."""

import hashlib
import queue
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rec_engine.data.events import EventStore
from rec_engine.data.impressions import CHOSEN
from rec_engine.errors import RecEngineError
from rec_engine.registry import Shadow, read_shadow
from rec_engine.serving.answers import Answerer
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.comparisons import Comparisons, Timed
from rec_engine.serving.inference import unmeasured
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.serving.opening import open_served
from rec_engine.serving.schemas import RecommendRequest
from rec_engine.serving.state_schemas import FeedbackEvent
from rec_engine.utils.background import BackgroundLoop, Retry
from rec_engine.utils.config import ServingConfig
from rec_engine.utils.logger import get_logger

POLL_SECONDS = 0.5
MAX_WAITING = 32

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """A request that was answered, and how.

    Attributes:
        request: what was asked.
        request_id: of the answer.
        now: Unix seconds of the request.
        served: the answer.
    """

    request: RecommendRequest
    request_id: str
    now: float
    served: Timed


class ShadowMode:
    """Tries the version that the registry's file `shadow` names, by a thread of its own.

    Whatever happens to that version, answers go on as they are: what it is too slow for is dropped and counted, what it
    fails to answer is counted too.

    Args:
        model_dir: the registry.
        config: of the service.
        store_url: of the log.

    Attributes:
        asked: what the registry asks for, None for nothing.
        failure: why the version that is asked for is not tried, or failed to answer; None where nothing is wrong.
        comparisons: what was found.
    """

    def __init__(self, model_dir: Path, config: ServingConfig, store_url: str) -> None:
        self.asked: Shadow | None = None
        self.failure: str | None = None
        self.comparisons = Comparisons()
        self._model_dir = model_dir
        self._config = config
        self._store_url = store_url
        self._tried: _Tried | None = None
        self._jobs: queue.Queue[Job] = queue.Queue(MAX_WAITING)
        self._retry = Retry()
        self._look_at = time.monotonic()
        self._loop = BackgroundLoop("shadow", self._step)
        self._loop.start()

    @property
    def version(self) -> str | None:
        """The version that is tried at the moment; None while there is none, or it is being made ready."""
        return self._tried.version if self._tried else None

    def wants(self, request_id: str) -> bool:
        """Return whether a request is one of those that are answered twice; the same one always is, or never."""
        asked = self.asked
        if asked is None or self._tried is None:
            return False
        drawn = hashlib.sha256(b"shadow " + request_id.encode()).digest()[:8]
        return int.from_bytes(drawn, "big") < asked.share * 2**64

    def offer(self, job: Job) -> None:
        """Let a request be answered again, unless too many are waiting already; returns at once."""
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            if version := self.version:
                self.comparisons.note(version, "dropped")

    def heard(self, events: Sequence[FeedbackEvent]) -> None:
        """Credit what users chose to whichever model would have shown it."""
        for event in events:
            if event.request_id and event.action in CHOSEN:
                self.comparisons.clicked(event.request_id, str(event.item_id))

    def close(self) -> None:
        """Try nothing any more."""
        self._loop.close()
        self._leave()

    def _step(self) -> float:
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + POLL_SECONDS
            self._follow(read_shadow(self._model_dir))
        try:
            job = self._jobs.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return 0.0
        if self._tried:
            self._answer(self._tried, job)
        return 0.0

    def _follow(self, asked: Shadow | None) -> None:
        """Change over to another version, where one is asked for; one that could not be opened is tried again."""
        was, self.asked = self.asked, asked
        if (asked and asked.version) != (was and was.version):
            self._leave()
            self.failure = None
            self._retry.start()
        if asked is not None and self._tried is None and self._retry.is_due:
            self._open(asked)

    def _open(self, asked: Shadow) -> None:
        try:
            self._tried = _Tried(self._model_dir / asked.version, self._config, self._store_url)
        except Exception as error:  # noqa: BLE001 - the edge of this thread: no version may end it
            self.failure = f"{asked.version}: {error}"
            logger.warning(
                "%s cannot be tried: %s; next try in %.0f seconds",
                asked.version,
                error,
                self._retry.failed(),
                exc_info=None if isinstance(error, RecEngineError) else error,
            )
        else:
            self.failure = None
            logger.info("%s is tried on %.0f%% of the requests", asked.version, 100 * asked.share)

    def _answer(self, tried: "_Tried", job: Job) -> None:
        try:
            self.comparisons.compare(tried.version, job.request_id, job.served, tried.answered(job))
        except Exception as error:
            self.comparisons.note(tried.version, "failed")
            if self.failure is None:
                logger.exception("%s failed to answer beside the served model", tried.version)
            self.failure = f"{tried.version}: {type(error).__name__}: {error}"

    def _leave(self) -> None:
        if self._tried:
            self._tried.close()
            self._tried = None


class _Tried:
    """A version with its own reader of the log, its own statistics and no cache.

    Args:
        directory: of the version.
        config: of the service.
        store_url: of the log.

    Raises:
        RecEngineError: if it cannot be opened.
    """

    def __init__(self, directory: Path, config: ServingConfig, store_url: str) -> None:
        bundle = open_served(directory, config)
        self.version = bundle.version
        self._now = 0.0
        with ExitStack() as undone:
            # A reader of its own: the served model's must not miss what this one has been told.
            store = EventStore(store_url)
            undone.callback(store.close)
            self._live = LiveModel(bundle, config.recommendations, store, is_served=False)
            statistics = LiveStatistics(self._live, store)
            undone.callback(statistics.close)
            statistics.start()
            self.close = undone.pop_all().close
        uncached = config.model_copy(update={"redis": config.redis.model_copy(update={"cache_ttl": 0})})
        self._answerer = Answerer(self._live, uncached, InMemoryCache(), lambda: self._now)

    def answered(self, job: Job) -> Timed:
        """Return its answer to a request, as of the moment of the request."""
        self._now = job.now
        started = time.thread_time()
        self._live.catch_up()
        answer = self._answerer.recommend(job.request, job.request_id, unmeasured)
        return Timed(answer, time.thread_time() - started)
