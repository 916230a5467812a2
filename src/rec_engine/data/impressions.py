"""What was shown and what came of it: impressions of the log beside the events that answer to them."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from rec_engine.data.dataset import EVENTS, BoolArray, FloatArray, IntArray, LongArray, event_weights
from rec_engine.data.log_frames import LogFrames
from rec_engine.data.shown_rows import ASKED, PROPENSITY, SCORE, SHOWN, decoded, item_rows
from rec_engine.utils.config import DataSettings

ATTRIBUTION_SECONDS = 86_400
"""How long after an answer an event may come and still be taken as an answer to it."""

CHOSEN = frozenset({"click", "like", "share", "add_to_cart", "purchase"})
"""Actions that speak for an item."""

FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Impressions:
    """Every item of every answer, one row each: answers in the order in which they were logged, best place first.

    Attributes:
        request_ids: (n_requests,) String.
        user_ids: (n_requests,) String.
        model_versions: (n_requests,) String, the version that answered.
        timestamps: (n_requests,) int64, Unix seconds of the answer.
        asked: (n_requests,) String, JSON of what was asked besides; null where nothing was, or it was not logged yet.
        request_codes: (n,) int32, row of the answer in the five above.
        item_ids: (n,) String.
        positions: (n,) int32, from 1; counted over all pages where the answer said so, else within it.
        scores: (n,) float32, as the answer gave them.
        propensities: (n,) float32, the probability with which the item was shown at its position, given those above;
            NaN in lists that two arms of an interleaving have filled, where nobody knows it.
        clicked: (n,) bool, whether a positive event on the item named the answer.
    """

    request_ids: pl.Series
    user_ids: pl.Series
    model_versions: pl.Series
    timestamps: LongArray
    asked: pl.Series
    request_codes: IntArray
    item_ids: pl.Series
    positions: IntArray
    scores: FloatArray
    propensities: FloatArray
    clicked: BoolArray

    def __len__(self) -> int:
        return len(self.request_codes)

    @property
    def n_requests(self) -> int:
        """Answers that were logged, those that showed nothing included."""
        return len(self.request_ids)


def load_impressions(
    store_url: str,
    *,
    settings: DataSettings | None = None,
    attribution_seconds: int = ATTRIBUTION_SECONDS,
    windows: pl.DataFrame | None = None,
    latest: int | None = None,
    since: int = 0,
) -> Impressions:
    """Return what the service has shown, and whether the users took it.

    An event belongs to an answer if it names its request id, its user and an item that it showed. It cannot have come
    before the answer, whatever the clock of its client says. Where ids of requests were used again it belongs to the
    latest answer before it. Answers that are not written as a service writes them are left out, with a warning.

    Args:
        store_url: `sqlite:///path` or `postgresql://user:password@host/name`; it may be in use.
        settings: what events weigh; those above zero are positive.
        attribution_seconds: events that came later after the answer do not count.
        windows: user_id (String), begins and ends (Int64, Unix seconds): only these users' answers after the one and up
            to the other are read, and no event after it counts. None for everything.
        latest: only so many answers are read, those that were logged last.
        since: Unix seconds; earlier answers are left out.

    Raises:
        ConfigError: if the URL names no database that can be used here.
        DataError: if there is no log in it.
        StoreError: if the database cannot be read.
    """
    log = LogFrames(store_url)
    try:
        answers = _answers(log, windows, latest, since).with_row_index("request")
        reactions = _reactions(log, answers["request_id"].unique(), settings or DataSettings())
    finally:
        log.close()
    return _joined(answers, reactions, attribution_seconds)


def _answers(log: LogFrames, windows: pl.DataFrame | None, latest: int | None, since: int) -> pl.DataFrame:
    """Return the answers that are wanted, in the order in which they were logged."""
    found, n_found = list[pl.DataFrame](), 0
    for frame in log.impressions():
        kept = _within(frame.filter(pl.col("timestamp") >= since), windows).limit(
            len(frame) if latest is None else latest - n_found
        )
        found.append(decoded(kept.drop("place")))
        n_found += len(kept)
        if n_found == latest:
            break
    return pl.concat([_empty(), *found]).reverse()


def _within(frame: pl.DataFrame, windows: pl.DataFrame | None) -> pl.DataFrame:
    """Return the answers within their users' windows, with where these end."""
    if windows is None:
        return frame.with_columns(ends=pl.lit(FOREVER, dtype=pl.Int64))
    both = frame.join(windows, on="user_id", maintain_order="left")
    return both.filter(pl.col("timestamp") > pl.col("begins"), pl.col("timestamp") <= pl.col("ends")).drop("begins")


def _empty() -> pl.DataFrame:
    texts = dict.fromkeys(("request_id", "user_id"), pl.String)
    return pl.DataFrame(
        schema={**texts, "timestamp": pl.Int64, "model_version": pl.String, "shown": SHOWN, "ends": pl.Int64}
    )


def _reactions(log: LogFrames, request_ids: pl.Series, settings: DataSettings) -> pl.DataFrame:
    """Return the positive events that name one of these answers: request_id, user_id, item_id and their moment, at."""
    columns = ("request_id", "user_id", "item_id", "at")
    found = [pl.DataFrame(schema={**dict.fromkeys(columns, pl.String), "at": pl.Int64})]
    for frame in log.events((*columns[:3], "event", "value", "timestamp"), until=log.position()):
        named = frame.filter(pl.col("request_id").is_in(request_ids.implode())).rename({"timestamp": "at"})
        n = len(EVENTS)
        places = named["event"].replace_strict(EVENTS, list(range(n)), default=n, return_dtype=pl.UInt8)
        values = named["value"].cast(pl.Float32).fill_null(float("nan"))
        weights = event_weights(places.to_numpy(), values.to_numpy(), settings)
        found.append(named.select(columns).filter(pl.Series(weights > 0)))
    return pl.concat(found)


def _joined(answers: pl.DataFrame, reactions: pl.DataFrame, attribution_seconds: int) -> Impressions:
    shown = item_rows(answers, "request").with_columns(
        pl.col("shown").list.get(place, null_on_oob=True).cast(pl.Float32, strict=False).alias(name)
        for name, place in (("score", SCORE), ("propensity", PROPENSITY))
    )
    found = taken(answers, shown.select("request", "item_id"), reactions, attribution_seconds)
    shown = shown.join(found, on=["request", "item_id"], how="left", maintain_order="left")
    request_codes = shown["request"].to_numpy().astype(np.int32)
    return Impressions(
        request_ids=answers["request_id"],
        user_ids=answers["user_id"],
        model_versions=answers["model_version"],
        timestamps=answers["timestamp"].to_numpy(),
        asked=answers.select(pl.col("shown").list.first().list.get(ASKED, null_on_oob=True)).to_series(),
        request_codes=request_codes,
        item_ids=shown["item_id"],
        positions=shown["position"].to_numpy(),
        scores=shown["score"].to_numpy(),
        propensities=shown["propensity"].to_numpy(),
        clicked=shown["clicked"].fill_null(value=False).to_numpy(),
    )


def taken(
    answers: pl.DataFrame, shown: pl.DataFrame, reactions: pl.DataFrame, attribution_seconds: int
) -> pl.DataFrame:
    """Return request, item_id and `clicked` of what was taken, each event counted for one answer.

    Args:
        answers: request (a number of its own), request_id, user_id, timestamp and ends (Unix seconds).
        shown: request and item_id (String).
        reactions: request_id, user_id, item_id and at (Unix seconds).
        attribution_seconds: events that came later after the answer do not count.
    """
    pairs = reactions.with_row_index("reaction").join(answers, on=["request_id", "user_id"])
    pairs = pairs.join(shown, on=["request", "item_id"], how="semi").filter(
        pl.col("at") <= pl.col("timestamp") + attribution_seconds, pl.col("at") <= pl.col("ends")
    )
    in_order = pairs.sort(pl.col("timestamp") <= pl.col("at"), "timestamp", "request")
    latest = in_order.unique("reaction", keep="last")
    return latest.select("request", "item_id", clicked=pl.lit(value=True)).unique()
