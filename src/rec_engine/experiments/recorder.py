"""Who meets which arm, and what he does, goes to the log by a thread of its own: who records waits for no disk."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from rec_engine.data.experiment_log import ExperimentLog, Record
from rec_engine.errors import StoreError
from rec_engine.utils.logger import get_logger

MAX_WAITING = 200_000
WRITE_SECONDS = 0.2
"""How long records are gathered."""
AT_ONCE = 5_000

Later = Callable[[], Sequence[Record]]
"""What makes records when they are written, for who has no time to."""

logger = get_logger(__name__)


class Recorder:
    """Writes records some time soon; `flush` returns when what was recorded before is on disk.

    Where the database fails, records wait and are tried again; where too many wait, new ones are dropped and counted.

    Args:
        log: where to.
        full_seconds: how long whoever records waits for room before his record is dropped; 0 for a service, whose
            requests wait for nothing.

    Attributes:
        known: position of the log as it was when records were written last.
        n_dropped: records for which there was no room.
    """

    def __init__(self, log: ExperimentLog, *, full_seconds: float = 0.0) -> None:
        self._log = log
        self._full_seconds = full_seconds
        self._waiting: deque[Record] = deque()
        self._later: deque[Later] = deque()
        self._is_closed = False
        self._is_failing = False
        self._wakes = threading.Event()
        self._write_lock = threading.Lock()
        self.known = log.position()
        self.n_dropped = 0
        self._thread = threading.Thread(target=self._run, name="experiment-recorder", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Records that are not on disk yet, and what makes some that has not made them yet."""
        return len(self._waiting) + len(self._later)

    def add(self, record: Record) -> bool:
        """Take a record; return whether there was room for it."""
        if self.n_waiting >= MAX_WAITING and not self._has_room():
            return False
        self._waiting.append(record)
        return True

    def add_later(self, make: Later) -> bool:
        """Take what makes records, which may be none; return whether there was room for it."""
        if self.n_waiting >= MAX_WAITING and not self._has_room():
            return False
        self._later.append(make)
        return True

    def flush(self) -> None:
        """Return when everything that was recorded before is on disk.

        Raises:
            StoreError: if it cannot be written; it is still waiting then.
        """
        with self._write_lock:
            for _ in range(len(self._later)):
                self._make(self._later.popleft())
            n_left = len(self._waiting)
            while n_left > 0:
                n_left -= self._write()

    def _make(self, records: Later) -> None:
        """Have records made; an error that nobody foresaw costs these alone, and not all that come after them."""
        try:
            self._waiting.extend(records())
        except Exception:
            logger.exception("records of an experiment could not be made")
            self.n_dropped += 1

    def close(self) -> None:
        """Write what is waiting, then end.

        Raises:
            StoreError: if it cannot be written.
        """
        self._is_closed = True
        self._wakes.set()
        self._thread.join()
        self.flush()

    def _has_room(self) -> bool:
        """Return whether there is room after some waiting; if not, what was to have it is counted as dropped."""
        until = time.monotonic() + self._full_seconds
        while time.monotonic() < until:
            self._wakes.set()
            time.sleep(0.001)
            if self.n_waiting < MAX_WAITING:
                return True
        self.n_dropped += 1
        return False

    def _run(self) -> None:
        while not self._is_closed:
            self._wakes.wait(WRITE_SECONDS)
            self._wakes.clear()
            try:
                self.flush()
                self.known = self._log.position()
                self._is_failing = False
            except StoreError as error:
                if not self._is_failing:
                    logger.warning("records of experiments wait: %s", error)
                self._is_failing = True

    def _write(self) -> int:
        """Return how many records were written; if that fails, they wait again."""
        some = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
        try:
            self._log.write(some)
        except StoreError:
            self._waiting.extendleft(reversed(some))
            raise
        return len(some)
