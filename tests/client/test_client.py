"""The clients ask a real service, and send again what may be sent again."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

import httpx2
import pytest
from conftest import promote
from servers import free_port, served

from rec_engine import client_calls
from rec_engine.bundle import MANIFEST
from rec_engine.client import AsyncRecEngineClient, FeedbackEvent, Item, RecEngineClient, ServiceError
from rec_engine.errors import ConfigError
from rec_engine.experiments.proposal import Proposal
from rec_engine.registry import ModelRegistry
from rec_engine.serving.rule_schemas import DryRunRequest, PinRule
from rec_engine.serving.security import make_key

KEY, DIGEST = make_key()
PROBLEM = {"type": "urn:x", "title": "Not found", "status": 404, "detail": "no such item", "hint": "ask", "new": 1}
Handler = Callable[[httpx2.Request], httpx2.Response]


@pytest.fixture(scope="module")
def url(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a service with a key answers."""
    keys = json.dumps([{"name": "tests", "sha256": DIGEST, "scopes": ["admin"]}])
    log = tmp_path_factory.mktemp("log") / "events.db"
    with served(model_dir, log, 1, variables={"REC_ENGINE_SECURITY__KEYS": keys}) as (url, _):
        yield url


def asking(handler: Handler, attempts: int = 3) -> RecEngineClient:
    return RecEngineClient(transport=httpx2.MockTransport(handler), attempts=attempts)


def failing(times: int, failure: httpx2.Response | Exception, then: object) -> tuple[Handler, list[httpx2.Request]]:
    """Return what fails so often, then answers; and what it was asked."""
    asked: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        if len(asked) > times:
            return httpx2.Response(200, json=then)
        if isinstance(failure, Exception):
            raise failure
        return failure

    return handle, asked


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client would have waited."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_recommendations_and_feedback_of_a_real_service(url: str) -> None:
    with RecEngineClient(url, api_key=KEY) as service:
        answer = service.recommend(4, num_recommendations=5, filter_categories=["Even"], explain=True)
        first = answer.recommendations[0]
        assert len(answer.recommendations) == 5
        assert first.why is not None
        assert "Even" in first.categories
        more = service.recommend(4, num_recommendations=5, cursor=answer.metadata.next_cursor)
        assert not {each.item_id for each in answer.recommendations} & {each.item_id for each in more.recommendations}
        kept = service.feedback(4, first.item_id, "click", request_id=answer.request_id, timestamp="2026-01-02")
        assert len(kept.event_ids) == 1
        kept = service.feedback_batch([FeedbackEvent(user_id=4, item_id=101, action="view")] * 2)
        assert len(set(kept.event_ids)) == 2
        assert service.profile(4).recent[-1].item_id
        assert service.similar_items(104, 3).metadata.model_version == service.ready().model_version
        assert service.trending(2, time_window="9999d").items
        assert service.why_not(4, 103, exclude_items=[103, 104]).step
        service.invalidate_cache(4)
        assert service.erase("nobody").user_id == "nobody"


def test_the_shop_its_experiments_and_the_service_itself(url: str) -> None:
    with RecEngineClient(url, api_key=KEY) as service:
        assert service.put_items([Item(item_id="new/one", title="New", attributes={"price": 2.5})]).n_new == 1
        pin = PinRule(action="pin", items=["new/one"])
        changed = service.dry_run(DryRunRequest(rules={"pinned": pin}, user_ids=[4]))
        assert changed.users[0].after[0] == "new/one"
        assert service.put_rule("pinned", pin).state == "in force"
        cheap = {"attribute": "price", "below": 3}
        assert service.recommend(6, filter=cheap, num_recommendations=1).recommendations[0].item_id == "new/one"
        service.delete_rule("pinned")
        assert service.rules().rules == []
        proposal = Proposal(experiment_id="variety", name="Variety", reads_service=True)
        assert service.create_experiment(proposal).status == "draft"
        assert service.redefine_experiment("variety", proposal).experiment_id == "variety"
        assert service.step_experiment("variety", "start", reason="to see").status == "running"
        assert service.ramp_experiment("variety", coverage=1.0).phase.coverage == 1
        assert service.experiment_assignment("variety", 4).arm in {"control", "treatment"}
        verdict = service.experiment_results("variety")["recommendations"]
        assert isinstance(verdict, dict)
        assert verdict["action"] == "continue_running"
        assert "<html" in service.experiment_report("variety")
        assert [each.experiment_id for each in service.experiments()] == ["variety"]
        assert service.experiment("variety").name == "Variety"
        assert service.health().status == "alive"
        assert service.model_status().n_items > 0
        assert service.shadow().version is None
        assert service.cache_stats().levels
        assert "rec_engine" in service.metrics()
        assert service.stats()


def test_the_asynchronous_client_asks_at_once(url: str) -> None:
    async def several() -> list[int]:
        async with AsyncRecEngineClient(url, api_key=KEY) as service:
            answers = await asyncio.gather(*(service.recommend(user, num_recommendations=3) for user in range(8)))
            await service.invalidate_cache(1)
            with pytest.raises(ServiceError, match="no-such"):
                await service.similar_items("no-such")
        return [len(each.recommendations) for each in answers]

    assert asyncio.run(several()) == [3] * 8


def test_a_refusal_holds_the_problem(url: str) -> None:
    with RecEngineClient(url) as keyless, pytest.raises(ServiceError, match="no valid key") as caught:
        keyless.recommend(4)
    assert caught.value.problem is not None
    assert (caught.value.status_code, caught.value.problem.title) == (401, "A key is needed")
    assert "rec-engine keys new" in caught.value.hint


def test_feedback_that_is_sent_again_counts_once(url: str, pauses: list[float]) -> None:
    lost = 2

    class Losing(httpx2.HTTPTransport):
        """Passes requests on, and loses the first answers."""

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            nonlocal lost
            answer = super().handle_request(request)
            if lost:
                lost -= 1
                answer.close()
                raise httpx2.ReadError("lost")
            return answer

    with RecEngineClient(url, api_key=KEY, transport=Losing()) as service:
        service.feedback("once", 105, "click")
        assert (lost, len(pauses)) == (0, 2)
        assert service.profile("once").n_interactions == 1


@pytest.mark.parametrize("failure", [httpx2.ReadTimeout("slow"), httpx2.Response(503), httpx2.Response(429)], ids=str)
def test_what_does_no_harm_is_sent_again(failure: httpx2.Response | Exception, pauses: list[float]) -> None:
    handler, asked = failing(2, failure, {"status": "alive"})
    assert asking(handler).health().status == "alive"
    assert len({each.headers["x-request-id"] for each in asked}) == 1
    assert 0 <= pauses[0] <= 0.1
    assert 0 <= pauses[1] <= 0.2


def whole(sent: BufferedIOBase) -> bytes:
    """Return one request or answer."""
    head = list(iter(sent.readline, b"\r\n"))
    lengths = [int(line.partition(b":")[2]) for line in head if line.lower().startswith(b"content-length:")]
    return b"".join(head) + b"\r\n" + sent.read(sum(lengths))


@contextmanager
def losing_answers(url: str, n: int) -> Iterator[str]:
    """Yield where the service answers too, but for the first n answers: the connection ends before they are sent."""
    port, left = int(url.rpartition(":")[2]), [n]

    class Relay(StreamRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as service:
                service.sendall(whole(self.rfile))
                answer = whole(service.makefile("rb"))
            left[0] -= 1
            if left[0] < 0:
                self.request.sendall(answer)

    with ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{relay.server_address[1]}"
        relay.shutdown()


def test_what_was_deleted_by_an_attempt_whose_answer_was_lost_is_deleted(url: str, pauses: list[float]) -> None:
    with RecEngineClient(url, api_key=KEY) as service:
        service.put_rule("lost", PinRule(action="pin", items=["101"]))
        service.put_items([Item(item_id="lost", title="Lost")])
        with losing_answers(url, 1) as flaky, RecEngineClient(flaky, api_key=KEY) as via:
            via.delete_rule("lost")
        with losing_answers(url, 1) as flaky, RecEngineClient(flaky, api_key=KEY) as via:
            via.delete_item("lost")
        assert "lost" not in [each.rule_id for each in service.rules().rules]
        with pytest.raises(ServiceError, match="there is no rule") as refused:
            service.delete_rule("lost")
        assert refused.value.status_code == 404
    assert len(pauses) == 2


def test_a_rollback_whose_answer_was_lost_does_not_go_back_twice(model_dir: Path, second: Path, tmp_path: Path) -> None:
    registry = tmp_path / "models"
    shutil.copytree(model_dir, registry)
    for name in (second.name, "20200101-000000-aaaaaa"):
        shutil.copytree(second, registry / name)
        manifest = registry / name / MANIFEST
        manifest.write_text(manifest.read_text(encoding="utf-8").replace(second.name, name), encoding="utf-8")
        promote(registry, name)
    with served(registry, tmp_path / "events.db", 1) as (url, _):
        with losing_answers(url, 1) as flaky, RecEngineClient(flaky) as via:
            with pytest.raises(ServiceError, match="no answer"):
                via.roll_back(leaving="20200101-000000-aaaaaa")
            with pytest.raises(ServiceError, match="is not the current version") as refused:
                via.roll_back(leaving="20200101-000000-aaaaaa")
        assert refused.value.status_code == 409
    assert ModelRegistry(registry).current() == second.name


def test_a_step_of_an_experiment_is_sent_again_only_where_nothing_can_have_happened(pauses: list[float]) -> None:
    for failure in (httpx2.ReadTimeout("slow"), httpx2.Response(503, text="a proxy")):
        handler, asked = failing(1, failure, {})
        with pytest.raises(ServiceError, match=r"no answer|503 Service Unavailable: a proxy"):
            asking(handler).step_experiment("variety", "start")
        assert len(asked) == 1
    for never_met in (httpx2.ConnectError("refused"), httpx2.Response(429)):
        handler, asked = failing(5, never_met, {})
        with pytest.raises(ServiceError):
            asking(handler).step_experiment("variety", "start")
        assert len(asked) == 3


def test_a_pause_that_is_asked_for_is_kept_unless_it_is_too_long(pauses: list[float]) -> None:
    handler, _ = failing(1, httpx2.Response(429, headers={"retry-after": "2"}), {"status": "alive"})
    asking(handler).health()
    assert 2 <= pauses[0] <= 2.1
    handler, asked = failing(1, httpx2.Response(429, headers={"retry-after": "3600"}), {"status": "alive"})
    with pytest.raises(ServiceError):
        asking(handler).health()
    assert len(asked) == 1


def test_no_refusal_is_asked_for_twice() -> None:
    handler, asked = failing(1, httpx2.Response(404, json=PROBLEM | {"request_id": "1"}), {})
    with pytest.raises(ServiceError, match="GET /similar-items/a%2Fb: no such item") as caught:
        asking(handler).similar_items("a/b")
    assert (len(asked), caught.value.hint) == (1, "ask")


def test_fields_of_a_newer_service_are_left_out_and_missing_ones_are_told() -> None:
    handler, _ = failing(0, httpx2.Response(200), {"status": "alive", "since": 5})
    assert asking(handler).health().model_dump() == {"status": "alive"}
    handler, _ = failing(0, httpx2.Response(200), {"status": "ready"})
    with pytest.raises(ServiceError, match="GET /ready: model_version: Field required"):
        asking(handler).ready()


def test_a_service_that_is_not_there() -> None:
    with RecEngineClient(f"http://127.0.0.1:{free_port()}", attempts=1) as service:
        with pytest.raises(ServiceError, match="GET /ready: no answer") as caught:
            service.ready()
        assert caught.value.status_code is None
    with pytest.raises(ServiceError, match="no answer") as caught:
        RecEngineClient("example").ready()
    with pytest.raises(ConfigError, match="at least once"):
        RecEngineClient(attempts=0)


def test_only_what_was_given_is_sent() -> None:
    handler, asked = failing(0, httpx2.Response(200), {"n_new": 1, "n_changed": 0})
    asking(handler).put_items([Item(item_id=1, title="One")])
    assert json.loads(asked[0].content) == {"items": [{"item_id": 1, "title": "One"}]}


def test_pauses_grow_up_to_a_bound() -> None:
    call = client_calls.Call("GET", "/health", dict[str, object])
    drawn = [client_calls.pause_seconds(call, httpx2.Response(503), 12, 20) or 0 for _ in range(200)]
    assert 5 < max(drawn) <= client_calls.LONGEST_PAUSE_SECONDS


def test_the_client_loads_neither_the_service_nor_the_training_stack() -> None:
    heavy = {"faiss", "fastapi", "lightgbm", "numba", "onnxruntime", "scipy", "sqlalchemy", "starlette", "torch"}
    code = f"import sys, rec_engine.client; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_id_of_dots_leads_to_its_own_path() -> None:
    paths: list[bytes] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        paths.append(request.url.raw_path)
        return httpx2.Response(204)

    for item_id in (".", "..", "...", "a/.."):
        asking(handle).delete_item(item_id)
    assert paths == [b"/items/%2E", b"/items/%2E%2E", b"/items/...", b"/items/a%2F.."]


def test_an_answer_that_cannot_be_unpacked_is_told() -> None:
    broken = httpx2.Response(200, headers={"content-encoding": "gzip"}, stream=httpx2.ByteStream(b"no gzip"))
    with pytest.raises(ServiceError, match="DecodingError"):
        asking(lambda _: broken, attempts=1).health()


def test_a_pause_that_is_no_number_is_none(pauses: list[float]) -> None:
    handle, asked = failing(1, httpx2.Response(503, headers=[(b"retry-after", b"\xb2")]), {"status": "alive"})
    asking(handle).health()
    assert (len(asked), len(pauses)) == (2, 1)
