"""A real server process, asked over a real socket."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def ask(url: str, body: dict[str, object] | None = None) -> dict[str, object]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
        return found


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def address(request: pytest.FixtureRequest, model_dir: Path) -> Iterator[str]:
    """Where `rec-engine serve` answers; it is stopped as an operator would, by SIGTERM."""
    port = free_port()
    flags = ["--model-dir", str(model_dir), "--host", "127.0.0.1", "--port", str(port), "--workers", str(request.param)]
    environment = os.environ | {"USE_MEMORY_CACHE": "true"}
    with subprocess.Popen([sys.executable, "-m", "rec_engine", "serve", *flags], env=environment) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                ask(f"{url}/ready")
                break
            except OSError:
                assert process.poll() is None, "the server stopped while starting"
                time.sleep(0.1)
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) in {0, -signal.SIGTERM}


def test_every_route_answers_over_the_wire(address: str) -> None:
    known = ask(f"{address}/recommend", {"user_id": 4, "num_recommendations": 5})
    unknown = ask(f"{address}/recommend", {"user_id": "nobody", "filter_categories": ["Rare"]})
    similar = ask(f"{address}/similar-items/104?num_items=3")
    assert len(known["recommendations"]) == 5  # type: ignore[arg-type]
    assert len(unknown["recommendations"]) == 3  # type: ignore[arg-type]
    assert len(similar["similar_items"]) == 3  # type: ignore[arg-type]
    assert ask(f"{address}/health") == {"status": "alive"}
    assert ask(f"{address}/model/status")["dataset"] == "small world"
    assert ask(f"{address}/cache/stats")["backend"] == "memory"
    assert "/recommend" in str(ask(f"{address}/openapi.json")["paths"])
