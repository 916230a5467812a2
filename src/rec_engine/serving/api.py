"""The HTTP service: its routes. What every route has in common is in web.py, what an answer holds in answers.py."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, PlainTextResponse

from rec_engine.bundle import CURRENT, open_bundle
from rec_engine.data.events import EventStore
from rec_engine.serving.cache import CacheStats, open_cache
from rec_engine.serving.engine import Engine
from rec_engine.serving.schemas import (
    RecommendRequest,
    RecommendResponse,
    SimilarItemsResponse,
    TrendingResponse,
    WhyNotRequest,
    WhyNotResponse,
)
from rec_engine.serving.security import Gate
from rec_engine.serving.state_schemas import (
    Erased,
    FeedbackBatch,
    FeedbackEvent,
    FeedbackResponse,
    Health,
    ItemBatch,
    ItemsAccepted,
    ModelStatus,
    Ready,
    UserProfile,
)
from rec_engine.serving.telemetry import open_telemetry
from rec_engine.serving.web import PROBLEMS, Edge, add_error_handlers
from rec_engine.serving.wire import MAX_ID_LENGTH
from rec_engine.utils.config import ServingConfig
from rec_engine.utils.logger import configure_logging, get_logger

MODEL_DIR_VARIABLE = "REC_ENGINE_MODEL_DIR"
CONFIG_VARIABLE = "REC_ENGINE_SERVING_CONFIG"
VERIFIED_VARIABLE = "REC_ENGINE_VERIFIED_MODEL"
STANDING_SECONDS = 1.0

PathId = Annotated[str, PathParameter(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[^\x00]+$")]
NumItems = Annotated[int, Query(ge=1, le=100)]
TimeWindow = Annotated[str, Query(pattern=r"^[1-9][0-9]{0,3}[hd]$", description="hours or days, such as 24h or 7d")]

logger = get_logger(__name__)


def app_from_environment() -> FastAPI:
    """Return the service that the environment describes; server processes start here."""
    configure_logging()
    config = ServingConfig.model_validate_json(os.environ.get(CONFIG_VARIABLE, "{}"))
    model_dir = Path(os.environ[MODEL_DIR_VARIABLE])
    registry = model_dir if (model_dir / CURRENT).is_file() else None
    store = EventStore(config.store.url)
    bundle = open_bundle(model_dir, verified=os.environ.get(VERIFIED_VARIABLE))
    return create_app(Engine(bundle, config, open_cache(config.redis), store, open_telemetry(), model_dir=registry))


def create_app(engine: Engine) -> FastAPI:
    """Return the service that answers from an engine, and closes it at the end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        standing = asyncio.create_task(_tell_how_it_stands(engine))
        yield
        standing.cancel()
        engine.close()

    app = FastAPI(
        title="rec-engine",
        summary="Recommendations, with where each one comes from.",
        lifespan=lifespan,
        responses=PROBLEMS,
    )
    app.add_middleware(Edge, gate=Gate(engine.config.security), telemetry=engine.telemetry)
    add_error_handlers(app)
    _add_recommendations(app, engine)
    _add_items(app, engine)
    _add_feedback(app, engine)
    _add_status(app, engine)
    return app


def _add_recommendations(app: FastAPI, engine: Engine) -> None:
    @app.post("/recommend", response_model=RecommendResponse)
    async def recommend(request: Request, body: RecommendRequest) -> Response:
        """Recommend items to a user: always as many as wanted, as long as so many are eligible."""
        return Response(engine.recommend(body, request.state.request_id), media_type="application/json")

    @app.get("/similar-items/{item_id}")
    async def similar_items(request: Request, item_id: PathId, num_items: NumItems = 10) -> SimilarItemsResponse:
        """List the items that are nearest to an item."""
        return engine.similar_items(item_id, num_items, request.state.request_id)

    @app.get("/trending")
    async def trending(
        request: Request, num_items: NumItems = 10, category: str | None = None, time_window: TimeWindow = "24h"
    ) -> TrendingResponse:
        """List what was met most of late; items that nobody met in that time are not among them."""
        return engine.trending(num_items, category, time_window, request.state.request_id)

    @app.get("/debug/why-not")
    async def why_not(asked: Annotated[WhyNotRequest, Query()]) -> WhyNotResponse:
        """Say which step keeps an item out of a user's answer, and by how much."""
        return engine.why_not(asked.request(), asked.item_id)


def _add_items(app: FastAPI, engine: Engine) -> None:
    @app.post("/items")
    async def put_items(body: ItemBatch) -> ItemsAccepted:
        """Add items or change them; the next answer knows them, no training is needed."""
        return await engine.put_items(body.items)

    @app.delete("/items/{item_id}", status_code=204)
    async def delete_item(item_id: PathId) -> None:
        """Take an item out of the catalogue: no answer shows it any more."""
        await engine.delete_item(item_id)


def _add_feedback(app: FastAPI, engine: Engine) -> None:
    @app.post("/feedback")
    async def feedback(body: FeedbackEvent) -> FeedbackResponse:
        """Keep what a user did; once answered it is on disk, and the next answer of every worker knows it."""
        return await engine.record([body])

    @app.post("/feedback/batch")
    async def feedback_batch(body: FeedbackBatch) -> FeedbackResponse:
        """Keep many events at once, all or none."""
        return await engine.record(body.events)

    @app.get("/user/{user_id}/profile")
    async def profile(user_id: PathId) -> UserProfile:
        """Describe what is known of a user; one of whom nothing is known has an empty profile."""
        return engine.profile(user_id)

    @app.delete("/user/{user_id}")
    async def erase(user_id: PathId) -> Erased:
        """Forget a user: his events and impressions are deleted, and answers know nothing of him."""
        return await engine.erase(user_id)

    @app.post("/user/{user_id}/invalidate-cache", status_code=204)
    async def invalidate_cache(user_id: PathId) -> None:
        """Let every worker make this user's answers anew."""
        await engine.invalidate(user_id)


def _add_status(app: FastAPI, engine: Engine) -> None:
    @app.get("/health")
    async def health() -> Health:
        """Say that the process is alive."""
        return Health(status="alive")

    @app.get("/ready")
    async def ready() -> Ready:
        """Say that a model is loaded and requests can be answered."""
        return Ready(status="ready", model_version=engine.bundle.version)

    @app.get("/model/status")
    async def model_status() -> ModelStatus:
        """Describe the model that is served."""
        return _model_status(engine)

    @app.get("/cache/stats")
    async def cache_stats() -> CacheStats:
        """Count what the cache did for this server process."""
        return engine.cache.stats()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Count and time everything, over all server processes, as Prometheus reads it."""
        text, kind = await asyncio.to_thread(engine.telemetry.render)
        return Response(text, media_type=kind)

    @app.get("/stats", response_class=JSONResponse)
    async def stats() -> Response:
        """Give the figures of `/metrics` as JSON, with percentiles."""
        return Response(await asyncio.to_thread(engine.telemetry.as_json), media_type="application/json")


async def _tell_how_it_stands(engine: Engine) -> None:
    while True:
        try:
            engine.tell_how_it_stands()
        except Exception:
            logger.exception("the figures of how the service stands are not up to date")
        await asyncio.sleep(STANDING_SECONDS)


def _model_status(engine: Engine) -> ModelStatus:
    bundle, catalogue = engine.bundle, engine.live.catalogue
    return ModelStatus(
        version=bundle.version,
        created_at=bundle.manifest.created_at.isoformat(),
        dataset=bundle.manifest.dataset,
        dataset_fingerprint=bundle.manifest.dataset_fingerprint,
        n_users=len(bundle.user_ids),
        n_items=catalogue.n_items,
        n_interactions=len(bundle.history),
        index_type=bundle.index.settings.index_type,
        index_recall=bundle.index.recall,
        has_ranker=bundle.ranker is not None,
        metrics=bundle.metrics,
        failure=engine.watch.failure if engine.watch else None,
        n_items_left_out=engine.live.n_left_out,
    )
