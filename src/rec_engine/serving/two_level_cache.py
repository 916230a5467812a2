"""Memory before Redis: what this process has is not asked for, what another one made is not made again."""

import math
import os
import random
import struct
import time
from collections.abc import Callable, Mapping

from rec_engine.serving.cache import Access, Cache, InMemoryCache, Level, RedisCache
from rec_engine.utils.service_settings import REDIS_PASSWORD_VARIABLE, RedisSettings

EARLY_SHARE = 0.01
"""Of the time to live: by how much an entry is made anew before its end, on average."""
ENDS = struct.Struct(">d")
"""Before each value in Redis: the Unix second at which it ends."""


def open_cache(settings: RedisSettings, environment: Mapping[str, str] | None = None) -> Cache:
    """Return memory before Redis, or memory alone where USE_MEMORY_CACHE is true.

    The password of Redis is taken from the environment only, so that no file and no copy of the settings holds it.
    """
    environment = os.environ if environment is None else environment
    memory = InMemoryCache(settings.memory_mebibytes * 2**20)
    if environment.get("USE_MEMORY_CACHE", "").strip().lower() in {"1", "true", "yes", "on"}:
        return memory
    access = Access(
        settings.username,
        environment.get(REDIS_PASSWORD_VARIABLE) or None,
        settings.tls,
        settings.tls_ca,
        is_cluster=settings.cluster,
    )
    redis = RedisCache(settings.host, settings.port, access)
    return TwoLevelCache(memory, redis, early_seconds=EARLY_SHARE * settings.cache_ttl)


class TwoLevelCache:
    """Two caches, the nearer one asked first; what only the farther one has is copied to the nearer.

    An entry that ends for all processes at once would be made anew by all of them. So each takes its own for ended a
    random while before: the first one makes it, and the others find what it made. (Within one process nothing is made
    twice, for requests are answered one after the other.)

    A lock in Redis would do the same with one more question at each miss, and whoever waits for it could answer nobody
    else meanwhile.

    Args:
        memory: the nearer one.
        redis: the farther one, of all processes.
        early_seconds: mean of that while; much longer than an answer takes, and much shorter than the time to live.
        clock: Unix seconds, the same for all processes; one that is behind keeps its copies for so much longer.
        draw: uniform numbers in [0, 1).

    References:
        Vattani, Chierichetti, Lowenstein, Optimal probabilistic cache stampede prevention, VLDB 2015, section 4: an
        exponentially distributed while is the best. Theirs is in proportion to the cost of the entry, which here is
        always a few milliseconds.
    """

    def __init__(
        self,
        memory: Level,
        redis: Level,
        *,
        early_seconds: float,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._memory = memory
        self._redis = redis
        self._early_seconds = early_seconds
        self._clock = clock
        self._draw = draw

    @property
    def levels(self) -> tuple[Level, ...]:
        """Memory and Redis."""
        return self._memory, self._redis

    def get(self, key: str) -> bytes | None:
        """Return what is stored and not about to end."""
        if (value := self._memory.get(key)) is not None:
            return value
        stored = self._redis.get(key)
        if stored is None:
            return None
        (ends,) = ENDS.unpack_from(stored)
        seconds_left = ends - self._clock() - self._early()
        if seconds_left <= 0:
            self._redis.counts.hits -= 1
            self._redis.counts.misses += 1
            return None
        value = stored[ENDS.size :]
        self._memory.set(key, value, seconds_left)
        return value

    def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store a value in both."""
        self._memory.set(key, value, ttl_seconds - self._early())
        self._redis.set(key, ENDS.pack(self._clock() + ttl_seconds) + value, ttl_seconds)

    def clear(self) -> None:
        """Remove everything from both; the memory of other processes keeps what it has."""
        self._memory.clear()
        self._redis.clear()

    def _early(self) -> float:
        return -self._early_seconds * math.log(1 - self._draw())
