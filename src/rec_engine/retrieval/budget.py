"""How long an answer may take, and what it had to do without."""

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from rec_engine.errors import RecEngineError
from rec_engine.utils.logger import get_logger

logger = get_logger(__name__)
Made = TypeVar("Made")


class Budget:
    """The time that is left for the parts of one answer. A part that has begun is not interrupted.

    Args:
        until: moment of the clock after which no part is begun any more; None for no end.
        clock: seconds since any moment.

    Attributes:
        missing: names of the parts that the answer had to do without, in the order in which they were wanted.
    """

    def __init__(self, until: float | None = None, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.missing: list[str] = []
        self._until = until
        self._clock = clock

    def spend(self, part: str, make: Callable[[], Made]) -> Made | None:
        """Return what a part of the answer makes; None where there is no time left for it, or it says that it fails."""
        if self._until is not None and self._clock() > self._until:
            self.missing.append(part)
            return None
        try:
            return make()
        except RecEngineError as error:
            _tell(part, str(error))
            self.missing.append(part)
            return None


@lru_cache(maxsize=100)
def _tell(part: str, reason: str) -> None:
    """Log a reason once: metrics count the answers that went without a part."""
    logger.warning("answers go without %s: %s", part, reason)
