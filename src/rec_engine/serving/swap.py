"""Hot swap: a newly promoted version is loaded beside the one that answers, and takes over between two requests."""

import time
from collections.abc import Callable
from pathlib import Path

from rec_engine.bundle import current_version
from rec_engine.errors import RecEngineError
from rec_engine.serving.live import LiveModel
from rec_engine.utils.background import BackgroundLoop
from rec_engine.utils.logger import get_logger

POLL_SECONDS = 0.5
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0
"""How long after a version could not be loaded it is tried again, as long as it is the promoted one: twice as long each
time, for its files may still be on their way."""

logger = get_logger(__name__)


class ModelWatch:
    """Watches which version is promoted, and makes it ready by a thread of its own.

    Args:
        model_dir: the registry.
        version: that is served now.
        prepare: a version's directory to a model that can answer; it may take as long as it likes.

    Attributes:
        failure: why the promoted version is not served, None while it is, or is being made ready.
    """

    def __init__(self, model_dir: Path, version: str, prepare: Callable[[Path], LiveModel]) -> None:
        self.failure: str | None = None
        self._model_dir = model_dir
        self._seen = version
        self._prepare = prepare
        self._ready: LiveModel | None = None
        self._retry_at, self._retry_seconds = 0.0, FIRST_RETRY_SECONDS
        self._loop = BackgroundLoop("model-watch", self._step, first_seconds=POLL_SECONDS)
        self._loop.start()

    def take(self) -> LiveModel | None:
        """Return the model that takes over now, None as long as nothing has changed."""
        if self._ready is None:
            return None
        ready, self._ready = self._ready, None
        return ready

    def close(self) -> None:
        """Stop watching."""
        self._loop.close()

    def _step(self) -> float:
        try:
            version = current_version(self._model_dir)
        except OSError:
            return POLL_SECONDS  # as on the disk of a machine that is being set up: what is served goes on
        if version and version != self._seen:
            self._seen, self._retry_seconds = version, FIRST_RETRY_SECONDS
            self._load(version)
        elif version and self.failure and time.monotonic() >= self._retry_at:
            self._retry_seconds = min(2 * self._retry_seconds, LAST_RETRY_SECONDS)
            self._load(version)
        return POLL_SECONDS

    def _load(self, version: str) -> None:
        try:
            self._ready = self._prepare(self._model_dir / version)
        except Exception as error:  # noqa: BLE001 - whatever is the matter with a version, the one before it goes on
            self.failure = f"{version}: {error}"
            self._retry_at = time.monotonic() + self._retry_seconds
            logger.warning(
                "%s cannot be served, the model before it goes on: %s; next try in %.0f seconds",
                version,
                error,
                self._retry_seconds,
                exc_info=None if isinstance(error, RecEngineError) else error,
            )
        else:
            self.failure = None
            logger.info("%s is ready to take over", version)
