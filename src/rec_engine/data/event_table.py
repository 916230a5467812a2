"""Rows of files as rows of the log: an id for those that have none, and what else was known of them as context."""

from hashlib import blake2b

import numpy as np
import polars as pl
import polars.selectors as cs

from rec_engine.data.columns import Parsed, column_of, parted, renamed, text_of
from rec_engine.data.tables import SURPLUS
from rec_engine.data.validation import OPTIONAL, REQUIRED, Cleaned, parsed_interactions
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings

MAX_CONTEXT = 4_096
"""Characters of the longest context."""
MAX_NAME = 128
"""Characters of the longest event or request id, as over the wire."""
FUTURE_SECONDS = 86_400
"""A clock that is wrong by more than this would make its user's latest items the latest for ever."""

_NAMES = ("event_id", "request_id")
_MEANT = (*REQUIRED, *OPTIONAL, *_NAMES)


def clean_events(frame: pl.DataFrame, settings: DataSettings, now: int) -> Cleaned:
    """Return events that the log can take, and the rows that it cannot.

    Columns mean what they mean to `clean_interactions`; `event_id` and `request_id` are text; the fields of a column
    `context` and all columns without a meaning of their own become the JSON of `context`.

    Args:
        frame: a table with LINE.
        settings: how rows are read.
        now: Unix seconds; nothing can have happened much later.

    Raises:
        DataError: if a column is missing or of a type that cannot be used.
    """
    table, raw = renamed(frame, "events", REQUIRED, (*OPTIONAL, *_NAMES))
    _check_types(table)
    context = _context(table)
    table = table.select(cs.by_name(*_MEANT, SURPLUS, require_all=False), context)
    columns = parsed_interactions(table, raw, settings)
    moments = columns[2].cells
    is_ahead = (moments > (now + FUTURE_SECONDS) * 1_000_000).fill_null(value=False)
    is_long = (context.str.len_chars() > MAX_CONTEXT).fill_null(value=False)
    columns += [
        *(_name(column_of(table, name)) for name in _NAMES),
        Parsed(moments, is_ahead, "lies in the future"),
        Parsed(context, is_long, f"is longer than {MAX_CONTEXT:,} characters; leave out columns"),
    ]
    kept, rejects = parted(table, raw, columns)
    return Cleaned(kept, rejects, len(frame), 0, settings.max_rejected)


def log_rows(events: pl.DataFrame) -> pl.DataFrame:
    """Return events of `clean_events` as the log has them: every one with an id, times in Unix seconds."""
    return events.select(
        event_id=event_ids(events),
        user_id=pl.col("user_id").cast(pl.String),
        item_id=pl.col("item_id").cast(pl.String),
        event="event",
        timestamp=pl.col("timestamp") // 1_000_000,
        value="value",
        request_id="request_id",
        context="context",
    )


def event_ids(events: pl.DataFrame) -> pl.Series:
    """Return the ids of events of `clean_events` or `clean_interactions`.

    An event without an id is known by user, item, moment (to the microsecond), event and value: the same row has the
    same id in every file and for ever. Such ids begin with the moment, so that the index of ids grows at its end.
    """
    bits = pl.Series((events["value"].to_numpy() + 0.0).view(np.int64))  # minus zero is zero
    values = pl.when(pl.col("value").is_not_null()).then(bits).cast(pl.String).fill_null("")
    parts = [pl.col(name).cast(pl.String) for name in ("user_id", "item_id", "timestamp", "event")]
    keys = events.select(pl.concat_str(*parts, values, separator="\0").cast(pl.Binary)).to_series()
    hashes = pl.Series([blake2b(key, digest_size=8).hexdigest() for key in keys.to_list()], dtype=pl.String)
    given = text_of(column_of(events, "event_id"))
    made = pl.format("{}-{}", pl.col("timestamp") // 1_000_000, hashes)
    return events.select(event_id=pl.coalesce(given, made)).to_series()


def _name(column: pl.Series) -> Parsed:
    cells = text_of(column)
    is_bad = (cells.str.len_chars() > MAX_NAME) | cells.str.contains("\0", literal=True)
    return Parsed(cells, is_bad.fill_null(value=False), f"is longer than {MAX_NAME} characters, or holds a NUL")


def _check_types(table: pl.DataFrame) -> None:
    for name, dtype in table.schema.items():
        if "Binary" in str(dtype) or "Object" in str(dtype):
            raise DataError(f"the column {name} holds {dtype}, which is no text", hint="leave it out")


def _context(table: pl.DataFrame) -> pl.Series:
    """Return JSON objects of what a row holds beside the columns that have a meaning, null where that is nothing."""
    others = table.drop(*_MEANT, SURPLUS, strict=False)
    if isinstance(others.schema.get("context"), pl.Struct):
        others = _unnested(others)
    if not others.width:
        return pl.Series("context", [None] * len(table), dtype=pl.String)
    fields = [
        pl.when(pl.col(name).is_not_null()).then(pl.struct(name).struct.json_encode().str.head(-1).str.slice(1))
        for name in others.columns
    ]
    entries = pl.concat_str(
        [field.alias(str(place)) for place, field in enumerate(fields)], separator=",", ignore_nulls=True
    )
    whole = pl.when(pl.any_horizontal(pl.all().is_not_null())).then(pl.concat_str(pl.lit("{"), entries, pl.lit("}")))
    return others.select(context=whole).to_series()


def _unnested(others: pl.DataFrame) -> pl.DataFrame:
    try:
        return others.unnest("context")
    except pl.exceptions.DuplicateError as error:
        raise DataError(f"a field of the column context has the name of a column: {error}") from None
