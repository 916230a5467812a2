"""Files of web pages, answered from memory: what is not there when the service starts is never sent."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

START = "index.html"
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


def page_routes(directory: Path, page: str, files: str, policy: str) -> list[Route]:
    """Return the routes of a page and its files.

    Args:
        directory: of the files; `index.html` is the page.
        page: path of the page.
        files: path below which its files are.
        policy: what browsers let the page do, as of `content-security-policy`.
    """
    found = _read(directory)
    headers = {
        "cache-control": "no-cache",  # asked again each time, and then answered by 304
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }

    async def start(request: Request) -> Response:
        return _answer(request, found[START], headers)

    async def file(request: Request) -> Response:
        wanted = found.get(request.path_params["path"])
        if wanted is None:
            raise HTTPException(404, "the page has no such file")
        return _answer(request, wanted, headers)

    return [Route(page, start), Route(f"{files}/{{path:path}}", file)]


def _read(directory: Path) -> dict[str, StaticFile]:
    """Return path below the directory to file."""
    files = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            kind = KIND_BY_SUFFIX.get(path.suffix, "text/plain; charset=utf-8")
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            files[path.relative_to(directory).as_posix()] = StaticFile(content, kind, etag)
    return files


def _answer(request: Request, file: StaticFile, headers: dict[str, str]) -> Response:
    sent = {**headers, "etag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=sent)
    return Response(file.content, headers=sent, media_type=file.kind)
