"""The log as training data: its events and items on top of whatever files there are, without the users it forgot."""

import json
from collections.abc import Mapping

import polars as pl

from rec_engine.data.columns import narrowed
from rec_engine.data.dataset import EVENTS, LogMark, event_place
from rec_engine.data.event_table import event_ids
from rec_engine.data.events import DELETED, user_hash
from rec_engine.data.log_frames import STRETCH, LogFrames, nothing
from rec_engine.data.validation import Tables, clean_items
from rec_engine.utils.logger import get_logger, with_progress

logger = get_logger(__name__)

_INTERACTION = ("user_id", "item_id", "timestamp", "event", "value")
MICROSECONDS = 1_000_000


def with_log(files: Tables, store_url: str) -> tuple[Tables, LogMark]:
    """Return the tables of files with what a log has added to them, and which log that is, up to where.

    In the order in which a service has it that follows the log with a model of these files: of one second, the rows of
    the files come first, then the events in the order in which they were written. A row that was ingested as well is
    one event. Items are as they were last sent to the service. Where there is a table of items, events of items that
    are neither in it, nor in the files' interactions, nor among those that were sent are left out, as a service leaves
    them out. Users who asked to be forgotten are in none of the tables, but with what they did afterwards.

    Args:
        files: may be empty.
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if there is no log in it.
        StoreError: if it cannot be read.
    """
    log = LogFrames(store_url)
    try:
        mark = log.mark()
        events = _events(log, mark.position, with_ids=len(files.interactions) > 0)
        items = _with_sent(files.items, log.items())
        erased = log.erasures()  # read last: whose events went away meanwhile is in it
    finally:
        log.close()
    events = events.join(_erased(events, erased), on="user_id", how="left", maintain_order="left")
    events = events.filter(pl.col("position") > pl.col("erased_at").fill_null(0))
    interactions = files.interactions.join(_erased(files.interactions, erased), on="user_id", how="anti")
    users = files.users.join(_erased(files.users, erased), on="user_id", how="anti")
    if len(interactions):
        events = events.join(pl.DataFrame({"event_id": event_ids(interactions)}), on="event_id", how="anti")
    if len(files.items):
        events = _of_known_items(events, interactions, items)
    logger.info("%s: %s events up to position %s", log.name, f"{len(events):,}", f"{mark.position:,}")
    return Tables(_in_order(interactions, events), users, items), mark


def _events(log: LogFrames, position: int, *, with_ids: bool) -> pl.DataFrame:
    columns = ("position", *_INTERACTION, *(["event_id"] if with_ids else []))
    n_stretches = -(-position // STRETCH)
    stretches = with_progress(log.events(columns, until=position), f"{log.name}: reading", n_stretches)
    events = pl.concat([nothing(columns), *stretches])
    known = [event for event in events["event"].unique() if event_place(event) < len(EVENTS)]
    return events.filter(pl.col("event").is_in(known))


def _with_sent(items: pl.DataFrame, changes: pl.DataFrame) -> pl.DataFrame:
    """Return the items of a table as they are after these changes; one that was deleted is as it was before."""
    sent = [
        {"item_id": item_id, **json.loads(attributes)}
        for _, item_id, status, attributes in changes.rows()
        if status != DELETED
    ]
    if not sent:
        return items
    table = clean_items(pl.DataFrame(sent, infer_schema_length=None, strict=False)).frame
    known = items.schema if len(items) else pl.Schema()
    typed = [pl.col(name).cast(known[name], strict=False) for name in table.columns if name in known]
    ids = pl.col("item_id").cast(pl.String)  # a catalogue of numbers may have got items with names
    both = pl.concat(
        [items.with_columns(ids), table.with_columns(typed).with_columns(table["item_id"].cast(pl.String))],
        how="diagonal_relaxed",
    ).unique("item_id", keep="last", maintain_order=True)
    return both.with_columns(narrowed(both["item_id"]))


def _erased(table: pl.DataFrame, erased: Mapping[str, int]) -> pl.DataFrame:
    """Return the users of a table who asked to be forgotten, and at which position of the log: user_id, erased_at."""
    users = table["user_id"].unique() if erased else table["user_id"].clear()
    positions = [erased.get(user_hash(user)) for user in users.to_list()]
    return pl.DataFrame({"user_id": users, "erased_at": pl.Series(positions, dtype=pl.Int64)}).drop_nulls()


def _of_known_items(events: pl.DataFrame, interactions: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    known = pl.concat([table["item_id"].cast(pl.String) for table in (interactions, items)]).unique()
    kept = events.join(known.to_frame(), on="item_id", how="semi", maintain_order="left")
    if len(kept) < len(events):
        logger.warning(
            "%s events are of items that neither the files nor POST /items know, and are left out",
            f"{len(events) - len(kept):,}",
        )
    return kept


def _in_order(interactions: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return both, so that sorting by time in whole seconds puts them in the order in which they are known live."""
    first = interactions.select(_INTERACTION).sort("timestamp", maintain_order=True)
    first = first.with_columns(pl.col("timestamp") // MICROSECONDS * MICROSECONDS)
    then = events.select(_INTERACTION).with_columns(pl.col("timestamp") * MICROSECONDS)
    then = then.with_columns(narrowed(then["user_id"]), narrowed(then["item_id"]))
    return pl.concat([first, then], how="vertical_relaxed")
