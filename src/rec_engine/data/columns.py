"""Columns of foreign tables as they are understood: each cell typed, or with what is wrong with it."""

from dataclasses import dataclass
from functools import reduce
from operator import or_

import polars as pl
import polars.selectors as cs

from rec_engine.data.tables import LINE, SURPLUS
from rec_engine.errors import DataError

EVENTS = ("view", "click", "like", "dislike", "share", "add_to_cart", "purchase", "rating")
"""Event types; an event's uint8 code is its place in this tuple."""

ALIASES = {
    "userid": "user_id",
    "user": "user_id",
    "itemid": "item_id",
    "item": "item_id",
    "movieid": "item_id",
    "movie_id": "item_id",
    "ts": "timestamp",
    "time": "timestamp",
    "datetime": "timestamp",
    "date": "timestamp",
    "event_type": "event",
    "action": "event",
    "rating": "value",
    "genres": "categories",
}
"""Column names that are taken for ours, in lower case."""

MAX_ID_LENGTH = 256
"""Characters of the longest id."""

MAX_VALUE = 1e12
"""Values are kept as float32, which ends at 3e38; nothing that anybody rates is near that."""

_END_OF_TIME_US = 7_289_654_400_000_000  # the first moment of the year 2201
_ISO_8601 = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?<minute>\d{2}:\d{2})(?::(?<second>\d{2}(?:[.,]\d{1,9})?))?"
    r" ?(?:[Zz]|(?<sign>[+-])(?<zone_hours>\d{2})(?::?(?<zone_minutes>\d{2}))?)?)?$"
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A column as it was understood: `complaint` says what is wrong with the cells that `is_bad` marks."""

    cells: pl.Series
    is_bad: pl.Series
    complaint: str


def renamed(
    frame: pl.DataFrame, what: str, required: tuple[str, ...], optional: tuple[str, ...]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the table under our column names and as it came, without and with the numbers of its rows."""
    raw = frame if LINE in frame.columns else frame.with_columns(pl.int_range(1, pl.len() + 1).alias(LINE))
    source_by_name: dict[str, str] = {}
    for column in sorted(frame.columns, key=lambda column: column not in required + optional):
        lower = column.strip().lower()
        for name in (lower, ALIASES.get(lower, "")):
            if name in required + optional:
                source_by_name.setdefault(name, column)
    for name in required:
        if name not in source_by_name:
            raise DataError(
                f"{what}: there is no column {name}; found: {', '.join(raw.drop(LINE).columns)}",
                hint=f"rename a column to {name}",
            )
    names = {column: name for name, column in source_by_name.items()}
    return raw.drop(LINE).rename(names).with_columns(cs.float().fill_nan(None)), raw


def parted(table: pl.DataFrame, raw: pl.DataFrame, columns: list[Parsed]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows in which every column is good, parsed, and the rejects."""
    if SURPLUS in table.columns:
        surplus = table[SURPLUS]
        columns = [Parsed(surplus, surplus.is_not_null(), "stands beyond the header's last column"), *columns]
    is_bad = reduce(or_, (column.is_bad for column in columns))
    doubtful = table.filter(is_bad)
    reasons = [
        doubtful.select(
            pl.when(column.is_bad.filter(is_bad)).then(_reason(column.cells.name, column.complaint)).alias(str(place))
        )
        for place, column in enumerate(columns)
        if column.cells.name in table.columns  # a column that is not there is never bad
    ]
    rejects = raw.filter(is_bad).select(
        row=pl.col(LINE).cast(pl.Int64),
        reason=pl.concat(reasons, how="horizontal").select(pl.coalesce(pl.all())).to_series(),
        content=pl.struct(pl.all().exclude(LINE)).struct.json_encode(),
    )
    parsed = {column.cells.name: column.cells for column in columns}
    kept = table.with_columns(*parsed.values()).filter(~is_bad)
    return kept.select(*parsed, pl.all().exclude(*parsed)).drop(SURPLUS, strict=False), rejects


def _reason(name: str, complaint: str) -> pl.Expr:
    text = pl.col(name).cast(pl.String).str.strip_chars()
    missing = text.is_null() | (text == "")
    return (
        pl.when(missing)
        .then(pl.lit(f"{name} is missing"))
        .otherwise(pl.format('{} "{}" {}', pl.lit(name), text.str.head(80), pl.lit(complaint)))
    )


def column_of(table: pl.DataFrame, name: str) -> pl.Series:
    """Return a column, one of nulls where the table has none of this name."""
    return table[name] if name in table.columns else pl.Series(name, [None] * len(table), dtype=pl.String)


def text_of(column: pl.Series) -> pl.Series:
    """Return the cells as text without white space around it, null where nothing is left."""
    if column.dtype.is_nested():
        raise DataError(f"the column {column.name} holds {column.dtype}, not one value a row")
    stripped = column.cast(pl.String, strict=False).str.strip_chars()
    return stripped.set(stripped == "", None)


def parsed_ids(column: pl.Series) -> Parsed:
    """Return ids as integers or text, as they came; a missing one is bad."""
    if column.dtype.is_float():  # pandas' integers beside a nan
        integers = column.cast(pl.Int64, strict=False)
        column = integers if (integers.cast(pl.Float64) == column).all(ignore_nulls=True) else column
    cells = column if column.dtype.is_integer() else text_of(column)
    if cells.dtype == pl.String:
        cells = cells.set((cells.str.len_chars() > MAX_ID_LENGTH) | cells.str.contains("\0", literal=True), None)
    return Parsed(cells, cells.is_null(), f"is longer than {MAX_ID_LENGTH} characters, or holds a NUL")


def narrowed(ids: pl.Series) -> pl.Series:
    """Return the ids as Int64 if that loses nothing, else as String."""
    numbers, texts = ids.cast(pl.Int64, strict=False), ids.cast(pl.String)
    return numbers if (numbers.cast(pl.String) == texts).all() and not numbers.has_nulls() else texts


def parsed_events(column: pl.Series, is_rating: pl.Series) -> Parsed:
    """Return EVENTS in lower case; what is missing is a rating where `is_rating` says so, else a view."""
    default = pl.select(pl.when(is_rating).then(pl.lit("rating")).otherwise(pl.lit("view"))).to_series()
    cells = text_of(column).str.to_lowercase().fill_null(default).alias("event")
    return Parsed(cells, ~cells.is_in(EVENTS), f"is not one of {', '.join(EVENTS)}")


def parsed_values(column: pl.Series) -> Parsed:
    """Return Float64, null where a value is missing."""
    given = column if column.dtype.is_numeric() else text_of(column)
    cells = given.cast(pl.Float64, strict=False)
    is_unreadable, cells = given.is_not_null() & cells.is_null(), cells.fill_nan(None)
    is_bad = is_unreadable | (cells.abs() > MAX_VALUE).fill_null(value=False)
    return Parsed(cells, is_bad, f"is not a number of at most {MAX_VALUE:g}")


def parsed_timestamps(column: pl.Series, timestamp_format: str | None) -> Parsed:
    """Return Int64 microseconds since 1970 in UTC, of any way to write a moment that `clean_interactions` names.

    Raises:
        DataError: if the column's type or the format cannot hold moments.
    """
    if column.dtype in (pl.Boolean, pl.Time, pl.Duration):
        raise DataError(f"the column timestamp holds {column.dtype}, not moments")
    if column.dtype.is_temporal():
        moments = column.cast(pl.Datetime("us")) if column.dtype == pl.Date else column
        cells = moments.dt.epoch("us")
    elif column.dtype.is_numeric() and timestamp_format is None:
        cells = _microseconds(column)
    else:
        cells = _microseconds_of_text(text_of(column), timestamp_format)
    is_good = cells.is_between(0, _END_OF_TIME_US, closed="left").fill_null(value=False)
    return Parsed(cells, ~is_good, "is neither seconds nor ISO 8601")


def _microseconds_of_text(text: pl.Series, timestamp_format: str | None) -> pl.Series:
    """Return Int64 microseconds, null where no way of reading fits; later ways see only what earlier ones left."""
    cells = pl.Series(text.name, [None], dtype=pl.Int64).new_from_index(0, len(text))
    if timestamp_format is not None:
        try:
            cells = text.str.to_datetime(timestamp_format, time_unit="us", strict=False).dt.epoch("us")
        except pl.exceptions.PolarsError as error:
            raise DataError(f"the timestamp format {timestamp_format!r} is not understood: {error}") from None
    cells = cells.fill_null(_microseconds(text))
    return cells.fill_null(_microseconds_of_iso(text.set(cells.is_not_null(), None))) if cells.has_nulls() else cells


def _microseconds(column: pl.Series) -> pl.Series:
    """Return Int64 microseconds of numbers, or of text that holds numbers; the size of each says its unit."""
    number = pl.col(column.name)
    factor = pl.when(number > 1e14).then(1.0).when(number > 1e11).then(1e3).otherwise(1e6)
    numbers = column.cast(pl.Float64, strict=False).to_frame()
    return numbers.select((number * factor).round().cast(pl.Int64, strict=False)).to_series()


def _microseconds_of_iso(text: pl.Series) -> pl.Series:
    parts = text.str.extract_groups(_ISO_8601).struct.unnest()
    minute, second = pl.col("minute").fill_null("00:00"), pl.col("second").fill_null("00").str.replace(",", ".")
    local = pl.concat_str("date", minute, second, separator=" ").str.to_datetime(
        "%Y-%m-%d %H:%M %S%.f", time_unit="us", strict=False
    )
    hours, minutes = (pl.col(name).cast(pl.Int64).fill_null(0) for name in ("zone_hours", "zone_minutes"))
    offset_minutes = (60 * hours + minutes) * pl.when(pl.col("sign") == "-").then(-1).otherwise(1)
    return parts.select((local.dt.epoch("us") - offset_minutes * 60_000_000).alias(text.name)).to_series()
