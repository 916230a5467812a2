"""The dashboard's files, answered from memory: a page that asks the service's own routes, and nothing else."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

DIRECTORY = Path(__file__).parents[1] / "dashboard"
START = "index.html"
POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""No code but the files' own, no style in markup; and no text becomes markup, in browsers that know trusted types."""
HEADERS = {
    "cache-control": "no-cache",  # asked again each time, and then answered by 304
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
KIND_BY_SUFFIX = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent.

    Attributes:
        content: of the file.
        kind: for `content-type`.
        etag: changes with the content.
    """

    content: bytes
    kind: str
    etag: str


def dashboard_routes() -> list[Route]:
    """Return the routes of the dashboard: `/`, and its files below `/dashboard/`."""
    files = _read(DIRECTORY)

    async def start(request: Request) -> Response:
        return _answer(request, files[START])

    async def file(request: Request) -> Response:
        found = files.get(request.path_params["path"])
        if found is None:
            raise HTTPException(404, "the dashboard has no such file")
        return _answer(request, found)

    return [Route("/", start), Route("/dashboard/{path:path}", file)]


def _read(directory: Path) -> dict[str, StaticFile]:
    """Return path below the directory to file. What is not here when the service starts is never sent."""
    files = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            kind = KIND_BY_SUFFIX.get(path.suffix, "text/plain; charset=utf-8")
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            files[path.relative_to(directory).as_posix()] = StaticFile(content, kind, etag)
    return files


def _answer(request: Request, file: StaticFile) -> Response:
    headers = {**HEADERS, "etag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.kind)
