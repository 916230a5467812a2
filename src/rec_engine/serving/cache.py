"""The cache of answers, in Redis or in the process. One that fails makes the service slower, never wrong."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rec_engine.utils.config import RedisSettings
from rec_engine.utils.logger import get_logger

KEY_PREFIX = "rec-engine:"
MEMORY_BYTES = 64 * 2**20
ENTRY_OVERHEAD_BYTES = 200
"""Rough cost of one entry beside its key and value."""
TIMEOUT_SECONDS = 0.05
RETRY_AFTER_SECONDS = 1.0
LOG_EVERY_SECONDS = 30.0
KEYS_A_PAGE = 1_000

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache did in this process, and what it holds."""

    backend: str
    hits: int
    misses: int
    errors: int
    entries: int
    bytes_used: int


class Cache(Protocol):
    """Bytes by key; what is stored is gone after its time to live."""

    def get(self, key: str) -> bytes | None:
        """Return what is stored, None where there is nothing or the cache fails."""
        ...

    def set(self, key: str, value: bytes, ttl_seconds: int) -> None:
        """Store a value; a cache that fails stores nothing."""
        ...

    def clear(self) -> None:
        """Remove everything that was stored; the counts go on."""
        ...

    def stats(self) -> CacheStats:
        """Return counts since the process started."""
        ...


def open_cache(settings: RedisSettings, environment: Mapping[str, str] | None = None) -> Cache:
    """Return Redis, or memory where USE_MEMORY_CACHE is true."""
    environment = os.environ if environment is None else environment
    if environment.get("USE_MEMORY_CACHE", "").strip().lower() in {"1", "true", "yes", "on"}:
        return InMemoryCache()
    return RedisCache(settings.host, settings.port)


@dataclass(slots=True)
class InMemoryCache:
    """The least recently used entries leave when the bytes run out.

    Attributes:
        max_bytes: bound of keys, values and a rough overhead of each.
        clock: monotonic seconds.
    """

    max_bytes: int = MEMORY_BYTES
    clock: Callable[[], float] = time.monotonic
    _entries: OrderedDict[str, tuple[float, bytes]] = field(default_factory=OrderedDict)
    _bytes_used: int = 0
    _hits: int = 0
    _misses: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: str) -> bytes | None:
        """Return what is stored and not yet too old."""
        with self._lock:
            expires, value = self._entries.get(key, (0.0, b""))
            if key not in self._entries or expires <= self.clock():
                self._drop(key)
                self._misses += 1
                return None
            self._entries.move_to_end(key)
            self._hits += 1
            return value

    def set(self, key: str, value: bytes, ttl_seconds: int) -> None:
        """Store a value; one that is larger than the whole cache is not stored."""
        with self._lock:
            self._drop(key)
            size = _entry_bytes(key, value)
            if size > self.max_bytes:
                return
            self._entries[key] = (self.clock() + ttl_seconds, value)
            self._bytes_used += size
            while self._bytes_used > self.max_bytes:
                self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Remove everything; the counts go on."""
        with self._lock:
            self._entries.clear()
            self._bytes_used = 0

    def stats(self) -> CacheStats:
        """Return counts since the process started."""
        with self._lock:
            return CacheStats("memory", self._hits, self._misses, 0, len(self._entries), self._bytes_used)

    def _drop(self, key: str) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self._bytes_used -= _entry_bytes(key, entry[1])


class RedisCache:
    """Redis with short timeouts; after a failure it is left alone for a second, so that a dead one costs nothing.

    Args:
        host: where Redis runs.
        port: its port.
        clock: monotonic seconds.
    """

    def __init__(self, host: str, port: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = f"{host}:{port}"
        self._clock = clock
        # Left to itself redis-py tries ten times and sleeps in between: seconds of a request's time.
        self._client = redis.Redis(
            host=host,
            port=port,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), retries=0),
        )
        self._hits = self._misses = self._errors = 0
        self._retry_at = self._log_at = float("-inf")
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """Return what is stored; None also while Redis fails."""
        value = self._try(lambda: self._client.get(KEY_PREFIX + key))
        with self._lock:
            self._hits += value is not None
            self._misses += value is None
        return value if isinstance(value, bytes) else None

    def set(self, key: str, value: bytes, ttl_seconds: int) -> None:
        """Store a value; nothing while Redis fails."""
        self._try(lambda: self._client.set(KEY_PREFIX + key, value, ex=ttl_seconds))

    def clear(self) -> None:
        """Remove the answers of all processes, and nothing else that lives in this Redis; nothing while it fails."""
        self._try(self._unlink_all)

    def stats(self) -> CacheStats:
        """Return counts of this process; entries and bytes are those of the whole Redis, 0 while it fails."""
        entries = self._try(self._client.dbsize)
        memory = self._try(lambda: self._client.info("memory"))
        used = memory.get("used_memory", 0) if isinstance(memory, dict) else 0
        n_entries = entries if isinstance(entries, int) else 0
        return CacheStats(f"redis at {self.address}", self._hits, self._misses, self._errors, n_entries, int(used))

    def _try(self, call: Callable[[], object]) -> object | None:
        """Return what Redis answers, None where it fails or has just failed."""
        if self._clock() < self._retry_at:
            return None
        try:
            return call()
        except redis.RedisError as error:
            self._note_failure(error)
            return None

    def _note_failure(self, error: redis.RedisError) -> None:
        now = self._clock()
        with self._lock:
            self._errors += 1
            self._retry_at = now + RETRY_AFTER_SECONDS
            is_logged = now >= self._log_at
            if is_logged:
                self._log_at = now + LOG_EVERY_SECONDS
        if is_logged:
            logger.warning("the cache at %s does not answer, going on without it: %s", self.address, error)

    def _unlink_all(self) -> None:
        # Page by page: KEYS would block Redis for everybody, one UNLINK of all would outlast the timeout.
        keys = self._client.scan_iter(match=f"{KEY_PREFIX}*", count=KEYS_A_PAGE)
        while page := list(islice(keys, KEYS_A_PAGE)):
            self._client.unlink(*page)


def _entry_bytes(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value) + ENTRY_OVERHEAD_BYTES
