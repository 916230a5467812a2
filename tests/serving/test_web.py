"""What every answer has in common: ids, bounds, errors, and who may ask from a browser."""

import asyncio
import json
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import service
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from rec_engine.bundle import ModelBundle
from rec_engine.data.events import EventStore
from rec_engine.serving.hosts import Hosts
from rec_engine.serving.security import Gate
from rec_engine.serving.telemetry import Telemetry
from rec_engine.serving.web import REQUEST_ID, Edge
from rec_engine.utils.config import SecuritySettings, ServingConfig
from rec_engine.utils.logger import ROOT, configure_logging, get_logger

RECOMMEND = {"user_id": 4, "num_recommendations": 2}


@pytest.fixture
def _logging_restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (ROOT, "uvicorn")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.level, logger.propagate = handlers, level, propagate


@contextmanager
def configured(bundle: ModelBundle, tmp_path: Path, **sections: dict[str, object]) -> Iterator[TestClient]:
    config = ServingConfig.model_validate(sections)
    with service(bundle, EventStore(f"sqlite:///{tmp_path / 'events.db'}"), config=config) as client:
        yield client


@pytest.mark.parametrize("given_id", ["order-17", "a" * 128, "4f1c:2.3/x=+@_"])
@pytest.mark.parametrize("path", ["/recommend", "/feedback"])
def test_a_well_formed_request_id_of_the_client_is_kept(client: TestClient, path: str, given_id: str) -> None:
    answer = client.post(path, json={}, headers={"x-request-id": given_id})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == given_id


@pytest.mark.parametrize("given_id", ["", "a" * 129, "two words", 'quote"', "<script>", "line\\n", "ü"])
def test_any_other_request_id_is_replaced_by_a_uuid(client: TestClient, given_id: str) -> None:
    answer = client.post("/recommend", json=RECOMMEND, headers={b"x-request-id": given_id.encode()})
    found = answer.headers["x-request-id"]
    assert (uuid.UUID(found).version, answer.json()["request_id"]) == (7, found)


def test_new_request_ids_differ_and_come_in_the_order_of_time(client: TestClient) -> None:
    found = [client.get("/health").headers["x-request-id"] for _ in range(200)]
    assert len(set(found)) == 200
    times = [uuid.UUID(each).int >> 80 for each in found]
    assert times == sorted(times)


@given(st.binary(max_size=200))
def test_an_accepted_request_id_is_safe_in_a_header_a_log_line_and_json(given_id: bytes) -> None:
    if REQUEST_ID.fullmatch(given_id):
        text = given_id.decode()
        assert json.dumps(text) == f'"{text}"'
        assert text.isprintable()
        assert len(text) <= 128


@pytest.mark.usefixtures("_logging_restored")
@pytest.mark.parametrize("is_on", [True, False])
def test_requests_leave_a_line_in_the_log_where_that_is_wanted(
    bundle: ModelBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], is_on: bool
) -> None:
    configure_logging(style="json")
    with configured(bundle, tmp_path, logging={"access": is_on}) as client:
        client.post("/recommend", json=RECOMMEND, headers={"x-request-id": "order-17"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    access = [line for line in lines if line["logger"] == "rec_engine.access"]
    shown = [(line["request_id"], line["route"], line["status"]) for line in access]
    assert shown == ([("order-17", "POST /recommend", 200)] if is_on else [])


@pytest.mark.usefixtures("_logging_restored")
def test_what_is_logged_below_a_request_names_it_and_what_is_logged_elsewhere_does_not(
    client: TestClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging(style="json")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("rec_engine.serving.engine.Engine.recommend", broken)
    answer = client.post("/recommend", json=RECOMMEND, headers={"x-request-id": "order-17"})
    get_logger("rec_engine.test").warning("by itself")
    failed, alone = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:rec-engine:problem:internal")
    assert (failed["request_id"], failed["message"]) == ("order-17", "POST /recommend failed")
    assert "a bug" in failed["exception"]
    assert "request_id" not in alone


def test_a_browser_may_not_ask_from_another_page_unless_told(bundle: ModelBundle, tmp_path: Path) -> None:
    asks = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    asks["access-control-request-headers"] = "x-api-key"
    keys = [{"name": "shop", "sha256": "0" * 64, "scopes": ["serve"]}]
    with configured(bundle, tmp_path / "off") as client:
        assert client.options("/recommend", headers=asks).status_code == 405
        assert "access-control-allow-origin" not in client.get("/health", headers=asks).headers
    origins: dict[str, object] = {"cors_origins": ["https://shop.example"]}
    with configured(bundle, tmp_path / "on", api=origins, security={"keys": keys}) as client:
        before = client.options("/recommend", headers=asks)
        assert before.status_code == 200
        assert before.headers["access-control-allow-origin"] == "https://shop.example"
        assert "access-control-allow-credentials" not in before.headers
        refused = client.post("/recommend", json=RECOMMEND, headers=asks)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        assert "x-request-id" in refused.headers["access-control-expose-headers"]
        other = client.options("/recommend", headers=asks | {"origin": "https://evil.example"})
        assert (other.status_code, "access-control-allow-origin" in other.headers) == (400, False)


def test_a_browser_that_may_ask_may_ask_everything_that_there_is(bundle: ModelBundle, tmp_path: Path) -> None:
    with configured(bundle, tmp_path, api={"cors_origins": ["https://shop.example"]}) as client:
        asked = {
            (method.upper(), path)
            for path, operations in client.get("/openapi.json").json()["paths"].items()
            for method in operations
        }
        assert {method for method, _ in asked} == {"GET", "POST", "PUT", "DELETE"}
        for method, path in sorted(asked):
            asks = {"origin": "https://shop.example", "access-control-request-method": method}
            assert client.options(path, headers=asks).status_code == 200, (method, path)


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/path", "https://*.example", ""])
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match="cors_origins"):
        ServingConfig.model_validate({"api": {"cors_origins": [origin]}})


def test_an_answer_that_waits_too_long_is_a_503_and_the_events_are_written_all_the_same(
    bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, released = EventStore.write, threading.Event()

    def slow(store: EventStore, *changes: object, **how: object) -> None:
        assert released.wait(20)
        write(store, *changes, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(EventStore, "write", slow)
    with configured(bundle, tmp_path, api={"answer_seconds": 0.2}) as client:
        click = {"user_id": "ann", "item_id": 101, "action": "click", "event_id": "one"}
        answer = client.post("/feedback", json=click)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "within 0.2 s" in answer.json()["detail"]
        released.set()
        assert client.post("/feedback", json=click | {"event_id": "two"}).status_code == 200
    store = EventStore(f"sqlite:///{tmp_path / 'events.db'}")
    assert [event.event_id for event in store.events_of("ann")] == ["one", "two"]
    store.close()


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "image/json"])
def test_a_body_that_is_not_said_to_be_json_is_422(client: TestClient, kind: str) -> None:
    answer = client.post("/recommend", content=json.dumps(RECOMMEND), headers={"content-type": kind})
    assert (answer.status_code, "application/json" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.shop+json"])
def test_every_way_to_say_json_is_understood(client: TestClient, kind: str) -> None:
    answer = client.post("/recommend", content=json.dumps(RECOMMEND), headers={"content-type": kind})
    assert answer.status_code == 200


def test_a_body_in_pieces_is_put_together_and_a_client_that_hangs_up_is_no_error(client: TestClient) -> None:
    pieces = [b'{"user_', b'id": 4, "num_recom', b'mendations": 3}']
    status, body = asyncio.run(_asked(client, [(piece, piece != pieces[-1]) for piece in pieces]))
    assert (status, len(json.loads(body)["recommendations"])) == (200, 3)
    assert asyncio.run(_asked(client, [(b'{"user_id"', True)])) == (None, b"")
    figures = client.get("/metrics").text
    assert 'request_duration_seconds_count{route="/recommend",status="2xx"} 1.0' in figures
    assert 'errors_total{status="499"} 1.0' in figures
    assert 'errors_total{status="500"}' not in figures


async def _asked(client: TestClient, pieces: list[tuple[bytes, bool]]) -> tuple[int | None, bytes]:
    """Return status and body of the answer to a body that arrives in pieces; after them the client hangs up."""
    arriving = [{"type": "http.request", "body": piece, "more_body": more} for piece, more in pieces]
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return arriving.pop(0) if arriving else {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/recommend",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }
    await client.app(scope, receive, send)  # type: ignore[arg-type]
    status = sent[0]["status"] if sent else None
    body = b"".join(bytes(message.get("body", b"")) for message in sent)  # type: ignore[call-overload]
    assert status is None or isinstance(status, int)
    return status, body


def test_the_same_bytes_are_validated_once_and_others_each_for_themselves(client: TestClient) -> None:
    def answered(body: bytes) -> tuple[int, int]:
        answer = client.post("/recommend", content=body, headers={"content-type": "application/json"})
        return answer.status_code, len(answer.json().get("recommendations", []))

    for _ in range(2):
        assert answered(b'{"user_id": 4, "num_recommendations": 2}') == (200, 2)
        assert answered(b'{"user_id": 4, "num_recommendations": 3}') == (200, 3)
        assert answered(b'{"user_id": 4, "num_recommendations": 0}') == (422, 0)


def test_one_answer_is_made_for_many_who_ask_for_it_at_once(client: TestClient) -> None:
    async def all_at_once() -> list[tuple[int | None, bytes]]:
        body = json.dumps({"user_id": 8, "num_recommendations": 5}).encode()
        return await asyncio.gather(*(_asked(client, [(body, False)]) for _ in range(50)))

    answers = [json.loads(body) for _, body in asyncio.run(all_at_once())]
    assert sorted(answer["metadata"]["cached"] for answer in answers) == [False] + [True] * 49
    assert len({answer["request_id"] for answer in answers}) == 50


def test_the_direct_route_is_described_as_any_other(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]["/recommend"]["post"]
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/RecommendRequest"}
    assert "RecommendResponse" in str(described["responses"]["200"])
    assert {"422", "429", "503"} <= described["responses"].keys()


def test_a_socket_that_is_no_request_goes_through() -> None:
    seen: list[str] = []

    async def app(scope: dict[str, str], *_: object) -> None:
        seen.append(scope["type"])

    edge = Edge(app, Gate(SecuritySettings()), Hosts(), Telemetry(), {}, answer_seconds=1, writes_access_log=False)  # type: ignore[arg-type]
    asyncio.run(edge({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
