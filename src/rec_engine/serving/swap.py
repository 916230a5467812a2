"""Hot swap: a newly promoted version is loaded beside the one that answers, and takes over between two requests."""

from collections.abc import Callable
from pathlib import Path

from rec_engine.bundle import current_version
from rec_engine.errors import RecEngineError
from rec_engine.serving.live import LiveModel
from rec_engine.utils.background import BackgroundLoop, Retry
from rec_engine.utils.logger import get_logger

POLL_SECONDS = 0.5

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
        self._retry = Retry()  # as long as a version is the promoted one: its files may still be on their way
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
            self._seen = version
            self._retry.start()
            self._load(version)
        elif version and self.failure and self._retry.is_due:
            self._load(version)
        return POLL_SECONDS

    def _load(self, version: str) -> None:
        try:
            self._ready = self._prepare(self._model_dir / version)
        except Exception as error:  # noqa: BLE001 - whatever is the matter with a version, the one before it goes on
            self.failure = f"{version}: {error}"
            logger.warning(
                "%s cannot be served, the model before it goes on: %s; next try in %.0f seconds",
                version,
                error,
                self._retry.failed(),
                exc_info=None if isinstance(error, RecEngineError) else error,
            )
        else:
            self.failure = None
            logger.info("%s is ready to take over", version)
