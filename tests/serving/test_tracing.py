"""Traces, as a collector receives them over OTLP, and nothing of the SDK where nobody collects any."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from servers import ask, served

from rec_engine.errors import ConfigError
from rec_engine.serving.tracing import check_tracing, is_traced

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {
    "traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01",
    "x-request-id": "order-17",
    "content-type": "application/json",
}


class Collector:
    """Receives OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(names["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@contextmanager
def collecting() -> Iterator[tuple[str, Collector]]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", collector
        server.shutdown()


def recommend(url: str, headers: dict[str, str]) -> None:
    asked = urllib.request.Request(f"{url}/recommend", json.dumps({"user_id": 4}).encode(), headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert answer.headers["x-request-id"] == headers.get("x-request-id", answer.headers["x-request-id"])


def test_a_collector_receives_a_span_of_each_request_and_of_each_stage_below_it(
    model_dir: Path, tmp_path: Path
) -> None:
    with collecting() as (endpoint, collector):
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with served(model_dir, tmp_path / "events.db", 1, variables=variables) as (url, _):
            recommend(url, CALLER)
            ask(f"{url}/trending")
            ask(f"{url}/user/ann/profile")
            until = time.monotonic() + 10
            while len(collector.spans) < 8 and time.monotonic() < until:
                time.sleep(0.05)
    (request,) = collector.named("POST /recommend")
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    values = {each.key: each.value for each in request.attributes}
    assert values["rec_engine.request_id"].string_value == "order-17"
    assert values["http.response.status_code"].int_value == 200
    stages = [span for span in collector.spans if span.parent_span_id == request.span_id]
    assert [span.name for span in stages] == ["state", "eligible", "recall", "rank", "arrange", "record"]
    assert all(a.end_time_unix_nano == b.start_time_unix_nano for a, b in zip(stages, stages[1:], strict=False))
    assert request.start_time_unix_nano <= stages[0].start_time_unix_nano
    assert stages[-1].end_time_unix_nano <= request.end_time_unix_nano
    assert len(collector.named("GET /trending")) == 1
    assert "ann" not in str(collector.spans)
    assert collector.services == {"rec-engine"}


def test_without_a_collector_nothing_that_makes_or_sends_traces_is_loaded(model_dir: Path, tmp_path: Path) -> None:
    code = """
import sys
from fastapi.testclient import TestClient
from rec_engine.serving.api import app_from_environment
with TestClient(app_from_environment(), "http://127.0.0.1") as client:
    assert client.post("/recommend", json={"user_id": 4}).status_code == 200
print(*sorted(name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))))
"""
    environment = {"REC_ENGINE_MODEL_DIR": str(model_dir), "USE_MEMORY_CACHE": "true", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_say_whether_there_are_traces(environment: dict[str, str], expected: bool) -> None:
    assert is_traced(environment) == expected


def test_what_cannot_be_sent_is_refused_before_a_port_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    collected = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
    check_tracing(collected)
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_PROTOCOL = 'grpc'"):
        check_tracing(collected | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    check_tracing({})
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT is set") as refused:
        check_tracing(collected)
    assert "rec-engine[otel]" in refused.value.hint
