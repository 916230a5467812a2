"""Hot swap: a newly promoted version is loaded beside the one that answers, and takes over between two requests."""

import threading
from collections.abc import Callable
from pathlib import Path

from rec_engine.bundle import current_version
from rec_engine.errors import RecEngineError
from rec_engine.serving.live import LiveModel
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
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-watch", daemon=True)
        self._thread.start()

    def take(self) -> LiveModel | None:
        """Return the model that takes over now, None as long as nothing has changed."""
        if self._ready is None:
            return None
        ready, self._ready = self._ready, None
        return ready

    def close(self) -> None:
        """Stop watching."""
        self._is_closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed.wait(POLL_SECONDS):
            try:
                version = current_version(self._model_dir)
            except OSError:
                continue  # as on the disk of a machine that is being set up: what is served goes on
            if version and version != self._seen:
                self._seen = version
                self._load(version)

    def _load(self, version: str) -> None:
        try:
            self._ready = self._prepare(self._model_dir / version)
            self.failure = None
            logger.info("%s is ready to take over", version)
        except RecEngineError as error:
            self.failure = f"{version}: {error}"
            logger.warning("%s cannot be served, the model before it goes on: %s", version, error)
