"""The route that is asked most: described as any other, answered without the machinery of the others."""

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

KEPT_BODIES, MAX_KEPT_BYTES = 4_096, 1_024
"""Bodies up to this size are kept with what they mean: some 12 MB at most."""
NOT_JSON = "Input should be a JSON object, sent with content-type: application/json"


class DirectRoute(APIRoute):
    """A route that takes one model as its body and answers JSON bytes.

    FastAPI reads the endpoint's signature for the OpenAPI document, as that of any other route; it does not run for a
    request, which costs more than a cached answer. A body that came before is not validated again: the same bytes mean
    the same, and most requests that the cache of answers knows are repeated to the byte.
    """

    def __init__(self, path: str, endpoint: Callable[[Request, Any], Awaitable[bytes]], **described: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(path, endpoint, **described)
        model = self.body_field.field_info.annotation if self.body_field else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"{path}: the endpoint takes no model as its body")
        self._model = model
        self._kept = lru_cache(KEPT_BODIES)(self._read)
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _whole_body(receive)
        if not _is_json(scope):
            raise RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": NOT_JSON}])
        asked = (self._kept if len(body) <= MAX_KEPT_BYTES else self._read)(body)
        answer = await self.endpoint(Request(scope), asked)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _read(self, body: bytes) -> BaseModel:
        """Return what a body means.

        Raises:
            RequestValidationError: as FastAPI would.
        """
        try:
            return self._model.model_validate_json(body)
        except ValidationError as error:
            found = error.errors(include_url=False)
            raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from None


async def _whole_body(receive: Receive) -> bytes:
    message = await receive()
    body = message.get("body", b"")
    while message["type"] == "http.request" and message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    whole: bytes = body
    return whole


def _is_json(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind: bytes = value.partition(b";")[0].strip().lower()
            return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))
    return False
