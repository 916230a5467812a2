"""What every route has in common: ids and times on every answer, bounds on every request, errors as problem JSON."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rec_engine.errors import RecEngineError
from rec_engine.serving.security import Gate
from rec_engine.serving.state_schemas import Problem
from rec_engine.serving.telemetry import Telemetry
from rec_engine.utils.logger import get_logger

MAX_BODY_BYTES = 1024 * 1024
PROBLEM_JSON = "application/problem+json"

logger = get_logger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    """Let every error of the app be answered as problem JSON (RFC 9457)."""
    app.add_exception_handler(RecEngineError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)


class Edge:
    """The outermost layer: stamps answers with id and time, counts them, and refuses what may not come in.

    Args:
        app: what answers.
        gate: who may come in.
        telemetry: counts requests.
    """

    def __init__(self, app: ASGIApp, gate: Gate, telemetry: Telemetry) -> None:
        self.app = app
        self.gate = gate
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                seconds = f"{time.perf_counter() - started:.6f}"
                message["headers"] += [(b"x-request-id", request_id.encode()), (b"x-process-time", seconds.encode())]
            await send(message)

        answer = self._refusal(scope) or self.app
        try:
            await answer(scope, receive, stamped)
        except Exception:
            logger.exception("%s %s failed, request id %s", scope["method"], scope["path"], request_id)
            if status:
                raise
            failure = problem(Request(scope), 500, "an error of the service; its log names this request id")
            await failure(scope, receive, stamped)
        finally:
            route = getattr(scope.get("route"), "path", None)
            self.telemetry.request_done(route, status or 500, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        request, headers = Request(scope), dict(scope["headers"])
        client = scope["client"][0] if scope.get("client") else "unknown"
        if refused := self.gate.refusal(scope["method"], scope["path"], scope["headers"], client):
            return problem(request, refused.status, refused.detail, hint=refused.hint, headers=refused.headers)
        declared = headers.get(b"content-length", b"0").decode("latin-1")
        if b"transfer-encoding" in headers:
            return problem(request, 411, "send the body with its length, not in chunks")
        if not declared.isdecimal() or int(declared) > MAX_BODY_BYTES:
            return problem(request, 413, f"the body has {declared} bytes, {MAX_BODY_BYTES} are allowed")
        return None


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


async def _on_our_error(request: Request, error: Exception) -> JSONResponse:
    ours = error if isinstance(error, RecEngineError) else RecEngineError(str(error))
    headers = {"Retry-After": "1"} if ours.status == 503 else None
    return problem(request, ours.status, str(ours), hint=ours.hint, headers=headers)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    message = str(first["msg"]).removeprefix("Value error, ")
    return problem(request, 422, f"{field}: {message}", hint="the schema of every request is at /docs")


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    detail = f"{request.method} {request.url.path}: {getattr(error, 'detail', error)}"
    return problem(request, status, detail, hint="the routes are listed at /docs", headers=headers)


TITLES = {
    400: ("bad-request", "The request is no valid HTTP or JSON"),
    401: ("unauthorised", "A key is needed"),
    403: ("forbidden", "The key does not allow this"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    409: ("conflict", "Not possible in the present state"),
    411: ("length-required", "Length required"),
    413: ("too-large", "Request too large"),
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
