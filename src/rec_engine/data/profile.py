"""What a dataset is like, in figures that fit on a page."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rec_engine.data.dataset import EVENTS, LongArray, RecommendationDataset
from rec_engine.data.interactions import counted
from rec_engine.data.kernels import distinct_users

SECONDS_A_YEAR = 365.2425 * 86_400
MAX_MOMENTS = 100_000


@dataclass(frozen=True, slots=True)
class DataProfile:
    """What the data is like.

    Attributes:
        n_users: users with an interaction.
        n_items: items of the catalogue.
        n_interactions: of any kind.
        by_event: how many of each kind.
        first_day: of the interactions, as ISO date.
        last_day: of the interactions, as ISO date.
        density: share of all pairs of user and item that met.
        head_share: share of the interactions that the most popular hundredth of the items has.
        items_unmet: items that nobody has met.
        items_with_text: items with a title or a description.
        n_categories: distinct names.
        history_lengths: (n_users,) interactions a user.
        item_counts: (n_items,) interactions an item.
        years: (n,) moments of the interactions, such as 2001.4, at most MAX_MOMENTS of them, evenly taken.
    """

    n_users: int
    n_items: int
    n_interactions: int
    by_event: dict[str, int]
    first_day: str
    last_day: str
    density: float
    head_share: float
    items_unmet: int
    items_with_text: int
    n_categories: int
    history_lengths: LongArray
    item_counts: LongArray
    years: NDArray[np.float64]


def profile(dataset: RecommendationDataset) -> DataProfile:
    """Return what a dataset is like."""
    rows, n_items = dataset.interactions, dataset.n_items
    lengths = np.diff(rows.starts)
    counts = rows.item_counts(n_items)
    n_pairs = int(distinct_users(rows.item_codes, rows.starts, n_items).sum(dtype=np.float64))
    n_head = max(1, n_items // 100)
    moments = np.sort(rows.timestamps[:: max(1, len(rows) // MAX_MOMENTS)])
    by_event = counted(rows.events, len(EVENTS))
    return DataProfile(
        n_users=int((lengths > 0).sum()),
        n_items=n_items,
        n_interactions=len(rows),
        by_event={event: int(n) for event, n in zip(EVENTS, by_event, strict=True) if n},
        first_day=_day(rows.timestamps.min(initial=np.iinfo(np.int64).max)) if len(rows) else "",
        last_day=_day(rows.timestamps.max(initial=0)) if len(rows) else "",
        density=n_pairs / max(1, dataset.n_users * n_items),
        head_share=float(np.sort(counts)[-n_head:].sum() / max(1, len(rows))),
        items_unmet=int((counts == 0).sum()),
        items_with_text=_n_with_text(dataset.items),
        n_categories=dataset.items["categories"].explode().drop_nulls().n_unique(),
        history_lengths=lengths[lengths > 0],
        item_counts=counts,
        years=1970 + moments / SECONDS_A_YEAR,
    )


def _day(seconds: np.int64) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).date().isoformat()


def _n_with_text(items: pl.DataFrame) -> int:
    columns = [pl.col(name).is_not_null() for name in ("title", "description") if name in items.columns]
    return items.filter(pl.any_horizontal(columns)).height if columns else 0
