"""What every route has in common: ids and times on every answer, bounds on every request, errors as problem JSON."""

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rec_engine.errors import RecEngineError
from rec_engine.serving.hosts import Hosts
from rec_engine.serving.security import Gate
from rec_engine.serving.state_schemas import Problem
from rec_engine.serving.telemetry import Telemetry
from rec_engine.utils.logger import get_logger, request_id_of_context

MAX_BODY_BYTES = 1024 * 1024
PROBLEM_JSON = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""What a client may call its request; everything else is replaced, for it goes into headers, logs and the store."""

logger = get_logger(__name__)
access_logger = get_logger("rec_engine.access")


def add_error_handlers(app: FastAPI) -> None:
    """Let every error of the app be answered as problem JSON (RFC 9457)."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)


class Edge:
    """The outermost layer: stamps answers with id and time, counts them, and refuses what may not come in.

    Args:
        app: what answers.
        gate: who may come in.
        hosts: by which names the service may be asked.
        telemetry: counts requests.
        direct: method and path to the routes that are answered without going through the app.
        answer_seconds: how long the app may take.
        writes_access_log: whether every request leaves a line in the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate,
        hosts: Hosts,
        telemetry: Telemetry,
        direct: Mapping[tuple[str, str], Route],
        *,
        answer_seconds: float,
        writes_access_log: bool,
    ) -> None:
        self.app = app
        self.gate = gate
        self.hosts = hosts
        self.telemetry = telemetry
        self.direct = direct
        self.answer_seconds = answer_seconds
        self.writes_access_log = writes_access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        request_id_of_context.set(request_id)
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                seconds = b"%.6f" % (time.perf_counter() - started)
                message["headers"] += [(b"x-request-id", request_id.encode()), (b"x-process-time", seconds)]
            await send(message)

        try:
            await self._answer(scope, headers)(scope, receive, stamped)
        except ClientDisconnect:
            status = status or CLIENT_CLOSED_REQUEST
        except Exception as error:
            if status:
                logger.exception("%s failed while it was answered", _named(scope))
                raise
            await _answer_to(error, Request(scope))(scope, receive, stamped)
        finally:
            self._note(scope, status or 500, time.perf_counter() - started)

    def _answer(self, scope: Scope, headers: Mapping[bytes, bytes]) -> ASGIApp:
        """Return what answers a request: a refusal, a route or the app."""
        if refusal := self._refusal(scope, headers):
            return refusal
        route = self.direct.get((scope["method"], scope["path"]))
        if route is None:
            return self._in_time
        scope["route"] = route
        return route.app

    async def _in_time(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer.

        Raises:
            HTTPException: if it takes too long.
        """
        try:
            async with asyncio.timeout(self.answer_seconds):
                await self.app(scope, receive, send)
        except TimeoutError:
            detail = f"no answer within {self.answer_seconds:g} s"
            raise HTTPException(503, detail, {"Retry-After": "1"}) from None

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> JSONResponse | None:
        if not self.hosts.allow(headers.get(b"host")):
            hint = "ask for localhost, or name the host in security.allowed_hosts"
            return problem(Request(scope), 421, "this is not the service of that host", hint=hint)
        client = scope["client"][0] if scope.get("client") else "unknown"
        if refused := self.gate.refusal(scope["method"], scope["path"], scope["headers"], client):
            request = Request(scope)
            return problem(request, refused.status, refused.detail, hint=refused.hint, headers=refused.headers)
        if b"transfer-encoding" in headers:
            return problem(Request(scope), 411, "send the body with its length, not in chunks")
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > MAX_BODY_BYTES:
            detail = f"the body has {declared.decode('latin-1')} bytes, {MAX_BODY_BYTES} are allowed"
            return problem(Request(scope), 413, detail)
        return None

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        self.telemetry.request_done(getattr(scope.get("route"), "path_format", None), status, seconds)
        if self.writes_access_log:
            fields = {"route": _named(scope), "status": status, "duration_ms": round(1_000 * seconds, 3)}
            access_logger.info("%(route)s %(status)d in %(duration_ms).3f ms", fields, extra={"fields": fields})


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the client's own id of its request where it is well-formed, else a new UUID (RFC 9562, version 7)."""
    given = headers.get(b"x-request-id")
    if given and REQUEST_ID.fullmatch(given):
        return given.decode()
    # Times come first, so that the log's index of ids grows at its end. Random bits need not come from the kernel,
    # which costs more: ids have to be unique, nobody need be unable to guess them.
    drawn = f"{random.getrandbits(76):019x}"  # noqa: S311
    milliseconds = f"{time.time_ns() // 1_000_000:012x}"
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7{drawn[:3]}-a{drawn[3:6]}-{drawn[7:]}"


def _named(scope: Scope) -> str:
    """Return method and route of a request: the template and not the path, which may name a user."""
    return f"{scope['method']} {getattr(scope.get('route'), 'path_format', 'other')}"


def _answer_to(error: Exception, request: Request) -> JSONResponse:
    """Return the problem that an error is answered with; one that nobody foresaw is logged."""
    for kind, handler in HANDLERS.items():
        if isinstance(error, kind):
            return handler(request, error)
    logger.error("%s failed", _named(request.scope), exc_info=error)
    return problem(request, 500, "an error of the service; its log names this request id")


def problem(
    request: Request, status: int, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return problem JSON (RFC 9457)."""
    name, title = TITLES.get(status, ("error", "Error"))
    described = Problem(
        type=f"urn:rec-engine:problem:{name}",
        title=title,
        status=status,
        detail=detail.encode(errors="replace").decode(),
        hint=hint,
        request_id=request.state.request_id,
    )
    return JSONResponse(described.model_dump(), status, dict(headers or {}), media_type=PROBLEM_JSON)


def _on_our_error(request: Request, error: Exception) -> JSONResponse:
    ours = error if isinstance(error, RecEngineError) else RecEngineError(str(error))
    headers = {"Retry-After": "1"} if ours.status == 503 else None
    return problem(request, ours.status, str(ours), hint=ours.hint, headers=headers)


def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    message = str(first["msg"]).removeprefix("Value error, ")
    return problem(request, 422, f"{field}: {message}", hint="the schema of every request is at /docs")


def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    detail = f"{request.method} {request.url.path}: {getattr(error, 'detail', error)}"
    return problem(request, status, detail, hint="the routes are listed at /docs", headers=headers)


HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], JSONResponse]] = {
    RecEngineError: _on_our_error,
    RequestValidationError: _on_invalid_request,
    HTTPException: _on_http_error,
}

TITLES = {
    400: ("bad-request", "The request is no valid HTTP or JSON"),
    401: ("unauthorised", "A key is needed"),
    403: ("forbidden", "The key does not allow this"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    409: ("conflict", "Not possible in the present state"),
    411: ("length-required", "Length required"),
    413: ("too-large", "Request too large"),
    421: ("misdirected", "Asked by a name that is not this service's"),
    422: ("invalid-request", "The request cannot be used"),
    429: ("too-many-requests", "Too many requests"),
    500: ("internal", "Error of the service"),
    503: ("unavailable", "Not available"),
}
"""Status to the stable name in `type`, and what people read."""

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": title, "content": {PROBLEM_JSON: {"schema": Problem.model_json_schema()}}}
    for status, (_, title) in TITLES.items()
}
"""How the OpenAPI document describes the errors that any route may answer with."""
