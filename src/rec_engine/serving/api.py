"""The HTTP service: routes, errors and headers. What an answer holds, answers.py says."""

import os
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from rec_engine.bundle import ModelBundle, open_bundle
from rec_engine.errors import RecEngineError
from rec_engine.serving.answers import Answerer
from rec_engine.serving.cache import Cache, CacheStats, open_cache
from rec_engine.serving.schemas import (
    Health,
    ModelStatus,
    Problem,
    Ready,
    RecommendRequest,
    RecommendResponse,
    SimilarItemsResponse,
)
from rec_engine.utils.config import ServingConfig
from rec_engine.utils.logger import configure_logging, get_logger

MODEL_DIR_VARIABLE = "REC_ENGINE_MODEL_DIR"
CONFIG_VARIABLE = "REC_ENGINE_SERVING_CONFIG"
MAX_BODY_BYTES = 256 * 1024

logger = get_logger(__name__)


def app_from_environment() -> FastAPI:
    """Return the service that the environment describes; server processes start here."""
    configure_logging()
    config = ServingConfig.model_validate_json(os.environ.get(CONFIG_VARIABLE, "{}"))
    return create_app(open_bundle(Path(os.environ[MODEL_DIR_VARIABLE])), config, open_cache(config.redis))


def create_app(bundle: ModelBundle, config: ServingConfig, cache: Cache) -> FastAPI:
    """Return the service of one bundle."""
    answerer = Answerer(bundle, config, cache)
    app = FastAPI(
        title="rec-engine",
        summary="Recommendations, with where each one comes from.",
        responses={
            404: {"model": Problem, "description": "No such route, item or category."},
            422: {"model": Problem, "description": "The request cannot be used; the detail names the field."},
        },
    )
    app.middleware("http")(_stamp)
    app.add_exception_handler(RecEngineError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_unexpected_error)

    @app.post("/recommend")
    def recommend(request: Request, body: RecommendRequest) -> RecommendResponse:
        """Recommend items to a user: always as many as wanted, as long as so many are eligible."""
        return answerer.recommend(body, request.state.request_id)

    @app.get("/similar-items/{item_id}")
    def similar_items(
        request: Request, item_id: str, num_items: Annotated[int, Query(ge=1, le=100)] = 10
    ) -> SimilarItemsResponse:
        """List the items that are nearest to an item."""
        return answerer.similar_items(item_id, num_items, request.state.request_id)

    @app.get("/health")
    def health() -> Health:
        """Say that the process is alive."""
        return Health(status="alive")

    @app.get("/ready")
    def ready() -> Ready:
        """Say that a model is loaded and requests can be answered."""
        return Ready(status="ready", model_version=bundle.version)

    @app.get("/model/status")
    def model_status() -> ModelStatus:
        """Describe the model that is served."""
        return _model_status(bundle)

    @app.get("/cache/stats")
    def cache_stats() -> CacheStats:
        """Count what the cache did for this server process."""
        return cache.stats()

    return app


def _model_status(bundle: ModelBundle) -> ModelStatus:
    return ModelStatus(
        version=bundle.version,
        created_at=bundle.manifest.created_at.isoformat(),
        dataset=bundle.manifest.dataset,
        dataset_fingerprint=bundle.manifest.dataset_fingerprint,
        n_users=len(bundle.user_ids),
        n_items=len(bundle.item_ids),
        n_interactions=len(bundle.history),
        index_type=bundle.index.settings.index_type,
        index_recall=bundle.index.recall,
        has_ranker=bundle.ranker is not None,
        metrics=bundle.metrics,
    )


async def _stamp(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Give every answer its id and time; refuse bodies that no valid request needs."""
    started = time.perf_counter()
    request.state.request_id = str(uuid.uuid4())
    declared = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers:
        response: Response = _problem(request, 411, "send the body with its length, not in chunks")
    elif not declared.isdecimal() or int(declared) > MAX_BODY_BYTES:
        response = _problem(request, 413, f"the body has {declared} bytes, {MAX_BODY_BYTES} are allowed")
    else:
        response = await call_next(request)
    response.headers["X-Request-ID"] = request.state.request_id
    response.headers["X-Process-Time"] = f"{time.perf_counter() - started:.6f}"
    return response


async def _on_our_error(request: Request, error: Exception) -> JSONResponse:
    ours = error if isinstance(error, RecEngineError) else RecEngineError(str(error))
    return _problem(request, ours.status, str(ours), hint=ours.hint)


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    field = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    message = str(first["msg"]).removeprefix("Value error, ")
    return _problem(request, 422, f"{field}: {message}", hint="the schema of every request is at /docs")


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    detail = f"{request.method} {request.url.path}: {getattr(error, 'detail', error)}"
    return _problem(request, status, detail, hint="the routes are listed at /docs", headers=headers)


async def _on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _problem(request, 500, "an error of the service; its log names this request id")


def _problem(
    request: Request, status: int, detail: str, *, hint: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return problem JSON (RFC 9457)."""
    name, title = TITLES.get(status, ("error", "Error"))
    problem = Problem(
        type=f"urn:rec-engine:problem:{name}",
        title=title,
        status=status,
        detail=detail.encode(errors="replace").decode(),
        hint=hint,
        request_id=request.state.request_id,
    )
    media_type = "application/problem+json"
    return JSONResponse(problem.model_dump(), status, dict(headers or {}), media_type=media_type)


TITLES = {
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    411: ("length-required", "Length required"),
    413: ("too-large", "Request too large"),
    422: ("invalid-request", "The request cannot be used"),
    500: ("internal", "Error of the service"),
    503: ("unavailable", "Not available"),
}
"""Status to the stable name in `type`, and what people read."""
