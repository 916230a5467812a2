"""Lists that two arms of an interleaving filled by turns, and for which of them what users chose speaks."""

from contextlib import closing
from itertools import pairwise
from typing import Any

import polars as pl
import sqlalchemy as sql

from rec_engine.data.database import SQLITE, event_rows, impression_rows, name_of, named, open_engines
from rec_engine.data.experiment_tables import exposure_rows
from rec_engine.data.impressions import ATTRIBUTION_SECONDS, CHOSEN, FOREVER, taken
from rec_engine.data.shown_rows import ITEM, TEAM, decoded

USERS_AT_ONCE = 10_000
"""Users whose lists are in memory at once."""
"""Places of an item's id and of whose pick it is, in what is logged of it."""
_LISTS = {"user_id": pl.String, "request_id": pl.String, "timestamp": pl.Int64, "shown": pl.String}
_REACTIONS = {"user_id": pl.String, "request_id": pl.String, "item_id": pl.String, "at": pl.Int64}


def credited_lists(
    store_url: str, experiment_id: str, teams: tuple[str, str], until: int, window_seconds: int | None = None
) -> tuple[int, pl.DataFrame]:
    """Return how many users met an interleaving, and of each of their lists what was chosen of either team's items.

    An item counts once a list. What a user chose belongs to the answer that his feedback names by its request id.

    Args:
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        experiment_id: of the interleaving.
        teams: how items of the first and of the second team are marked in the log.
        until: Unix seconds; what happened later does not count.
        window_seconds: how long after his first exposure a user's lists count; None for as long as there are any.

    Returns:
        Number of users, and user_id (String), first and second (UInt32), one row a list.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        StoreError: if the database cannot be read.
    """
    writer, reader = open_engines(store_url)[:2]
    if writer is not reader:
        writer.dispose()
    with closing(_Reader(reader)) as log:
        user_ids = log.users(experiment_id, until)
        lists = _lists(experiment_id, until, window_seconds)
        chosen = _chosen(experiment_id, until)
        found = [_credited(pl.DataFrame(schema=_LISTS), pl.DataFrame(schema=_REACTIONS), teams)]
        ends = [*user_ids.gather_every(USERS_AT_ONCE).to_list(), None]
        for low, high in pairwise(ends):
            drafted = log.frame(lists, _LISTS, low, high)
            found.append(_credited(drafted, log.frame(chosen, _REACTIONS, low, high), teams))
    return len(user_ids), pl.concat(found)


class _Reader:
    def __init__(self, engine: sql.Engine) -> None:
        self._engine = engine
        self._name = name_of(engine.url)
        # Text sorts in Python as SQLite sorts it; PostgreSQL's own order depends on its locale.
        self._user_id = (
            exposure_rows.c.user_id if engine.dialect.name == SQLITE else exposure_rows.c.user_id.collate("C")
        )

    def close(self) -> None:
        self._engine.dispose()

    def users(self, experiment_id: str, until: int) -> pl.Series:
        its = (exposure_rows.c.experiment_id == experiment_id) & (exposure_rows.c.timestamp <= until)
        statement = sql.select(exposure_rows.c.user_id).where(its)
        return self._rows(statement, {"user_id": pl.String})["user_id"].unique().sort()

    def frame(self, statement: "sql.Select[Any]", schema: dict[str, Any], low: str, high: str | None) -> pl.DataFrame:
        """Return the rows of the users from one up to another, that one not included."""
        within = statement.where(self._user_id >= low)
        return self._rows(within if high is None else within.where(self._user_id < high), schema)

    def _rows(self, statement: "sql.Select[Any]", schema: dict[str, Any]) -> pl.DataFrame:
        with named(self._name), self._engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(statement)]
        return pl.DataFrame(rows, schema=schema, orient="row")


def _lists(experiment_id: str, until: int, window_seconds: int | None) -> "sql.Select[Any]":
    rows = impression_rows.c
    is_drafted = rows.shown.contains(f'"{experiment_id}/', autoescape=True) & (rows.timestamp <= until)
    if window_seconds is not None:
        is_drafted &= rows.timestamp <= exposure_rows.c.timestamp + window_seconds
    statement = sql.select(rows.user_id, rows.request_id, rows.timestamp, rows.shown)
    return _of_exposed(statement, impression_rows, experiment_id).where(is_drafted).order_by(rows.place)


def _chosen(experiment_id: str, until: int) -> "sql.Select[Any]":
    rows = event_rows.c
    is_chosen = rows.request_id.is_not(None) & rows.event.in_(CHOSEN) & (rows.timestamp <= until)
    statement = sql.select(rows.user_id, rows.request_id, rows.item_id, rows.timestamp)
    return _of_exposed(statement, event_rows, experiment_id).where(is_chosen)


def _of_exposed(statement: "sql.Select[Any]", table: sql.Table, experiment_id: str) -> "sql.Select[Any]":
    # Not the column itself: SQLite would look for the range of users in the table, and not for each of them.
    same_user = table.c.user_id == exposure_rows.c.user_id.concat("")
    return statement.join_from(exposure_rows, table, same_user).where(exposure_rows.c.experiment_id == experiment_id)


def _credited(lists: pl.DataFrame, reactions: pl.DataFrame, teams: tuple[str, str]) -> pl.DataFrame:
    """Return user_id, first and second of each list that either team has an item in."""
    answers = lists.with_row_index("request").with_columns(ends=pl.lit(FOREVER, pl.Int64))
    shown = (
        decoded(answers.select("request", "shown"))
        .explode("shown")
        .select(
            "request",
            item_id=pl.col("shown").list.get(ITEM, null_on_oob=True),
            team=pl.col("shown").list.get(TEAM, null_on_oob=True),
        )
        .filter(pl.col("team").is_in(teams))
    )
    chosen = taken(answers, shown.select("request", "item_id"), reactions, ATTRIBUTION_SECONDS)
    credited = shown.join(chosen, on=["request", "item_id"], how="left", maintain_order="left")
    counted = credited.group_by("request", maintain_order=True).agg(
        (pl.col("clicked").fill_null(value=False) & (pl.col("team") == team)).sum().alias(name)
        for team, name in zip(teams, ("first", "second"), strict=True)
    )
    return counted.join(answers.select("request", "user_id"), on="request", maintain_order="left").select(
        "user_id", "first", "second"
    )
