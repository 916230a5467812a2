"""How an answer stands in the log: a JSON list with a list an item. Whoever writes or reads it goes by these places."""

import msgspec
import polars as pl

from rec_engine.utils.logger import get_logger

SHOWN = pl.List(pl.List(pl.String))
"""What polars makes of it: ids may be numbers or text; as text they are those of the events."""
ITEM, SCORE, PROPENSITY, POSITION, TEAM, ASKED = range(6)
"""In an item's list: its id, score, propensity, position over all pages, who picked it, and what was asked besides.

A list is shorter where there is nothing more to say, or an earlier release wrote it; the first item alone says what was
asked.
"""
MAX_POSITION = 1_000_000

_ROWS = msgspec.json.Decoder(list[list[int | float | str | None]])
logger = get_logger(__name__)


def rows_of(shown: str) -> list[list[int | float | str | None]] | None:
    """Return what an answer says of each item; None of one that is not written as a service writes it."""
    try:
        return _ROWS.decode(shown)
    except msgspec.MsgspecError:
        return None


def placed(shown: str) -> list[tuple[int | str, int]]:
    """Return the items of an answer, each with its position from 1; none of one that is damaged."""
    items = list[tuple[int | str, int]]()
    for place, row in enumerate(rows_of(shown) or [], start=1):
        item_id, position = row[ITEM] if row else None, row[POSITION] if len(row) > POSITION else place
        if isinstance(item_id, int | str) and isinstance(position, int) and 0 < position <= MAX_POSITION:
            items.append((item_id, position))
    return items


def decoded(answers: pl.DataFrame) -> pl.DataFrame:
    """Return answers with `shown` (String) as lists; one that is not written as a service writes it is left out."""
    is_whole = pl.Series([rows_of(shown) is not None for shown in answers["shown"]], dtype=pl.Boolean)
    if not is_whole.all():
        n_damaged = len(answers) - int(is_whole.sum())
        logger.warning("%s answers of the log are damaged: what they showed is left out", f"{n_damaged:,}")
    return answers.filter(is_whole).with_columns(pl.col("shown").str.json_decode(SHOWN))


def item_rows(answers: pl.DataFrame, *kept: str) -> pl.DataFrame:
    """Return a row an item of answers as `decoded` returns them, without items that have no id or an odd position.

    Returns:
        `kept`, columns of the answers; shown, the item's list; item_id (String) and position (Int32, from 1): over all
        pages where the answer said so, else within it.
    """
    written = pl.col("shown").list.get(POSITION, null_on_oob=True).cast(pl.Int32, strict=False)
    has_position = pl.col("shown").list.len() > POSITION
    rows = (
        answers.select(*kept, "shown", place=pl.int_ranges(1, pl.col("shown").list.len() + 1, dtype=pl.Int32))
        .filter(pl.col("shown").list.len() > 0)
        .explode("shown", "place")
        .with_columns(
            item_id=pl.col("shown").list.get(ITEM, null_on_oob=True),
            position=pl.when(has_position).then(written).otherwise(pl.col("place")),
        )
    )
    return rows.filter(pl.col("item_id").is_not_null(), pl.col("position").is_between(1, MAX_POSITION)).drop("place")
