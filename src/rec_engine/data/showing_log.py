"""What a whole log says that its users were shown, for training and for what is measured offline."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from rec_engine.data.dataset import IdMap
from rec_engine.data.log_frames import LogFrames
from rec_engine.data.showings import KEPT_SECONDS, ShowingLog
from rec_engine.data.shown_rows import decoded, item_rows
from rec_engine.utils.logger import get_logger

MAX_ANSWERS = 2_000_000
"""The latest that are read: twenty million impressions take half a gigabyte."""
LATE_SECONDS = 86_400
"""Answers are written in the order of their moments, give or take less than this."""

logger = get_logger(__name__)


def load_showings(store_url: str, user_ids: IdMap, item_ids: IdMap, *, since: int) -> ShowingLog:
    """Return what the service has shown of these items, as far as the ranker may know of it.

    Args:
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        user_ids: whose codes the users get; all others, who have looked at items as well, have the codes after those.
        item_ids: whose codes the items get.
        since: Unix seconds of the earliest request that is to know it.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if there is no log in it.
        StoreError: if the database cannot be read.
    """
    log = LogFrames(store_url)
    try:
        frames = [_coded(frame, user_ids, item_ids) for frame in _latest(log, since - KEPT_SECONDS)]
    finally:
        log.close()
    schema = {"user": pl.Int32, "stranger": pl.UInt64, "item": pl.Int32, "position": pl.Int32, "timestamp": pl.Int64}
    shown = _with_strangers(pl.concat([pl.DataFrame(schema=schema), *frames]), len(user_ids))
    showings = ShowingLog.from_impressions(shown, len(user_ids))
    logger.info("the log tells of %s items that were shown, each counted once an hour", f"{len(showings):,}")
    return showings


def _latest(log: LogFrames, since: int) -> Iterator[pl.DataFrame]:
    """Yield the latest answers from a moment on, MAX_ANSWERS at most."""
    n_left = MAX_ANSWERS
    for frame in log.impressions():
        if len(frame) and not (frame["timestamp"] >= since - LATE_SECONDS).any():
            return
        yield (found := frame.filter(pl.col("timestamp") >= since).limit(n_left))
        n_left -= len(found)
        if not n_left:
            logger.warning("only the latest %s answers of the log tell what was shown", f"{MAX_ANSWERS:,}")
            return


def _coded(answers: pl.DataFrame, user_ids: IdMap, item_ids: IdMap) -> pl.DataFrame:
    """Return user, stranger, item, position and timestamp of the impressions of known items.

    Users and items are codes; of one whose user is null, `stranger` says who it was.
    """
    users = _codes(answers["user_id"], user_ids, "user")
    of_users = answers.join(users, on="user_id", how="left", maintain_order="left")
    told = of_users.with_columns(stranger=pl.col("user_id").hash())
    shown = item_rows(decoded(told), "user", "stranger", "timestamp")
    coded = shown.join(_codes(shown["item_id"], item_ids, "item"), on="item_id")
    return coded.select("user", "stranger", "item", "position", "timestamp")


def _with_strangers(shown: pl.DataFrame, n_users: int) -> pl.DataFrame:
    """Return the impressions with codes for those users too whom nobody knows: n_users, and so on."""
    is_stranger = shown["user"].is_null()
    who = shown["stranger"].filter(is_stranger).to_numpy()
    users = shown["user"].fill_null(0).to_numpy().copy()
    users[is_stranger.to_numpy()] = n_users + np.unique(who, return_inverse=True)[1]
    return shown.with_columns(user=pl.Series(users)).drop("stranger")


def _codes(column: pl.Series, ids: IdMap, name: str) -> pl.DataFrame:
    """Return the distinct ids of a column that are known, with their codes."""
    distinct = column.unique()
    codes = pl.Series(name, ids.codes(distinct.to_list()), dtype=pl.Int32)
    return pl.DataFrame([distinct, codes]).filter(pl.col(name) >= 0)
