"""What a client of the service sends and how it reads the answer: calls, what may be sent again, problems as errors."""

import random
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx2
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json

from rec_engine.errors import RecEngineError
from rec_engine.serving.state_schemas import Problem

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
NO_CONTENT, NOT_FOUND, TOO_MANY = 204, 404, 429
NOT_AVAILABLE = frozenset({502, 503, 504})
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
CANNOT_BE_SENT = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
REPEATABLE = frozenset({"GET", "PUT", "DELETE"})

T = TypeVar("T")
Outcome = httpx2.Response | httpx2.RequestError
"""What came of sending a call once."""


class ServiceError(RecEngineError):
    """The service refused a call, failed, or did not answer.

    Attributes:
        problem: what the service said (RFC 9457); None where it did not say, as a proxy does not.
        status_code: of the answer; None where there was none.
    """

    def __init__(
        self, message: str, *, hint: str = "", problem: Problem | None = None, status_code: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.problem = problem
        self.status_code = status_code


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and the type of its answer.

    Attributes:
        method: GET, POST, ...
        path: with ids quoted.
        answer: what a success holds; `str` for text, `type(None)` for nothing.
        query: parameters; those that are None are left out.
        body: what is sent as JSON: an object by field, fields that are None are left out, or a model as it was given.
        is_repeatable: whether sending it twice does no more than sending it once; None goes by the method.
    """

    method: str
    path: str
    answer: type[T]
    query: Mapping[str, object] = field(default_factory=dict)
    body: Mapping[str, object] | BaseModel | None = None
    is_repeatable: bool | None = None

    def sent(self) -> dict[str, Any]:
        """Return what httpx takes of it, with an id by which the service's log names all attempts alike."""
        content = None if self.body is None else to_json(_given(self.body))
        headers = {"x-request-id": uuid4().hex} | ({} if content is None else {"content-type": "application/json"})
        query = {name: value for name, value in self.query.items() if value is not None}
        return {"method": self.method, "url": self.path, "params": query, "content": content, "headers": headers}

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def path(template: str, *ids: int | str) -> str:
    """Return a path with an id in the place of each `{}`; one of dots alone must not lead to another path."""
    return template.format(*(_quoted(str(each)) for each in ids))


def pause_seconds(call: Call[T], outcome: Outcome, attempt: int, attempts: int) -> float | None:
    """Return how long to wait before a call is sent again; None where it is not, and the outcome stands.

    The pause is drawn between nothing and 0.1, 0.2, 0.4, ... seconds, so that clients that failed together do not come
    back together; where the service says how long to wait (`Retry-After`), at least so long.

    Args:
        call: that was sent.
        outcome: of sending it last.
        attempt: how often it has been sent.
        attempts: how often it may be sent.
    """
    if attempt >= attempts or not _may_be_sent_again(call, outcome):
        return None
    wanted = 0.0
    if isinstance(outcome, httpx2.Response) and (asked := outcome.headers.get("retry-after", "")).isdecimal():
        wanted = float(asked)
    if wanted > LONGEST_PAUSE_SECONDS:
        return None
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
    return wanted + random.uniform(0, longest)  # noqa: S311 - nobody need be unable to guess it


def read(call: Call[T], outcome: Outcome, attempt: int = 1) -> T:
    """Return what a call is answered with. Fields that this client does not know are left out.

    What is to be deleted and is not there when it is asked for again is deleted: by the attempt whose answer was lost.

    Args:
        call: that was sent.
        outcome: of sending it last.
        attempt: how often it was sent.

    Raises:
        ServiceError: if the call was refused or failed, or its answer is not what was agreed.
    """
    if isinstance(outcome, httpx2.RequestError):
        raise ServiceError(
            f"{call}: no answer ({type(outcome).__name__}: {outcome})",
            hint="is the service running, and the address right? GET /ready says whether it can answer",
        ) from outcome
    is_gone = call.method == "DELETE" and attempt > 1 and outcome.status_code == NOT_FOUND
    if not (outcome.is_success or is_gone):
        raise _refused(call, outcome)
    content: Any = None if is_gone or outcome.status_code == NO_CONTENT else outcome.content
    if call.answer is str:
        content = to_json(outcome.text)
    answer: Any = call.answer
    try:
        found: T = _adapter(answer).validate_json(content or b"null", extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "answer"
        raise ServiceError(
            f"{call}: {where}: {first['msg']}",
            hint="client and service are of different versions, or the address is not rec-engine's",
            status_code=outcome.status_code,
        ) from None
    return found


def _quoted(text: str) -> str:
    return text.replace(".", "%2E") if text in {".", ".."} else quote(text, safe="")


def _may_be_sent_again(call: Call[T], outcome: Outcome) -> bool:
    is_repeatable = call.method in REPEATABLE if call.is_repeatable is None else call.is_repeatable
    if isinstance(outcome, httpx2.Response):
        # Who came too often was turned away before anything was done.
        return outcome.status_code == TOO_MANY or (is_repeatable and outcome.status_code in NOT_AVAILABLE)
    if isinstance(outcome, CANNOT_BE_SENT):
        return False
    return is_repeatable or isinstance(outcome, NOT_SENT)


def _refused(call: Call[T], answer: httpx2.Response) -> ServiceError:
    status = answer.status_code
    try:
        problem = _adapter(Problem).validate_json(answer.content, extra="ignore")
    except ValidationError:
        return ServiceError(f"{call}: {status} {answer.reason_phrase}: {answer.text[:200]}", status_code=status)
    return ServiceError(f"{call}: {problem.detail}", hint=problem.hint, problem=problem, status_code=status)


def _given(body: Mapping[str, object] | BaseModel) -> object:
    if isinstance(body, BaseModel):
        return body.model_dump(mode="json", exclude_unset=True)
    return {name: _plain(value) for name, value in body.items() if value is not None}


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return _given(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


@cache
def _adapter(answer: Hashable) -> TypeAdapter[Any]:
    kind: Any = answer
    return TypeAdapter(kind)
