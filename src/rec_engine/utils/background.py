"""Work that goes on beside the requests, whatever happens to it."""

import threading
import time
from collections.abc import Callable

from rec_engine.utils.logger import get_logger

PAUSE_SECONDS = 10.0
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0
"""How long after a first and after many failures something is tried again."""

logger = get_logger(__name__)


class BackgroundLoop:
    """Does something again and again, by a thread of its own. An error that nobody foresaw is logged, and it goes on.

    Args:
        name: of the thread.
        step: does it once, and returns in how many seconds it is to be done again.
        first_seconds: until it is done for the first time.
    """

    def __init__(self, name: str, step: Callable[[], float], *, first_seconds: float = 0.0) -> None:
        self._name = name
        self._step = step
        self._first_seconds = first_seconds
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_closed(self) -> bool:
        """Whether it is to end: a long step looks at it."""
        return self._is_closed.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Return once it has ended."""
        self._is_closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        wait_seconds = self._first_seconds
        while not self._is_closed.wait(wait_seconds):
            try:
                wait_seconds = self._step()
            except Exception:
                logger.exception("%s failed; it goes on in %.0f seconds", self._name, PAUSE_SECONDS)
                wait_seconds = PAUSE_SECONDS


class Retry:
    """When something that failed is tried again: after each failure twice as long later."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forget what failed: it is something else that is tried now."""
        self._at = self._seconds = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is to be tried now."""
        return time.monotonic() >= self._at

    def failed(self) -> float:
        """Return in how many seconds it is tried again."""
        self._seconds = min(2 * self._seconds or FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS)
        self._at = time.monotonic() + self._seconds
        return self._seconds
