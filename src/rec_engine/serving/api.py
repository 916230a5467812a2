"""The HTTP service: its routes. What every route has in common is in web.py, what an answer holds in answers.py."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from rec_engine.bundle import CURRENT
from rec_engine.data.columns import MAX_ID_LENGTH
from rec_engine.data.events import EventStore
from rec_engine.experiments.assignment import Assignment
from rec_engine.experiments.definition import Experiment
from rec_engine.experiments.proposal import Proposal
from rec_engine.serving.api_docs import api_docs_routes
from rec_engine.serving.cache import CacheStats, stats_of
from rec_engine.serving.dashboard import dashboard_routes
from rec_engine.serving.direct import DirectRoute
from rec_engine.serving.engine import Engine
from rec_engine.serving.experiment_schemas import (
    EffectsOverTime,
    PlanRequest,
    PlanResponse,
    Ramp,
    Reason,
    Step,
)
from rec_engine.serving.explore_routes import add_access, add_catalogue, add_log, add_versions
from rec_engine.serving.hosts import Hosts
from rec_engine.serving.opening import open_served
from rec_engine.serving.path_ids import PathId
from rec_engine.serving.protocol import BoundedProtocol
from rec_engine.serving.reports import report_response
from rec_engine.serving.rule_schemas import DryRunRequest, DryRunResponse, Rule, RuleId, RuleList, RuleView
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
    ShadowStatus,
    UserProfile,
)
from rec_engine.serving.telemetry import open_telemetry
from rec_engine.serving.tracing import is_traced, telemetry_of_fastapi
from rec_engine.serving.two_level_cache import open_cache
from rec_engine.serving.web import PROBLEMS, Edge, add_error_handlers
from rec_engine.utils.config import ServingConfig
from rec_engine.utils.logger import configure_logging, get_logger

MODEL_DIR_VARIABLE = "REC_ENGINE_MODEL_DIR"
CONFIG_VARIABLE = "REC_ENGINE_SERVING_CONFIG"
VERIFIED_VARIABLE = "REC_ENGINE_VERIFIED_MODEL"
RECOMMEND = "/recommend"
STANDING_SECONDS = 1.0

UserId = Annotated[str, Query(min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^[^\x00]+$")]
NumItems = Annotated[int, Query(ge=1, le=100)]
TimeWindow = Annotated[str, Query(pattern=r"^[1-9][0-9]{0,3}[hd]$", description="hours or days, such as 24h or 7d")]

logger = get_logger(__name__)


def app_from_environment() -> FastAPI:
    """Return the service that the environment describes; server processes start here."""
    config = ServingConfig.model_validate_json(os.environ.get(CONFIG_VARIABLE, "{}"))
    configure_logging(config.logging.level, config.logging.style)
    BoundedProtocol.receive_seconds = config.api.receive_seconds
    model_dir = Path(os.environ[MODEL_DIR_VARIABLE])
    registry = model_dir if (model_dir / CURRENT).is_file() else None
    store = EventStore(config.store.url)
    bundle = open_served(model_dir, config, verified=os.environ.get(VERIFIED_VARIABLE))
    return create_app(Engine(bundle, config, open_cache(config.redis), store, open_telemetry(), model_dir=registry))


def create_app(engine: Engine) -> FastAPI:
    """Return the service that answers from an engine, and closes it at the end."""
    traced = is_traced(os.environ)

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
        telemetry=telemetry_of_fastapi(traced=traced),
        docs_url=None,  # its pages load their scripts from elsewhere
        redoc_url=None,
    )
    add_error_handlers(app)
    direct = _add_recommend(app, engine)
    _add_recommendations(app, engine)
    _add_items(app, engine)
    _add_rules(app, engine)
    _add_experiments(app, engine)
    _add_experiment_steps(app, engine)
    _add_feedback(app, engine)
    _add_status(app, engine)
    gate = Gate(engine.config.security)
    add_catalogue(app, engine)
    add_log(app, engine)
    add_versions(app, engine)
    add_access(app, gate)
    app.router.routes.extend(api_docs_routes())
    if engine.config.api.dashboard:
        app.router.routes.extend(dashboard_routes())
    # FastAPI's router is what gives a span the name of its route.
    _add_edge(app, engine, gate, {} if traced else direct)
    return app


def _add_edge(app: FastAPI, engine: Engine, gate: Gate, direct: Mapping[tuple[str, str], Route]) -> None:
    config = engine.config
    app.add_middleware(
        Edge,
        gate=gate,
        hosts=Hosts.of(config),
        telemetry=engine.telemetry,
        direct=direct,
        answer_seconds=config.api.answer_seconds,
        writes_access_log=config.logging.access,
    )
    if config.api.cors_origins:
        methods = {method for route in app.routes if isinstance(route, Route) for method in route.methods or ()}
        # Outside of the edge: a browser asks beforehand without a key.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.api.cors_origins,
            allow_methods=sorted(methods),
            allow_headers=["authorization", "content-type", "traceparent", "x-api-key", "x-request-id"],
            expose_headers=["retry-after", "x-process-time", "x-request-id"],
        )


def _add_recommend(app: FastAPI, engine: Engine) -> dict[tuple[str, str], Route]:
    """Return the route by method and path."""

    async def recommend(request: Request, body: RecommendRequest) -> bytes:
        """Recommend items to a user: always as many as wanted, as long as so many are eligible."""
        if body.explain:
            await engine.prepare_to_explain()
        return engine.recommend(body, request.scope["state"]["request_id"])

    app.router.add_api_route(
        RECOMMEND, recommend, methods=["POST"], response_model=RecommendResponse, route_class_override=DirectRoute
    )
    return {("POST", RECOMMEND): next(route for route in app.routes if isinstance(route, DirectRoute))}


def _add_recommendations(app: FastAPI, engine: Engine) -> None:
    @app.get("/similar-items/{item_id:path}")
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
        return engine.why_not(asked.request(), asked.item_id, asked.request_id)


def _add_items(app: FastAPI, engine: Engine) -> None:
    @app.post("/items")
    async def put_items(body: ItemBatch) -> ItemsAccepted:
        """Add items or change them; the next answer knows them, no training is needed."""
        return await engine.put_items(body.items)

    @app.delete("/items/{item_id:path}", status_code=204)
    async def delete_item(item_id: PathId) -> None:
        """Take an item out of the catalogue: no answer shows it any more."""
        await engine.delete_item(item_id)


def _add_rules(app: FastAPI, engine: Engine) -> None:
    @app.get("/rules")
    async def rules() -> RuleList:
        """List the rules of the shop, and how each of them stands."""
        return engine.rules()

    @app.put("/rules/{rule_id}")
    async def put_rule(rule_id: RuleId, body: Rule) -> RuleView:
        """Add a rule or change it; the next answer of every worker follows it."""
        return await engine.put_rule(rule_id, body)

    @app.delete("/rules/{rule_id}", status_code=204)
    async def delete_rule(rule_id: RuleId) -> None:
        """Take a rule away."""
        await engine.delete_rule(rule_id)

    @app.post("/rules/dry-run")
    async def dry_run(body: DryRunRequest) -> DryRunResponse:
        """Say what rules would change for some users; nothing is kept."""
        return await engine.dry_run(body)


def _add_experiments(app: FastAPI, engine: Engine) -> None:
    experiments = engine.experiments

    @app.get("/experiments")
    async def list_experiments() -> list[Experiment]:
        """List all experiments."""
        return experiments.all()

    @app.post("/experiments")
    async def create_experiment(body: Proposal) -> Experiment:
        """Plan an experiment; nobody meets it before it is started."""
        return await experiments.create(body)

    @app.post("/experiments/plan")
    async def plan_experiment(body: PlanRequest) -> PlanResponse:
        """Say how many users and days an experiment would take, by what users have done so far."""
        return PlanResponse.of(await experiments.plan(body.proposal, body.past_days))

    @app.get("/experiments/{experiment_id}")
    async def get_experiment(experiment_id: PathId) -> Experiment:
        """Describe an experiment."""
        return experiments.get(experiment_id)

    @app.put("/experiments/{experiment_id}")
    async def redefine_experiment(experiment_id: PathId, body: Proposal) -> Experiment:
        """Plan an experiment anew; once it has begun, what it is to find stands."""
        return await experiments.redefine(experiment_id, body)


def _add_experiment_steps(app: FastAPI, engine: Engine) -> None:
    experiments = engine.experiments

    @app.post("/experiments/{experiment_id}/ramp")
    async def ramp_experiment(experiment_id: PathId, body: Ramp) -> Experiment:
        """Give an experiment more users, or other shares; who met an arm stays in it."""
        return await experiments.ramp(experiment_id, body.coverage, body.shares, body.reason)

    @app.post("/experiments/{experiment_id}/{step}")
    async def step_experiment(experiment_id: PathId, step: Step, body: Reason) -> Experiment:
        """Start, pause, resume or stop an experiment; every worker knows within a second."""
        return await experiments.step(experiment_id, step, body.reason)

    @app.get("/experiments/{experiment_id}/assignment")
    async def experiment_assignment(experiment_id: PathId, user_id: UserId) -> Assignment:
        """Say which arm an experiment has for a user, and why; that he has met it is not noted."""
        return experiments.assignment(experiment_id, user_id, engine.attributes(user_id))

    @app.get("/experiments/{experiment_id}/results", response_class=JSONResponse)
    async def experiment_results(experiment_id: PathId) -> Response:
        """Say what is known of an experiment, and what to do: `recommendations.action`."""
        found = await experiments.results(experiment_id, engine.bundle.users)
        return JSONResponse(found.as_dict())

    @app.get("/experiments/{experiment_id}/effects")
    async def experiment_effects(experiment_id: PathId) -> EffectsOverTime:
        """Say what was known of an A/B test's effects at its planned looks and at the end of each day."""
        return EffectsOverTime.of(await experiments.effects(experiment_id))

    @app.get("/experiments/{experiment_id}/report", response_class=HTMLResponse)
    async def experiment_report(experiment_id: PathId) -> Response:
        """Show what is known of an experiment as a page: verdict, effects, arms, sample ratio, health, segments."""
        return report_response(await experiments.report(experiment_id, engine.bundle.users))


def _add_feedback(app: FastAPI, engine: Engine) -> None:
    @app.post("/feedback")
    async def feedback(body: FeedbackEvent) -> FeedbackResponse:
        """Keep what a user did; once answered it is on disk, and the next answer of every worker knows it."""
        return await engine.record([body])

    @app.post("/feedback/batch")
    async def feedback_batch(body: FeedbackBatch) -> FeedbackResponse:
        """Keep many events at once, all or none."""
        return await engine.record(body.events)

    @app.get("/user/{user_id:path}/profile")
    async def profile(user_id: PathId) -> UserProfile:
        """Describe what is known of a user; one of whom nothing is known has an empty profile."""
        return engine.profile(user_id)

    @app.delete("/user/{user_id:path}")
    async def erase(user_id: PathId) -> Erased:
        """Forget a user: his events and impressions are deleted, and answers know nothing of him."""
        return await engine.erase(user_id)

    @app.post("/user/{user_id:path}/invalidate-cache", status_code=204)
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

    @app.get("/models/shadow")
    async def shadow() -> ShadowStatus:
        """Compare the version that is tried beside the served one with it."""
        return engine.shadow_status()

    @app.get("/cache/stats")
    async def cache_stats() -> CacheStats:
        """Count what the cache did for this server process, level by level."""
        return await asyncio.to_thread(stats_of, engine.cache)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Count and time everything, over all server processes, as Prometheus reads it."""
        engine.tell_how_it_stands()
        text, kind = await asyncio.to_thread(engine.telemetry.render)
        return Response(text, media_type=kind)

    @app.get("/stats", response_class=JSONResponse)
    async def stats() -> Response:
        """Give the figures of `/metrics` as JSON, with percentiles."""
        engine.tell_how_it_stands()
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
