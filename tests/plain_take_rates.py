"""The two features of an item as a whole as their definition says, one showing and one interaction at a time."""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from rec_engine.data.dataset import Interactions
from rec_engine.data.item_looks import WINDOW_HOURS, ItemLooks
from rec_engine.data.showings import ShowingLog
from rec_engine.data.take_rates import PRIOR_ALL_LOOKS, PRIOR_LOOKS, PRIOR_TAKES, TakeRates
from rec_engine.data.timeline import Timeline

HOUR = 3_600

Shown = tuple[int, int, int, int]
"""User, item, position and Unix seconds."""
Taken = tuple[int, int]
"""Item and Unix seconds."""


class ToldRates(TakeRates):
    """Rates that can tell what they were made of.

    Args:
        shown: what everybody was shown, something at least.
        known: what was taken.
        n_items: size of the catalogue.
    """

    def __init__(self, shown: Sequence[Shown], known: Interactions, n_items: int) -> None:
        frame = pl.DataFrame(shown, schema=["user", "item", "position", "timestamp"], orient="row")
        super().__init__(ItemLooks.of(ShowingLog.from_impressions(frame, 1)), Timeline(known, n_items))
        past = known.positive()
        self.shown, self.n_items = shown, n_items
        self.taken: list[Taken] = list(zip(past.item_codes.tolist(), past.timestamps.tolist(), strict=True))


def plain_rates(shown: Iterable[Shown], taken: Iterable[Taken], now: int, n_items: int) -> list[tuple[float, float]]:
    """Return (log looks, take rate) of each item at a moment."""
    taken = list(taken)
    counted = dict[tuple[int, int, int], float]()
    for user, item, position, moment in sorted(shown, key=lambda each: each[3]):
        counted.setdefault((user, item, moment // HOUR), float(np.float32(1 / np.sqrt(position))))
    if not counted:
        return [(0.0, 0.0)] * n_items
    end = min(now - HOUR, max((moment for _, moment in taken), default=0) + 1) // HOUR
    begin = max(end - WINDOW_HOURS, min(hour for _, _, hour in counted))
    looks, takes = [0.0] * n_items, [0] * n_items
    for (_, item, hour), look in counted.items():
        looks[item] += look * (begin <= hour < end)
    for item, moment in taken:
        takes[item] += begin <= moment // HOUR < end
    if not sum(looks):
        return [(0.0, 0.0)] * n_items
    mean = (sum(takes) + PRIOR_TAKES) / (sum(looks) + PRIOR_ALL_LOOKS)
    return [
        (float(np.log1p(looked)), float(np.log((n + PRIOR_LOOKS * mean) / (looked + PRIOR_LOOKS) / mean)))
        for looked, n in zip(looks, takes, strict=True)
    ]
