"""The levels of the cache of answers, memory and Redis. One that fails makes the service slower, never wrong."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from rec_engine.utils.logger import get_logger
from rec_engine.utils.service_settings import RedisSettings

KEY_PREFIX = "rec-engine:answer:"
ENTRY_OVERHEAD_BYTES = 200
"""Rough cost of one entry beside its key and value."""
TIMEOUT_SECONDS = 0.05
RETRY_AFTER_SECONDS = 1.0
PATIENCE = 20
"""How many times as long as a failure took it is left alone: failing costs a twentieth of the time at most."""
LOG_EVERY_SECONDS = 30.0
KEYS_A_PAGE = 1_000

logger = get_logger(__name__)


@dataclass(slots=True)
class LevelCounts:
    """What a level did in this process since it started."""

    level: str
    hits: int = 0
    misses: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class LevelStats:
    """What a level did in this process, and what it holds: Redis for all processes together."""

    level: str
    backend: str
    hits: int
    misses: int
    errors: int
    entries: int
    bytes_used: int


@dataclass(frozen=True, slots=True)
class RedisBound:
    """How many bytes a Redis holds at most, 0 for as many as there are, and what it does with more."""

    max_bytes: int
    policy: str


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Answers that the cache had and had not, as asked by this process, and its levels, nearest first."""

    hits: int
    misses: int
    levels: tuple[LevelStats, ...]


class Cache(Protocol):
    """Bytes by key; what is stored is gone after its time to live."""

    def get(self, key: str) -> bytes | None:
        """Return what is stored, None where there is nothing or the cache fails."""
        ...

    def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store a value; a cache that fails stores nothing."""
        ...

    def clear(self) -> None:
        """Remove everything that was stored; the counts go on."""
        ...

    @property
    def levels(self) -> "tuple[Level, ...]":
        """What it consists of, nearest first."""
        ...


class Level(Cache, Protocol):
    """A cache that has no other behind it."""

    @property
    def counts(self) -> LevelCounts:
        """What it did since the process started."""
        ...

    def stats(self) -> LevelStats:
        """Return its counts and what it holds, which may take a question to another process."""
        ...


def stats_of(cache: Cache) -> CacheStats:
    """Return what a cache did and what it holds."""
    levels = tuple(level.stats() for level in cache.levels)
    return CacheStats(sum(level.hits for level in levels), levels[-1].misses, levels)


@dataclass(slots=True)
class InMemoryCache:
    """The least recently used entries leave when the bytes run out.

    Attributes:
        max_bytes: bound of keys, values and a rough overhead of each.
        clock: monotonic seconds.
    """

    max_bytes: int = RedisSettings().memory_mebibytes * 2**20
    clock: Callable[[], float] = time.monotonic
    _entries: OrderedDict[str, tuple[float, bytes]] = field(default_factory=OrderedDict)
    _bytes_used: int = 0
    counts: LevelCounts = field(default_factory=lambda: LevelCounts("memory"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Itself."""
        return (self,)

    def get(self, key: str) -> bytes | None:
        """Return what is stored and not yet too old."""
        with self._lock:
            expires, value = self._entries.get(key, (0.0, b""))
            if key not in self._entries or expires <= self.clock():
                self._drop(key)
                self.counts.misses += 1
                return None
            self._entries.move_to_end(key)
            self.counts.hits += 1
            return value

    def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store a value; one that is larger than the whole cache, or ends at once, is not stored."""
        with self._lock:
            self._drop(key)
            size = _entry_bytes(key, value)
            if size > self.max_bytes or ttl_seconds <= 0:
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

    def stats(self) -> LevelStats:
        """Return counts since the process started, and what is stored now."""
        with self._lock:
            return _stats(self.counts, "memory", len(self._entries), self._bytes_used)

    def _drop(self, key: str) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self._bytes_used -= _entry_bytes(key, entry[1])


@dataclass(frozen=True, slots=True)
class Access:
    """How Redis lets this service in.

    Attributes:
        username: of an ACL; None is Redis' default user.
        password: None where Redis asks for none.
        is_encrypted: whether the connection is TLS, with the server's certificate checked.
        ca_file: certificates to check it by; None are those of the machine.
        is_cluster: whether the address is that of a node of a Redis Cluster, which names the others.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    is_encrypted: bool = False
    ca_file: str | None = None
    is_cluster: bool = False


class RedisCache:
    """Redis with short timeouts; after a failure it is left alone for a second, so that a dead one costs nothing.

    It is asked inline and not with `redis.asyncio`: that costs more CPU than the rest of a cached answer, and while one
    request waited another one would compute the same answer.

    No command has keys of several slots but UNLINK, which the client splits; so keys need no hash tag, and the answers
    are spread over all nodes of a cluster.

    Args:
        host: where Redis runs.
        port: its port.
        access: how it lets this service in.
        clock: monotonic seconds.
    """

    def __init__(
        self, host: str, port: int, access: Access = Access(), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.address = f"{host}:{port}"
        self.counts = LevelCounts("redis")
        self._clock = clock
        self._host, self._port, self._access = host, port, access
        self._opened: redis.Redis | redis.RedisCluster | None = None
        self._retry_at = self._log_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def levels(self) -> tuple[Level, ...]:
        """Itself."""
        return (self,)

    def get(self, key: str) -> bytes | None:
        """Return what is stored; None also while Redis fails."""
        value = self._try(lambda: self._client.get(KEY_PREFIX + key))
        with self._lock:
            self.counts.hits += value is not None
            self.counts.misses += value is None
        return value if isinstance(value, bytes) else None

    def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store a value; nothing while Redis fails."""
        self._try(lambda: self._client.set(KEY_PREFIX + key, value, px=int(1_000 * ttl_seconds)))

    def clear(self) -> None:
        """Remove the answers of all processes, and nothing else that lives in this Redis; nothing while it fails."""
        self._try(self._unlink_all)

    def stats(self) -> LevelStats:
        """Return counts of this process; entries and bytes are those of the whole Redis, 0 while it fails."""
        held = self._try(self._held)
        n_entries, n_bytes = held if isinstance(held, tuple) else (0, 0)
        return _stats(self.counts, f"redis at {self.address}", n_entries, n_bytes)

    @property
    def _client(self) -> "redis.Redis | redis.RedisCluster":
        """Opened when it is needed: a cluster is asked for its nodes at once, and may be down at the start."""
        if self._opened is None:
            self._opened = _open(self._host, self._port, self._access)
        return self._opened

    def bound(self) -> "RedisBound | None":
        """Return how much Redis may hold and what it does then; None while it fails."""
        found = self._try(lambda: self._nodes()[0].info("memory"))
        if not isinstance(found, dict):
            return None
        return RedisBound(int(found["maxmemory"]), str(found["maxmemory_policy"]))

    def _try(self, call: Callable[[], object]) -> object | None:
        """Return what Redis answers, None where it fails or has just failed."""
        if (started := self._clock()) < self._retry_at:
            return None
        try:
            return call()
        except (redis.RedisError, RedisClusterException, OSError) as error:
            self._note_failure(error, self._clock() - started)
            return None

    def _note_failure(self, error: Exception, seconds: float) -> None:
        now = self._clock()
        with self._lock:
            self.counts.errors += 1
            self._retry_at = now + max(RETRY_AFTER_SECONDS, PATIENCE * seconds)
            is_logged = now >= self._log_at
            if is_logged:
                self._log_at = now + LOG_EVERY_SECONDS
        if is_logged:
            logger.warning("the cache at %s does not answer, going on without it: %s", self.address, error)

    def _held(self) -> tuple[int, int]:
        """Return keys and bytes of Redis, of all primaries of a cluster together."""
        nodes = self._nodes()
        return sum(int(node.dbsize()) for node in nodes), sum(int(node.info("memory")["used_memory"]) for node in nodes)

    def _nodes(self) -> "list[redis.Redis]":
        client = self._client
        if not isinstance(client, redis.RedisCluster):
            return [client]
        primaries = client.get_primaries()  # type: ignore[no-untyped-call]
        return [client.get_redis_connection(node) for node in primaries]

    def _unlink_all(self) -> None:
        # Page by page: KEYS would block Redis for everybody, one UNLINK of all would outlast the timeout.
        keys = self._client.scan_iter(match=f"{KEY_PREFIX}*", count=KEYS_A_PAGE)
        while page := list(islice(keys, KEYS_A_PAGE)):
            self._client.unlink(*page)


def _open(host: str, port: int, access: Access) -> "redis.Redis | redis.RedisCluster":
    known: dict[str, Any] = {
        "host": host,
        "port": port,
        "username": access.username,
        "password": access.password,
        "ssl": access.is_encrypted,
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        # Left to itself redis-py tries ten times and sleeps in between: seconds of a request's time.
        "retry": Retry(NoBackoff(), retries=0),
    }
    if access.is_encrypted:
        known["ssl_ca_certs"] = access.ca_file
    if access.is_cluster:  # a part of it that is down must not take the others with it
        return redis.RedisCluster(**known, require_full_coverage=False)
    return redis.Redis(**known)


def _stats(counts: LevelCounts, backend: str, entries: int, bytes_used: int) -> LevelStats:
    return LevelStats(counts.level, backend, counts.hits, counts.misses, counts.errors, entries, bytes_used)


def _entry_bytes(key: str, value: bytes) -> int:
    return len(key.encode()) + len(value) + ENTRY_OVERHEAD_BYTES
