"""The routes by which people look at what there is and what goes on; the dashboard is made of them."""

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from rec_engine.data.columns import MAX_ID_LENGTH
from rec_engine.data.log_tail import Tail
from rec_engine.serving import explore, versions
from rec_engine.serving.engine import Engine
from rec_engine.serving.explore_schemas import (
    Access,
    AnswerList,
    CategoryList,
    Changed,
    EventList,
    ItemDetails,
    ItemsFound,
    ModelVersions,
    Promotion,
    Rollback,
    UserList,
)
from rec_engine.serving.path_ids import PathId
from rec_engine.serving.reports import report_response
from rec_engine.serving.schemas import RecommendRequest, RecommendResponse
from rec_engine.serving.security import Gate

NO_NUL = r"^[^\x00]*$"
Text = Annotated[str, Query(max_length=MAX_ID_LENGTH, pattern=NO_NUL)]
AskedId = Annotated[str | None, Query(min_length=1, max_length=MAX_ID_LENGTH, pattern=NO_NUL)]
Count = Annotated[int, Query(ge=1, le=100)]
First = Annotated[int, Query(ge=0, le=10_000)]
Position = Annotated[int, Query(ge=0, lt=2**63)]


def add_catalogue(app: FastAPI, engine: Engine) -> None:
    """Let people look at items and users, and at what a user would get."""

    @app.post("/recommend/preview", response_model=RecommendResponse)
    async def preview(request: Request, body: RecommendRequest) -> Response:
        """Answer as /recommend would, and let nothing remember it: no log, cache, experiment or count.

        `context.recent_items` says what would be if the user met these items as well.
        """
        if body.explain:
            await engine.prepare_to_explain()
        answer = explore.preview(engine, body, request.state.request_id)
        return Response(answer, media_type="application/json")

    @app.get("/items")
    async def items(query: Text = "", category: AskedId = None, first: First = 0, num_items: Count = 20) -> ItemsFound:
        """Find items by how words of their titles begin, or by their id; those that most users met come first."""
        return await explore.find_items(engine, query, category, first, num_items)

    @app.get("/items/{item_id:path}")
    async def item(item_id: PathId) -> ItemDetails:
        """Describe an item."""
        return await explore.describe_item(engine, item_id)

    @app.get("/categories")
    async def categories() -> CategoryList:
        """List the categories."""
        return explore.categories(engine)

    @app.get("/users")
    async def users(prefix: Text = "", num_users: Count = 20) -> UserList:
        """List users of the model whose ids begin so."""
        return await explore.find_users(engine, prefix, num_users)


def add_log(app: FastAPI, engine: Engine) -> None:
    """Let people look at the end of the log."""

    @app.get("/events")
    async def events(
        after: Position = 0, item_id: AskedId = None, user_id: AskedId = None, num_events: Count = 50
    ) -> EventList:
        """List the latest events; those of an item are looked for in the last 100,000 positions of the log."""
        return await explore.tail_of_log(engine, Tail(num_events, after, item_id, user_id))

    @app.get("/impressions")
    async def impressions(item_id: AskedId = None, user_id: AskedId = None, num_answers: Count = 20) -> AnswerList:
        """List the latest answers; those that showed an item are looked for among the last 2,000."""
        return await explore.latest_shown(engine, Tail(num_answers, 0, item_id, user_id))


def add_versions(app: FastAPI, engine: Engine) -> None:
    """Let people look at the versions, and change which one is served."""

    @app.get("/models")
    async def models() -> ModelVersions:
        """List the versions of the registry, and which was promoted when and why."""
        return await versions.list_versions(engine)

    @app.post("/models/rollback")
    async def rollback(body: Rollback) -> Changed:
        """Return to the version that was current before; again, to the one before that, unless `leaving` names one."""
        return await versions.roll_back(engine, body.reason, body.leaving)

    @app.post("/models/{version}/promote")
    async def promote(version: PathId, body: Promotion) -> Changed:
        """Make a version the current one after verifying its files.

        It must have passed the gate beside the current one, in training or in `rec-engine models promote`: else the
        answer is 409 with what the gate found, and `force` promotes it all the same.
        """
        return await versions.promote(engine, version, body.reason, force=body.force)

    @app.get("/models/{version}/report", response_class=HTMLResponse)
    async def report(version: PathId) -> Response:
        """Show what training found out about a version, as a page."""
        return report_response(await versions.report_of(engine, version))

    @app.get("/models/{version}/figures", response_class=JSONResponse)
    async def figures(version: PathId) -> Response:
        """Give every figure of a version's report."""
        return Response(await versions.figures_of(engine, version), media_type="application/json")


def add_access(app: FastAPI, gate: Gate) -> None:
    """Let a page find out what it may do."""

    @app.get("/access")
    async def access(request: Request) -> Access:
        """Say what the key of this request allows."""
        return Access(needs_key=gate.has_keys, scopes=gate.scopes(request.scope["headers"]))
