"""The dashboard: a page that asks the service's own routes, and nothing else."""

from pathlib import Path

from starlette.routing import Route

from rec_engine.serving.static_files import page_routes

DIRECTORY = Path(__file__).parents[1] / "dashboard"
POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No code but the files' own, no style in markup; and no text becomes markup, in browsers that know trusted types."""


def dashboard_routes() -> list[Route]:
    """Return the routes of the dashboard: `/`, and its files below `/dashboard/`."""
    return page_routes(DIRECTORY, "/", "/dashboard", POLICY)
