"""Types of what goes over the wire: ids, times, cursors, and the bases of requests and answers."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticSerializationError

from rec_engine.data.columns import MAX_ID_LENGTH

MAX_EXCLUDED = 1_000
MAX_CATEGORIES = 100
MAX_RECENT_ITEMS = 200

MAX_EVENTS = 1_000
MAX_ATTRIBUTES = 100
MAX_TITLE = 1_000
MAX_DESCRIPTION = 20_000
MAX_SECONDS = 10**11
MAX_MILLISECONDS = 7 * 10**12


def _checked_id(value: object) -> object:
    """Return an id as it is; one sentence for everything that is none, instead of one for each type it might be."""
    is_integer = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if is_integer or (isinstance(value, str) and 1 <= len(value) <= MAX_ID_LENGTH and "\0" not in value):
        return value
    raise ValueError(f"an id is a 64-bit integer or a text of 1 to {MAX_ID_LENGTH} characters")


def _unix_seconds(value: object) -> object:
    """Return Unix seconds of seconds, milliseconds or ISO 8601 text."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value[:40]!r} is neither seconds, milliseconds nor ISO 8601") from None
        value = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_MILLISECONDS:
        raise ValueError("a time is given in Unix seconds, milliseconds or ISO 8601")
    return int(value if value < MAX_SECONDS else value / 1000)


def _shown_before(value: object) -> object:
    """Return the ids that a cursor stands for."""
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(str(value)), type=list[int | str])
        return [_checked_id(item_id) for item_id in found][:MAX_EXCLUDED]
    except (ValueError, RecursionError):
        raise ValueError("a cursor is the next_cursor of an earlier answer") from None


def cursor_after(item_ids: Sequence[int | str]) -> str:
    """Return the cursor of an answer that comes after these items."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(item_ids))).decode()


Id = Annotated[int | str, BeforeValidator(_checked_id)]
"""A user's or item's id as the data has it: an integer or a text; 123 and "123" name the same."""
Cursor = Annotated[list[Id], BeforeValidator(_shown_before, json_schema_input_type=str)]
Timestamp = Annotated[int, BeforeValidator(_unix_seconds, json_schema_input_type=float | str)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
Action = Literal["view", "click", "like", "dislike", "share", "add_to_cart", "purchase", "rating"]


class Wire(BaseModel):
    """Base of every request and answer: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class Asked(Wire):
    """Base of what clients send."""

    @model_validator(mode="after")
    def _is_unicode(self) -> Self:
        """Refuse text that is no Unicode (half of a surrogate pair): it could neither be answered nor stored."""
        try:
            self.model_dump_json()
        except PydanticSerializationError as error:
            raise ValueError("a text in the request is not valid Unicode") from error
        return self
