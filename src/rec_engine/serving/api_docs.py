"""The page on all routes at `/docs`: Swagger UI as it was released, from this service and without any other."""

from pathlib import Path

from starlette.routing import Route

from rec_engine.serving.static_files import page_routes

DIRECTORY = Path(__file__).parents[1] / "api_docs"
POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No code but the files' own; Swagger UI has styles in its markup, and pictures within its style sheet."""


def api_docs_routes() -> list[Route]:
    """Return the routes of the page: `/docs`, and its files below it."""
    return page_routes(DIRECTORY, "/docs", "/docs", POLICY)
