"""The door of every dataset: foreign tables in, typed columns and a list of rejected rows out."""

from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

import polars as pl
import polars.selectors as cs

from rec_engine.data.tables import LINE, SURPLUS
from rec_engine.data.tables import to_polars as to_polars
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings

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
    "rating": "value",
    "genres": "categories",
}
"""Column names that are taken for ours, in lower case."""

MAX_ID_LENGTH = 256
"""Characters of the longest id."""

_END_OF_TIME_US = 7_289_654_400_000_000  # the first moment of the year 2201
_ISO_8601 = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?<minute>\d{2}:\d{2})(?::(?<second>\d{2}(?:[.,]\d{1,9})?))?"
    r" ?(?:[Zz]|(?<sign>[+-])(?<zone_hours>\d{2})(?::?(?<zone_minutes>\d{2}))?)?)?$"
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A table with typed columns, and what was wrong with the rows that are not in it.

    Attributes:
        frame: the rows that can be used, in input order.
        rejects: the others: `row` (Int64, from 1, or the line in the file), `reason` and `content` (JSON) as text.
        n_rows: rows that came in.
        n_duplicates: exact repetitions that were merged into the first; they are not in `rejects`.
        max_rejected: share of rejected rows above which the table is not accepted.
    """

    frame: pl.DataFrame
    rejects: pl.DataFrame
    n_rows: int
    n_duplicates: int
    max_rejected: float

    @property
    def is_acceptable(self) -> bool:
        """Whether the share of rejected rows is at most `max_rejected`."""
        return len(self.rejects) <= self.max_rejected * self.n_rows

    def accepted(self, what: str) -> pl.DataFrame:
        """Return the usable rows.

        Args:
            what: name of the table, for the message.

        Raises:
            DataError: if more than `max_rejected` of the rows were rejected.
        """
        if self.is_acceptable:
            return self.frame
        first = self.rejects.row(0, named=True)
        raise DataError(
            f"{what}: {len(self.rejects):,} of {self.n_rows:,} rows cannot be used "
            f"(at most {self.max_rejected:.1%} may be); the first is row {first['row']}: {first['reason']}",
            hint=f"{remedy(first['reason'])}, or raise data.max_rejected to go on without these rows",
        )


def remedy(reason: str) -> str:
    """Return what to do about a rejected row, from the `reason` it was rejected for."""
    if reason.startswith("timestamp "):
        return 'give --timestamp-format "%m/%d/%Y" (data.timestamp_format) in the form that fits'
    return "correct the rows"


def clean_interactions(frame: pl.DataFrame, settings: DataSettings) -> Cleaned:
    """Return the interactions as `user_id`, `item_id`, `timestamp`, `event`, `value` and further columns.

    Ids become Int64 if every one of the column is an integer in canonical form ("007" is not), else String.
    Timestamps become Int64, microseconds since 1970 in UTC: read from seconds, milliseconds (above 1e11) or
    microseconds (above 1e14), ISO 8601 (UTC where no zone is given), `settings.timestamp_format`, or a date type.
    A missing event is a "rating" where the value came from a column named rating, else a "view". `value` is Float64.

    Raises:
        DataError: if `user_id`, `item_id` or `timestamp` is missing or of a type that cannot hold it.
    """
    table, raw = _named(frame, "interactions", ("user_id", "item_id", "timestamp"), ("event", "value"))
    has_ratings = "value" in table.columns and "value" not in (name.strip().lower() for name in raw.columns)
    values = _values(_column(table, "value"))
    columns = [
        _ids(table["user_id"]),
        _ids(table["item_id"]),
        _timestamps(table["timestamp"], settings.timestamp_format),
        _events(_column(table, "event"), values.cells.is_not_null() & has_ratings),
        values,
    ]
    kept, rejects = _parted(table, raw, columns)
    distinct = kept.unique([column.cells.name for column in columns], keep="first", maintain_order=True)
    return Cleaned(
        frame=distinct.with_columns(_narrowed(distinct["user_id"]), _narrowed(distinct["item_id"])),
        rejects=rejects,
        n_rows=len(frame),
        n_duplicates=len(kept) - len(distinct),
        max_rejected=settings.max_rejected,
    )


def clean_items(frame: pl.DataFrame | None, settings: DataSettings | None = None) -> Cleaned:
    """Return the items as `item_id`, `title`, `description`, `categories` (List(String)) and typed attributes.

    Categories are a list column or text divided by `|`. Of rows with one id the last is kept, the others are rejects.

    Raises:
        DataError: if `item_id` is missing.
    """
    cleaned = _clean_features(frame, "item_id", ("title", "description", "categories"), settings)
    table = cleaned.frame
    texts = [_text(_column(table, name)) for name in ("title", "description")]
    named = [table["item_id"], *texts, _categories(_column(table, "categories"))]
    return replace(cleaned, frame=pl.DataFrame(named + _attributes(table, named)))


def clean_users(frame: pl.DataFrame | None, settings: DataSettings | None = None) -> Cleaned:
    """Return the users as `user_id` and typed attributes; of rows with one id the last is kept, the others are rejects.

    Raises:
        DataError: if `user_id` is missing.
    """
    cleaned = _clean_features(frame, "user_id", (), settings)
    named = [cleaned.frame["user_id"]]
    return replace(cleaned, frame=pl.DataFrame(named + _attributes(cleaned.frame, named)))


def _clean_features(
    frame: pl.DataFrame | None, key: str, optional: tuple[str, ...], settings: DataSettings | None
) -> Cleaned:
    """Return a table with one row an id; its other columns are as they came."""
    frame = pl.DataFrame(schema={key: pl.Int64}) if frame is None else frame
    table, raw = _named(frame, f"{key.removesuffix('_id')}s", (key,), optional)
    ids = _ids(table[key])
    is_superseded = ids.cells.is_not_null() & ~ids.cells.is_last_distinct()
    repeated = _Parsed(ids.cells, is_superseded, "occurs again further down, and the last row of an id is kept")
    kept, rejects = _parted(table, raw, [ids, repeated])
    return Cleaned(
        frame=kept.with_columns(_narrowed(kept[key])),
        rejects=rejects,
        n_rows=len(frame),
        n_duplicates=0,
        max_rejected=(settings or DataSettings()).max_rejected,
    )


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A column as it was understood: `complaint` says what is wrong with the cells that `is_bad` marks."""

    cells: pl.Series
    is_bad: pl.Series
    complaint: str


def _named(
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


def _parted(table: pl.DataFrame, raw: pl.DataFrame, columns: list[_Parsed]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows in which every column is good, parsed, and the rejects."""
    if SURPLUS in table.columns:
        surplus = table[SURPLUS]
        columns = [_Parsed(surplus, surplus.is_not_null(), "stands beyond the header's last column"), *columns]
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


def _column(table: pl.DataFrame, name: str) -> pl.Series:
    return table[name] if name in table.columns else pl.Series(name, [None] * len(table), dtype=pl.String)


def _text(column: pl.Series) -> pl.Series:
    """Return the cells as text without white space around it, null where nothing is left."""
    if column.dtype.is_nested():
        raise DataError(f"the column {column.name} holds {column.dtype}, not one value a row")
    stripped = column.cast(pl.String, strict=False).str.strip_chars()
    return stripped.set(stripped == "", None)


def _ids(column: pl.Series) -> _Parsed:
    if column.dtype.is_float():  # pandas' integers beside a nan
        integers = column.cast(pl.Int64, strict=False)
        column = integers if (integers.cast(pl.Float64) == column).all(ignore_nulls=True) else column
    cells = column if column.dtype.is_integer() else _text(column)
    if cells.dtype == pl.String:
        cells = cells.set(cells.str.len_chars() > MAX_ID_LENGTH, None)
    return _Parsed(cells, cells.is_null(), f"is longer than {MAX_ID_LENGTH} characters")


def _narrowed(ids: pl.Series) -> pl.Series:
    """Return the ids as Int64 if that loses nothing, else as String."""
    numbers, texts = ids.cast(pl.Int64, strict=False), ids.cast(pl.String)
    return numbers if (numbers.cast(pl.String) == texts).all() and not numbers.has_nulls() else texts


def _events(column: pl.Series, is_rating: pl.Series) -> _Parsed:
    default = pl.select(pl.when(is_rating).then(pl.lit("rating")).otherwise(pl.lit("view"))).to_series()
    cells = _text(column).str.to_lowercase().fill_null(default).alias("event")
    return _Parsed(cells, ~cells.is_in(EVENTS), f"is not one of {', '.join(EVENTS)}")


def _values(column: pl.Series) -> _Parsed:
    given = column if column.dtype.is_numeric() else _text(column)
    cells = given.cast(pl.Float64, strict=False)
    is_bad = given.is_not_null() & (cells.is_null() | cells.is_infinite().fill_null(value=False))
    return _Parsed(cells.fill_nan(None), is_bad, "is not a finite number")


def _timestamps(column: pl.Series, timestamp_format: str | None) -> _Parsed:
    if column.dtype in (pl.Boolean, pl.Time, pl.Duration):
        raise DataError(f"the column timestamp holds {column.dtype}, not moments")
    if column.dtype.is_temporal():
        moments = column.cast(pl.Datetime("us")) if column.dtype == pl.Date else column
        cells = moments.dt.epoch("us")
    elif column.dtype.is_numeric() and timestamp_format is None:
        cells = _microseconds(column)
    else:
        cells = _microseconds_of_text(_text(column), timestamp_format)
    is_good = cells.is_between(0, _END_OF_TIME_US, closed="left").fill_null(value=False)
    return _Parsed(cells, ~is_good, "is neither seconds nor ISO 8601")


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


def _categories(column: pl.Series) -> pl.Series:
    """Return List(String), trimmed, without empty or repeated ones, in the order given."""
    lists = column if column.dtype == pl.List else _text(column).str.split("|")
    trimmed = pl.element().cast(pl.String).str.strip_chars()
    distinct = pl.col(column.name).list.eval(trimmed.filter(trimmed != "").unique(maintain_order=True))
    return lists.to_frame().select(distinct.fill_null([]).cast(pl.List(pl.String))).to_series()


def _attributes(table: pl.DataFrame, named: list[pl.Series]) -> list[pl.Series]:
    """Return the columns that have no meaning of their own, as numbers or booleans where every cell reads as one."""
    names = {column.name for column in named}
    return [_typed(column) for column in table if column.name not in names]


def _typed(column: pl.Series) -> pl.Series:
    if column.dtype.is_float() or column.dtype.is_decimal():
        numbers = column.cast(pl.Float64)
        return numbers.set(numbers.is_infinite(), None)
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        return column
    texts = _text(column)
    given = texts.drop_nulls()
    if given.is_empty():
        return texts
    if given.str.to_lowercase().is_in(["true", "false"]).all():
        return texts.str.to_lowercase() == "true"
    numbers = texts.cast(pl.Float64, strict=False)
    # 01234 is a post code, not a quantity.
    if (
        numbers.null_count() > texts.null_count()
        or not numbers.is_finite().all()
        or given.str.contains(r"^-?0\d").any()
    ):
        return texts
    integers = texts.cast(pl.Int64, strict=False)
    return integers if integers.null_count() == texts.null_count() else numbers
