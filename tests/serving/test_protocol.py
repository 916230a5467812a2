"""A real server, its patience short: clients that send slowly, without end or too many at once; and what it logs."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest
from servers import ask, served

RECEIVE_SECONDS, MAX_CONNECTIONS = 1.0, 8
HEAD = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"user_id": 4, "num_recommendations": 2}'


@dataclass(frozen=True)
class Running:
    url: str
    port: int
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def running(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("protocol")
    variables = {
        "REC_ENGINE_API__RECEIVE_SECONDS": str(RECEIVE_SECONDS),
        "REC_ENGINE_API__MAX_CONNECTIONS": str(MAX_CONNECTIONS),
        "REC_ENGINE_API__KEEP_ALIVE_SECONDS": "2",
        "REC_ENGINE_LOGGING__STYLE": "json",
        "REC_ENGINE_LOGGING__ACCESS": "true",
    }
    log = directory / "log.jsonl"
    with (
        log.open("wb") as errors,
        served(model_dir, directory / "events.db", 1, variables=variables, errors=errors) as (url, _),
    ):
        yield Running(url, int(url.rpartition(":")[2]), log)


def everything(connection: socket.socket) -> bytes:
    """Return what is answered until the server hangs up."""
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    return received


def trickle(connection: socket.socket, sent: bytes) -> None:
    """Send a byte at a time until the server has enough of it."""
    for place in range(len(sent)):
        try:
            connection.sendall(sent[place : place + 1])
        except OSError:
            return
        time.sleep(0.1)


@pytest.mark.parametrize("head", [HEAD, HEAD + b"Content-Length: 1000\r\n\r\n"], ids=["head", "body"])
def test_a_request_that_comes_a_byte_at_a_time_is_answered_408_and_holds_up_nobody(
    running: Running, head: bytes
) -> None:
    with running.connect() as slow:
        slow.sendall(head)
        started = time.monotonic()
        trickle(slow, b"X-Slow: " + b"a" * 40 if head == HEAD else b"{" * 40)
        assert ask(f"{running.url}/health") == {"status": "alive"}
        assert everything(slow).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < 10 * RECEIVE_SECONDS


def test_a_connection_that_sends_nothing_is_closed(running: Running) -> None:
    with running.connect() as silent:
        assert everything(silent).startswith(b"HTTP/1.1 408 ")


def test_a_connection_stays_open_between_requests_for_as_long_as_it_may(running: Running) -> None:
    patient = HTTPConnection("127.0.0.1", running.port, timeout=10)
    patient.connect()
    opened = patient.sock
    for _ in range(2):
        patient.request("POST", "/recommend", BODY, {"Content-Type": "application/json"})
        answer = patient.getresponse()
        assert (answer.status, len(json.load(answer)["recommendations"])) == (200, 2)
        time.sleep(1.5 * RECEIVE_SECONDS)
    assert patient.sock is opened
    assert everything(opened) == b""
    patient.close()


def test_a_head_without_end_is_refused(running: Running) -> None:
    with running.connect() as endless:
        endless.sendall(HEAD)
        received = b""
        try:
            for number in range(200):
                endless.sendall(b"X-%d: %s\r\n" % (number, b"x" * 4_000))
                time.sleep(0.001)
            received = everything(endless)
        except OSError:  # it had hung up before everything was sent, and its answer may be lost
            received = b"HTTP/1.1 431 "
    assert received.startswith(b"HTTP/1.1 431 ")
    assert ask(f"{running.url}/health") == {"status": "alive"}


def test_a_large_body_in_one_piece_is_no_long_head(running: Running) -> None:
    body = b'{"user_id": 4, "num_recommendations": 2, "context": {"note": "%s"}}' % (b"x" * 500_000)
    with running.connect() as large:
        large.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        assert large.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_connections_beyond_the_bound_are_answered_503_and_those_within_go_on(running: Running) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(running.connect()) for _ in range(MAX_CONNECTIONS)]
        request = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
        held[0].sendall(request)
        assert held[0].recv(65_536).startswith(b"HTTP/1.1 200 ")
        beyond = stack.enter_context(running.connect())
        beyond.sendall(request)
        assert beyond.recv(65_536).startswith(b"HTTP/1.1 503 ")


def test_every_line_of_the_log_is_json_and_names_the_request_that_it_is_about(running: Running) -> None:
    with running.connect() as client:
        client.sendall(HEAD + b"X-Request-ID: order-17\r\nContent-Length: 3\r\n\r\n[1]")
        client.recv(65_536)
        client.sendall(b"GET /user/ann/profile HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: order-18\r\n\r\n")
        client.recv(65_536)
    with running.connect() as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert everything(client).startswith(b"HTTP/1.1 400 ")
    until = time.monotonic() + 5
    while not any(line["logger"] == "uvicorn.error" for line in running.lines()) and time.monotonic() < until:
        time.sleep(0.02)
    by_id = {line.get("request_id"): line for line in running.lines()}
    asked = by_id["order-17"]
    assert (asked["logger"], asked["route"], asked["status"]) == ("rec_engine.access", "POST /recommend", 422)
    assert float(str(asked["duration_ms"])) > 0
    assert by_id["order-18"]["route"] == "GET /user/{user_id}/profile"
    assert "ann" not in by_id["order-18"].values()
    assert any(line["message"] == "Invalid HTTP request received." for line in running.lines())
