"""Work that goes on beside the requests, whatever happens to it."""

import threading
from collections.abc import Callable

from rec_engine.utils.logger import get_logger

PAUSE_SECONDS = 10.0

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
