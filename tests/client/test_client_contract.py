"""The clients against the OpenAPI document: every route, every field, no more."""

import importlib.util
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import httpx2
import pytest
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from rec_engine.client import AsyncRecEngineClient, FeedbackEvent, Item, RecEngineClient
from rec_engine.experiments.proposal import Proposal
from rec_engine.serving.rule_schemas import DryRunRequest, PinRule

ROOT = Path(__file__).parents[2]
TAKEN_WHOLE: Mapping[str, object] = {
    "asked": DryRunRequest(user_ids=[1]),
    "events": [FeedbackEvent(user_id=1, item_id=1, action="view")],
    "items": [Item(item_id=1)],
    "proposal": Proposal(experiment_id="a", name="A"),
    "rule": PinRule(action="pin", items=[1]),
}
"""Arguments that are models of the service itself: their fields are the route's by definition."""
METHODS = [name for name, _ in inspect.getmembers(RecEngineClient, inspect.isfunction) if name[0] != "_"]
ROUTES = [name for name in METHODS if name != "close"]
STEPS = {"start", "pause", "resume", "stop"}


class Sent(Exception):
    """Carries the request out of the client."""

    def __init__(self, request: httpx2.Request) -> None:
        super().__init__()
        self.request = request


def sent_by(name: str) -> httpx2.Request:
    """Return what a method sends when it is given every argument."""

    def catch(request: httpx2.Request) -> httpx2.Response:
        raise Sent(request)

    service = RecEngineClient(transport=httpx2.MockTransport(catch))
    method = getattr(service, name)
    arguments = {each: TAKEN_WHOLE.get(each, f"<{each}>") for each in inspect.signature(method).parameters}
    with pytest.raises(Sent) as caught:
        method(**arguments)
    return caught.value.request


def resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


@pytest.fixture
def document(client: TestClient) -> Mapping[str, Any]:
    found: Mapping[str, Any] = client.get("/openapi.json").json()
    return found


def operation(document: Mapping[str, Any], request: httpx2.Request) -> tuple[str, Mapping[str, Any]]:
    """Return the template of the path that a request is for, and what the document says of it."""
    parts = request.url.path.split("/")
    for template, methods in document["paths"].items():
        wanted = template.split("/")
        fits = len(wanted) == len(parts) and all(
            part == f"<{want[1:-1]}>" if want[0:1] == "{" else part == want
            for part, want in zip(parts, wanted, strict=True)
        )
        if fits and request.method.lower() in methods:
            return f"{request.method} {template}", methods[request.method.lower()]
    raise AssertionError(f"{request.method} {request.url.path} is no route of the service")


def test_every_route_has_a_method_and_every_method_a_route(document: Mapping[str, Any]) -> None:
    described = {f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs}
    assert {operation(document, sent_by(name))[0] for name in ROUTES} == described
    assert len(ROUTES) == len(described)


@pytest.mark.parametrize("name", ROUTES)
def test_a_method_sends_every_field_of_its_route_and_no_other(name: str, document: Mapping[str, Any]) -> None:
    request = sent_by(name)
    _, described = operation(document, request)
    query = {each["name"] for each in described.get("parameters", []) if each["in"] == "query"}
    assert set(request.url.params) == query
    if "requestBody" not in described:
        assert request.content == b""
        return
    parameters = get_type_hints(getattr(RecEngineClient, name)).keys()
    if parameters & {"proposal", "rule", "asked"}:  # the body is the service's own model
        return
    body = resolved(document, described["requestBody"]["content"]["application/json"]["schema"])
    assert set(json.loads(request.content)) == set(body["properties"])


@pytest.mark.parametrize("name", ROUTES)
def test_a_method_reads_every_field_of_its_answer_and_no_other(name: str, document: Mapping[str, Any]) -> None:
    _, described = operation(document, sent_by(name))
    answer = get_type_hints(getattr(RecEngineClient, name))["return"]
    success = next(each for status, each in described["responses"].items() if status[0] == "2")
    if "content" not in success:
        assert answer is type(None)
        return
    ((kind, content),) = success["content"].items()
    if kind != "application/json":
        assert answer is str
        return
    read = TypeAdapter(answer).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    within = {"components": {"schemas": read.get("$defs", {})}}
    assert fields(within, read) == fields(document, content["schema"])


def fields(document: Mapping[str, Any], schema: Mapping[str, Any], seen: frozenset[str] = frozenset()) -> set[str]:
    """Return the paths of all fields below a schema; each type is entered once on the way down."""
    found: set[str] = set()
    if (name := str(schema.get("$ref", ""))) in seen and name:
        return found
    schema, seen = resolved(document, schema), seen | {name}
    for field, below in schema.get("properties", {}).items():
        found |= {field} | {f"{field}.{each}" for each in fields(document, below, seen)}
    for below in [*schema.get("anyOf", []), *schema.get("oneOf", []), schema.get("items", {})]:
        found |= fields(document, below, seen) if isinstance(below, dict) and below else set()
    return found


def test_arguments_are_typed_as_the_service_reads_them() -> None:
    hints = get_type_hints(RecEngineClient.step_experiment)
    assert set(hints["step"].__args__) == STEPS


def test_the_asynchronous_client_is_made_from_the_other() -> None:
    spec = importlib.util.spec_from_file_location("async_client", ROOT / "scripts/async_client.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.ASYNC.read_text(encoding="utf-8") == script.asynchronous(script.SYNC.read_text(encoding="utf-8"))
    asynchronous = {
        name for name, method in vars(AsyncRecEngineClient).items() if inspect.iscoroutinefunction(method)
    } - {"_send", "__aenter__", "__aexit__"}
    assert asynchronous == {*ROUTES, "aclose"}
