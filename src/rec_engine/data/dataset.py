"""The past in bulk: who did what, when, as parallel arrays beside the tables of users and items."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rec_engine.data.interactions import BoolArray as BoolArray
from rec_engine.data.interactions import FloatArray as FloatArray
from rec_engine.data.interactions import IntArray as IntArray
from rec_engine.data.interactions import Interactions as Interactions
from rec_engine.data.interactions import LongArray as LongArray
from rec_engine.data.interactions import MaskArray as MaskArray
from rec_engine.data.interactions import offsets
from rec_engine.data.packed_texts import PackedTexts
from rec_engine.data.validation import EVENTS as EVENTS
from rec_engine.data.validation import Tables, accepted_tables
from rec_engine.errors import DataError
from rec_engine.utils.config import DataSettings
from rec_engine.utils.logger import get_logger

ExternalId = int | str

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")
"""How the text of an integer id is written; 07 is another id, and so are digits of other scripts."""

logger = get_logger(__name__)


@dataclass(frozen=True)
class IdMap:
    """External ids (integers or strings, as the data has them) to contiguous int32 codes and back.

    Attributes:
        ids: ascending, distinct, Int64 or String; the code of an id is its row.
    """

    ids: pl.Series

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _texts(self) -> PackedTexts | None:
        return PackedTexts(self.ids) if self.ids.dtype == pl.String else None

    @cached_property
    def _numbers(self) -> LongArray:
        return np.empty(0, dtype=np.int64) if self._texts else self.ids.to_numpy()

    def code(self, external: ExternalId) -> int:
        """Return the code of an id, -1 where it is unknown; 123 and "123" name the same id."""
        if self._texts is not None:
            return self._texts.find(str(external))
        number = integer_of(external) if isinstance(external, str) else external
        if number is None or not MIN_INTEGER <= number <= MAX_INTEGER:
            return -1
        code = int(np.searchsorted(self._numbers, number))
        return code if code < len(self) and self._numbers[code] == number else -1

    def typed(self, text: str) -> ExternalId:
        """Return an id in the type of these ids, as far as it can be one: 123 for "123" where ids are integers."""
        number = None if self._texts is not None else integer_of(text)
        return text if number is None else number

    def codes(self, externals: Sequence[ExternalId]) -> IntArray:
        """Return (n,) int32 codes, -1 where an id is unknown."""
        texts = list(map(str, externals))
        asked = texts if self._texts is not None else list(map(integer_of, texts))
        wanted = pl.Series(asked, dtype=pl.Int64 if self._texts is None else pl.String)
        if not len(self):
            return np.full(len(texts), -1, dtype=np.int32)
        places = self.ids.search_sorted(wanted).clip(0, len(self) - 1)
        is_it = (self.ids.gather(places) == wanted).fill_null(value=False)
        return np.where(is_it.to_numpy(), places.to_numpy(), -1).astype(np.int32)

    def codes_of(self, known: pl.Series) -> IntArray:
        """Return (n,) int32 codes of a column whose ids are all known."""
        return self.ids.search_sorted(known.cast(self.ids.dtype)).to_numpy().astype(np.int32)

    def __getitem__(self, code: int) -> ExternalId:
        if self._texts is None:
            return int(self._numbers[code])
        return self._texts[code] or ""

    @classmethod
    def of(cls, *columns: pl.Series) -> "IdMap":
        """Return the map over every id in these columns; one text id makes all of them text."""
        dtype = pl.String if any(column.dtype == pl.String for column in columns) else pl.Int64
        return cls(pl.concat([column.cast(dtype).alias("id") for column in columns]).unique().sort())


def integer_of(text: str) -> int | None:
    """Return the 64-bit integer whose one spelling a text is, None for any other text."""
    number = int(text) if INTEGER.fullmatch(text) else None
    return number if number is not None and MIN_INTEGER <= number <= MAX_INTEGER else None


def are_offsets(starts: IntArray | LongArray, n: int) -> bool:
    """Return whether starts (n_groups + 1,) tell n rows apart: from 0 to n, none below the one before."""
    return len(starts) > 0 and starts[0] == 0 and starts[-1] == n and bool((starts[1:] >= starts[:-1]).all())


@dataclass(frozen=True, slots=True)
class LogMark:
    """How far a log is known.

    Attributes:
        log_id: of that log and no other.
        position: up to which, with it.
    """

    log_id: str
    position: int


class RecommendationDataset:
    """Interactions, users and items under contiguous codes.

    Frames are polars (a pandas frame is converted). `interactions_df` has `user_id`, `item_id`, `timestamp` and
    optionally `event`, `value`; `user_features` has `user_id`; `item_features` has `item_id` and optionally `title`,
    `description`, `categories`; any further column is an attribute. Ids that occur only in a feature table are part of
    the dataset too: such items can be recommended by their features.

    Attributes:
        interactions: all of them, in time order within each user.
        users: one row a user, in code order; `user_id` and attributes, null where unknown.
        items: one row an item, in code order; `item_id`, `title`, `description`, `categories` (list) and attributes.
        user_ids: user id to code.
        item_ids: item id to code.
        fingerprint: SHA-256 over all of the above; the same data gives the same fingerprint.
        log: which log its events are from, and up to where; None for data from elsewhere.

    Raises:
        DataError: if a column is missing, no interaction is left, or more than 5% of the rows are unusable.
    """

    def __init__(
        self,
        interactions_df: object,
        user_features: object | None = None,
        item_features: object | None = None,
        *,
        settings: DataSettings | None = None,
    ) -> None:
        settings = settings or DataSettings()
        self._fill(accepted_tables(interactions_df, user_features, item_features, settings), settings, log=None)

    @classmethod
    def from_clean(
        cls, tables: Tables, settings: DataSettings, *, log: LogMark | None = None
    ) -> "RecommendationDataset":
        """Return the dataset of tables that were accepted, and that know a log up to a position."""
        dataset = cls.__new__(cls)
        cls._fill(dataset, tables, settings, log=log)
        return dataset

    @classmethod
    def of_interactions(
        cls, interactions: Interactions, user_ids: IdMap, item_ids: IdMap, *, users: pl.DataFrame, items: pl.DataFrame
    ) -> "RecommendationDataset":
        """Return the dataset of interactions in codes already; the tables are as `Tables` has them."""
        dataset = cls.__new__(cls)
        cls._assign(dataset, interactions, user_ids, item_ids, users=users, items=items)
        return dataset

    def _fill(self, tables: Tables, settings: DataSettings, *, log: LogMark | None) -> None:
        rows, users, items = tables.interactions, tables.users, tables.items
        user_ids = IdMap.of(rows["user_id"], users["user_id"])
        item_ids = IdMap.of(rows["item_id"], items["item_id"])
        interactions = in_order(coded(rows, user_ids, item_ids), len(user_ids), settings)
        self._assign(interactions, user_ids, item_ids, users=users, items=items, log=log)

    def _assign(  # noqa: PLR0913 - what a dataset consists of
        self,
        interactions: Interactions,
        user_ids: IdMap,
        item_ids: IdMap,
        *,
        users: pl.DataFrame,
        items: pl.DataFrame,
        log: LogMark | None = None,
    ) -> None:
        if not len(interactions):
            raise DataError("there is not one interaction in the data", hint="give at least one user_id, item_id row")
        self.log = log
        self.user_ids, self.item_ids = user_ids, item_ids
        self.users = _aligned(users, "user_id", user_ids)
        self.items = _aligned(items, "item_id", item_ids)
        self.interactions = interactions

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids, interactions and features, as hex."""
        digest = hashlib.sha256()
        past = self.interactions
        for array in (past.item_codes, past.timestamps, past.events, past.values, past.weights, past.starts):
            digest.update(array.data)
        for table in (self.users, self.items):
            digest.update(table.write_ndjson().encode())
        return digest.hexdigest()

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.item_ids)

    def __repr__(self) -> str:
        return (
            f"RecommendationDataset({len(self.interactions):,} interactions, {self.n_users:,} users, "
            f"{self.n_items:,} items, fingerprint {self.fingerprint[:12]})"
        )


def _aligned(table: pl.DataFrame, key: str, ids: IdMap) -> pl.DataFrame:
    """Return one row an id, in code order, nulls where the table does not know the id."""
    return pl.DataFrame({key: ids.ids}).join(
        table.with_columns(pl.col(key).cast(ids.ids.dtype)), on=key, how="left", maintain_order="left"
    )


def coded(rows: pl.DataFrame, user_ids: IdMap, item_ids: IdMap) -> pl.DataFrame:
    """Return accepted interactions with Int32 codes for users and items, and places in EVENTS (UInt8) for events."""
    return rows.with_columns(
        pl.Series("user_id", user_ids.codes_of(rows["user_id"])),
        pl.Series("item_id", item_ids.codes_of(rows["item_id"])),
        rows["event"].replace_strict(EVENTS, list(range(len(EVENTS))), return_dtype=pl.UInt8),
    )


def in_order(rows: pl.DataFrame, n_users: int, settings: DataSettings) -> Interactions:
    """Sort by user, time (to the microsecond) and input order what `coded` returns; the users are 0 to n_users."""
    user_codes = rows["user_id"].to_numpy()
    order = np.lexsort((rows["timestamp"].to_numpy(), user_codes))
    events = rows["event"].to_numpy()
    values = rows["value"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    return Interactions(
        item_codes=rows["item_id"].to_numpy()[order],
        timestamps=(rows["timestamp"].to_numpy() // 1_000_000)[order],
        events=events[order],
        values=values[order],
        weights=event_weights(events, values, settings)[order],
        starts=offsets(np.bincount(user_codes, minlength=n_users)),
    )


@lru_cache(maxsize=1_000)
def event_place(event: str) -> int:
    """Return the place of a type in EVENTS; their number, after a warning, for one that another writer has brought."""
    if event in EVENTS:
        return EVENTS.index(event)
    logger.warning("the log holds events of the type %r, which this release does not know: they are ignored", event)
    return len(EVENTS)


def event_weights(events: NDArray[np.uint8], values: FloatArray, settings: DataSettings) -> FloatArray:
    """Return (n,) float32: the weight of each event's type; a rating below `min_rating` counts against the item.

    Args:
        events: (n,) places in EVENTS, as of `event_place`; what no release up to this one knows weighs nan.
        values: (n,) float32, such as the stars of a rating; nan where there is none.
        settings: the `data:` section.
    """
    weight_by_event = settings.event_weights.model_dump()
    weights = np.array([*(weight_by_event[event] for event in EVENTS), np.nan], dtype=np.float32)[events]
    if settings.min_rating is not None:
        weights[(events == EVENTS.index("rating")) & (values < settings.min_rating)] = -1.0
    return weights
