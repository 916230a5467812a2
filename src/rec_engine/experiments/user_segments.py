"""From what is known of users to the segments that an analysis shows: attributes with few values, user by user."""

import polars as pl

from rec_engine.errors import DataError

MAX_DISTINCT = 50
"""Values of an attribute above which it tells users apart rather than into groups."""
USER_ID = "user_id"


def segments_of(users: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """Return each attribute with a frame of `user_id` and `value`, both String, as `measure` takes them.

    Attributes with more than MAX_DISTINCT values are left out, so are those that hold lists, and nulls.

    Args:
        users: a row a user: `user_id` and his attributes.

    Raises:
        DataError: if there is no `user_id`, or a user has two rows.
    """
    if USER_ID not in users.columns:
        raise DataError("users without a column user_id", hint="give one row a user: user_id and his attributes")
    ids = users[USER_ID].cast(pl.String)
    if ids.is_duplicated().any():
        raise DataError("a user has two rows of attributes", hint="give one row a user: user_id and his attributes")
    return [
        (column.name, pl.DataFrame({USER_ID: ids, "value": column.cast(pl.String)}).drop_nulls())
        for column in users.drop(USER_ID)
        if not column.dtype.is_nested() and column.n_unique() <= MAX_DISTINCT
    ]
