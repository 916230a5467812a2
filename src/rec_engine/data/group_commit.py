"""Group commit: many requests' changes share one transaction, and with it one wait for the disk."""

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rec_engine.data.events import Change, EventStore
from rec_engine.errors import StoreError
from rec_engine.utils.logger import get_logger

MAX_WAITING = 10_000
MAX_CHANGES = 5_000
LOOSE_SECONDS = 0.25
"""How long changes that nobody waits for are gathered."""
FORGET_SECONDS = 1.0
"""How long after a try to empty the log of what was erased there is another."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    changes: Sequence[Change]
    items_as_of: int | None = None
    done: Future[None] = field(default_factory=Future)


class GroupCommit:
    """Writes what several threads submit, in the order in which they did, by a thread of its own.

    Args:
        store: where to.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._loose: list[Change] = []
        self._loose_lock = threading.Lock()
        self.n_dropped = 0
        self._forget_at = 0.0
        self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Changes and groups of changes that are not on disk yet."""
        return self._jobs.qsize() + len(self._loose)

    def submit(self, changes: Sequence[Change], *, items_as_of: int | None = None) -> "Future[None]":
        """Return what is done when these changes are on disk, and holds a StoreError when they are not.

        Args:
            changes: all are written, or none.
            items_as_of: as of `EventStore.write`.

        Raises:
            StoreError: if too much is waiting already.
        """
        job = _Job(changes, items_as_of)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise StoreError("too many events are waiting to be written", hint="send them again later") from None
        return job.done

    def note(self, change: Change) -> None:
        """Write a change some time soon; nobody waits for it, and where writing fails it is dropped and counted."""
        with self._loose_lock:
            if len(self._loose) < MAX_WAITING:
                self._loose.append(change)
            else:
                self.n_dropped += 1

    def close(self) -> None:
        """Write what was submitted and noted, then end."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (jobs := self._next_jobs()) is not None:
            for together in _groups([job for job in jobs if job.done.set_running_or_notify_cancel()]):
                self._write(together)
            self._write_loose()
            if time.monotonic() >= self._forget_at:
                self._forget()
        self._write_loose()
        self._forget()

    def _next_jobs(self) -> list[_Job] | None:
        """Return what is waiting, nothing after LOOSE_SECONDS, None at the end."""
        jobs: list[_Job] = []
        try:
            job = self._jobs.get(timeout=LOOSE_SECONDS)
            while job is not None:
                jobs.append(job)
                if sum(len(waiting.changes) for waiting in jobs) >= MAX_CHANGES:
                    return jobs
                job = self._jobs.get_nowait()
        except queue.Empty:
            return jobs
        if jobs:
            self._jobs.put(None)  # the end comes after these
            return jobs
        return None

    def _write(self, jobs: list[_Job]) -> None:
        try:
            self._store.write([change for job in jobs for change in job.changes], items_as_of=jobs[0].items_as_of)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and the others go on being written
            if not isinstance(error, StoreError):
                logger.exception("events are not written")
            for job in jobs:
                job.done.set_exception(error)
        else:
            for job in jobs:
                job.done.set_result(None)

    def _write_loose(self) -> None:
        with self._loose_lock:
            changes, self._loose = self._loose, []
        if not changes:
            return
        try:
            self._store.write(changes)
        except Exception as error:  # noqa: BLE001 - nobody waits for these, and the others go on being written
            self.n_dropped += len(changes)
            logger.warning("%d impressions are lost: %s", len(changes), error, exc_info=_unless_expected(error))

    def _forget(self) -> None:
        self._forget_at = time.monotonic() + FORGET_SECONDS
        try:
            self._store.forget()
        except Exception as error:  # noqa: BLE001 - it is tried again
            logger.warning("what was erased may still be in a file: %s", error, exc_info=_unless_expected(error))


def _groups(jobs: list[_Job]) -> list[list[_Job]]:
    """Return jobs that are written together, in their order: whatever has a condition is by itself."""
    groups: list[list[_Job]] = []
    for job in jobs:
        if groups and job.items_as_of is None and groups[-1][0].items_as_of is None:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


def _unless_expected(error: Exception) -> Exception | None:
    return None if isinstance(error, StoreError) else error
