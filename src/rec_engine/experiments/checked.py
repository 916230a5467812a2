"""What callers hand over to be recorded, checked: whatever passes can be hashed, stored and summed up."""

import math

from rec_engine.data.dataset import ExternalId
from rec_engine.errors import DataError

MAX_ID_LENGTH = 256
MAX_NAME_LENGTH = 100
FUTURE_SECONDS = 86_400
"""A clock that is ahead by more than this is not believed: what it says happens now."""
LARGEST = 1e100
"""Of what is recorded, so that neither sums nor sums of squares leave the range of floating point."""


def checked_user_id(user_id: ExternalId) -> str:
    """Return a user's id as text.

    Raises:
        DataError: if it is none.
    """
    return _checked_id("user_id", user_id)


def checked_event_id(event_id: ExternalId) -> str:
    """Return an event's id as text.

    Raises:
        DataError: if it is none.
    """
    return _checked_id("event_id", event_id)


def checked_name(name: str) -> str:
    """Return the name of a total.

    Raises:
        DataError: if it is none.
    """
    if isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and _is_storable(name):
        return name
    raise DataError(f"{name!r:.120}: the name of a total has 1 to {MAX_NAME_LENGTH} characters")


def checked_value(name: str, value: float) -> float:
    """Return what is added to a total.

    Args:
        name: what it is, for the message.
        value: a number.

    Raises:
        DataError: if it is not finite, or no number at all.
    """
    if not _is_number(value) or not -LARGEST <= value <= LARGEST:
        raise DataError(f"{name} {value!r:.120}: a finite number is wanted", hint="leave out what is not known")
    return float(value)


def checked_moment(timestamp: float | None, now: float) -> int:
    """Return Unix seconds; now for None and for what is further ahead than FUTURE_SECONDS.

    Raises:
        DataError: if that is no moment.
    """
    if timestamp is None:
        return int(now)
    if not _is_number(timestamp) or not 0 <= timestamp < math.inf:
        raise DataError(f"timestamp {timestamp!r:.120}: Unix seconds are wanted")
    return int(timestamp if timestamp <= now + FUTURE_SECONDS else now)


def _checked_id(name: str, given: ExternalId) -> str:
    if isinstance(given, str):
        if len(given) <= MAX_ID_LENGTH and _is_storable(given):
            return given
    elif isinstance(given, int) and not isinstance(given, bool) and given.bit_length() < MAX_ID_LENGTH:
        return str(given)
    raise DataError(f"{name} {given!r:.120}: an id is an integer or a text of 1 to {MAX_ID_LENGTH} characters")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_storable(text: str) -> bool:
    """Return whether a text is not empty, valid Unicode (no half of a surrogate pair) and without NUL."""
    if not text or "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
