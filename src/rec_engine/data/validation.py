"""The door of every dataset: foreign tables in, typed columns and a list of rejected rows out."""

from dataclasses import dataclass, replace

import polars as pl

from rec_engine.data.columns import EVENTS as EVENTS
from rec_engine.data.columns import (
    Parsed,
    column_of,
    narrowed,
    parsed_events,
    parsed_ids,
    parsed_timestamps,
    parsed_values,
    parted,
    renamed,
    text_of,
)
from rec_engine.data.tables import to_polars as to_polars
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings

REQUIRED, OPTIONAL = ("user_id", "item_id", "timestamp"), ("event", "value")
"""Columns of interactions that mean something to training."""


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


@dataclass(frozen=True, slots=True)
class Tables:
    """What a dataset is made of, as `clean_interactions`, `clean_users` and `clean_items` have accepted it."""

    interactions: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame


def remedy(reason: str) -> str:
    """Return what to do about a rejected row, from the `reason` it was rejected for."""
    if reason.startswith("timestamp "):
        return 'give --timestamp-format "%m/%d/%Y" (data.timestamp_format) in the form that fits'
    return "correct the rows"


def accepted_tables(interactions: object, users: object, items: object, settings: DataSettings) -> Tables:
    """Return the usable rows of polars or pandas frames; `users` and `items` may be None.

    Raises:
        DataError: if a column is missing, or more than `settings.max_rejected` of the rows of a table are unusable.
    """
    return Tables(
        clean_interactions(to_polars(interactions), settings).accepted("interactions"),
        clean_users(None if users is None else to_polars(users), settings).accepted("users"),
        clean_items(None if items is None else to_polars(items), settings).accepted("items"),
    )


def clean_interactions(frame: pl.DataFrame, settings: DataSettings) -> Cleaned:
    """Return the interactions as `user_id`, `item_id`, `timestamp`, `event`, `value` and further columns.

    Ids become Int64 if every one of the column is an integer in canonical form ("007" is not), else String.
    Timestamps become Int64, microseconds since 1970 in UTC: read from seconds, milliseconds (above 1e11) or
    microseconds (above 1e14), ISO 8601 (UTC where no zone is given), `settings.timestamp_format`, or a date type.
    A missing event is a "rating" where the value came from a column named rating, else a "view". `value` is Float64.
    Rows that agree in all five, and in their `event_id` where there is such a column, are one.

    Raises:
        DataError: if `user_id`, `item_id` or `timestamp` is missing or of a type that cannot hold it.
    """
    table, raw = renamed(frame, "interactions", REQUIRED, OPTIONAL)
    columns = parsed_interactions(table, raw, settings)
    kept, rejects = parted(table, raw, columns)
    distinct = distinct_interactions(kept)
    return Cleaned(
        frame=distinct.with_columns(narrowed(distinct["user_id"]), narrowed(distinct["item_id"])),
        rejects=rejects,
        n_rows=len(frame),
        n_duplicates=len(kept) - len(distinct),
        max_rejected=settings.max_rejected,
    )


def distinct_interactions(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows, in order, without those that agree with an earlier one in all that tells interactions apart."""
    identity = [*REQUIRED, *OPTIONAL, *({"event_id"} & set(rows.columns))]
    return rows.unique(identity, keep="first", maintain_order=True)


def parsed_interactions(table: pl.DataFrame, raw: pl.DataFrame, settings: DataSettings) -> list[Parsed]:
    """Return user, item, timestamp, event and value of a table that has our names; `raw` has those that it came with.

    Raises:
        DataError: if the column `timestamp` is of a type that cannot hold moments.
    """
    has_ratings = "value" in table.columns and "value" not in (name.strip().lower() for name in raw.columns)
    values = parsed_values(column_of(table, "value"))
    return [
        parsed_ids(table["user_id"]),
        parsed_ids(table["item_id"]),
        parsed_timestamps(table["timestamp"], settings.timestamp_format),
        parsed_events(column_of(table, "event"), values.cells.is_not_null() & has_ratings),
        values,
    ]


def clean_items(frame: pl.DataFrame | None, settings: DataSettings | None = None) -> Cleaned:
    """Return the items as `item_id`, `title`, `description`, `categories` (List(String)) and typed attributes.

    Categories are a list column or text divided by `|`. Of rows with one id the last is kept, the others are rejects.

    Raises:
        DataError: if `item_id` is missing.
    """
    cleaned = _clean_features(frame, "item_id", ("title", "description", "categories"), settings)
    table = cleaned.frame
    texts = [text_of(column_of(table, name)) for name in ("title", "description")]
    named = [table["item_id"], *texts, _categories(column_of(table, "categories"))]
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
    table, raw = renamed(frame, f"{key.removesuffix('_id')}s", (key,), optional)
    ids = parsed_ids(table[key])
    is_superseded = ids.cells.is_not_null() & ~ids.cells.is_last_distinct()
    repeated = Parsed(ids.cells, is_superseded, "occurs again further down, and the last row of an id is kept")
    kept, rejects = parted(table, raw, [ids, repeated])
    return Cleaned(
        frame=kept.with_columns(narrowed(kept[key])),
        rejects=rejects,
        n_rows=len(frame),
        n_duplicates=0,
        max_rejected=(settings or DataSettings()).max_rejected,
    )


def _categories(column: pl.Series) -> pl.Series:
    """Return List(String), trimmed, without empty or repeated ones, in the order given."""
    lists = column if column.dtype == pl.List else text_of(column).str.split("|")
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
    texts = text_of(column)
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
