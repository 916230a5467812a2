"""Versions that arms of experiments serve: each beside the current one in every worker, as long as an arm wants it."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rec_engine.data.events import EventStore
from rec_engine.errors import RecEngineError
from rec_engine.serving.answers import Answerer
from rec_engine.serving.cache import InMemoryCache
from rec_engine.serving.live import LiveModel
from rec_engine.serving.live_statistics import LiveStatistics
from rec_engine.serving.opening import open_served
from rec_engine.utils.background import BackgroundLoop, Retry
from rec_engine.utils.config import ServingConfig
from rec_engine.utils.logger import get_logger

POLL_SECONDS = 0.5
REST_SECONDS = 10.0
"""How long a version that nobody wants any more stays open: a request may still be answered from it."""

logger = get_logger(__name__)


class ArmModels:
    """Opens and closes versions by a thread of its own; one that cannot be opened is tried again.

    Args:
        model_dir: the registry.
        config: of the service.
        store_url: of the log.
        wanted: the versions that arms serve now.
        clock: Unix seconds.
    """

    def __init__(
        self,
        model_dir: Path,
        config: ServingConfig,
        store_url: str,
        wanted: Callable[[], frozenset[str]],
        clock: Callable[[], float],
    ) -> None:
        self._model_dir = model_dir
        self._config = config
        self._store_url = store_url
        self._clock = clock
        self._wanted = wanted
        self._open: dict[str, _ArmModel] = {}
        self._resting: list[tuple[float, _ArmModel]] = []
        self._retries: dict[str, Retry] = {}
        self._loop = BackgroundLoop("arm models", self._step)
        self._loop.start()

    def find(self, version: str) -> Answerer | None:
        """Return who answers from a version, which knows the log to its end; None while it is not open here."""
        found = self._open.get(version)
        if found is None:
            return None
        found.answerer.live.catch_up()
        return found.answerer

    def close(self) -> None:
        """Hold nothing any more."""
        self._loop.close()
        for model in (*self._open.values(), *(model for _, model in self._resting)):
            model.close()
        self._open = {}

    def _step(self) -> float:
        wanted, now = self._wanted(), time.monotonic()
        for version in self._open.keys() - wanted:
            self._resting.append((now, self._open.pop(version)))
            logger.info("no arm serves %s any more", version)
        for rested in [each for each in self._resting if now - each[0] >= REST_SECONDS]:
            self._resting.remove(rested)
            rested[1].close()
        self._retries = {version: retry for version, retry in self._retries.items() if version in wanted}
        for version in sorted(wanted - self._open.keys()):
            if self._retries.setdefault(version, Retry()).is_due:
                self._try(version)
        return POLL_SECONDS

    def _try(self, version: str) -> None:
        try:
            self._open[version] = _ArmModel(self._model_dir / version, self._config, self._store_url, self._clock)
        except Exception as error:  # noqa: BLE001 - whatever is the matter with a version, the current one answers
            logger.warning(
                "%s cannot be served to its arm, who gets the current model: %s; next try in %.0f seconds",
                version,
                error,
                self._retries[version].failed(),
                exc_info=None if isinstance(error, RecEngineError) else error,
            )
        else:
            logger.info("%s is served to its arm", version)


class _ArmModel:
    """A version with its own reader of the log, which must not miss what that of the current model has been told.

    Args:
        directory: of the version.
        config: of the service.
        store_url: of the log.
        clock: Unix seconds.

    Raises:
        RecEngineError: if it cannot be opened.
    """

    def __init__(self, directory: Path, config: ServingConfig, store_url: str, clock: Callable[[], float]) -> None:
        bundle = open_served(directory, config)
        with ExitStack() as undone:
            store = EventStore(store_url)
            undone.callback(store.close)
            live = LiveModel(bundle, config.recommendations, store)
            statistics = LiveStatistics(live, store)
            undone.callback(statistics.close)
            statistics.start()
            self.close = undone.pop_all().close
        self.answerer = Answerer(live, config, InMemoryCache(), clock)  # answers are kept by who asks it
