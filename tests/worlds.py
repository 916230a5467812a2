"""Worlds so small that the right answer is known by construction."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from rec_engine.data.dataset import Interactions
from rec_engine.data.state import COLD, UserState


def interactions(rows: Sequence[Sequence[int]], weights: Sequence[Sequence[float]] | None = None) -> Interactions:
    """Return one user a row, his items in time order, a second apart."""
    codes = np.array([item for row in rows for item in row], dtype=np.int32)
    stamps = np.array([place for row in rows for place in range(len(row))], dtype=np.int64)
    flat = np.ones(len(codes)) if weights is None else np.array([weight for row in weights for weight in row])
    return Interactions(
        item_codes=codes,
        timestamps=1_600_000_000 + stamps,
        events=np.ones(len(codes), dtype=np.uint8),
        values=np.full(len(codes), np.nan, dtype=np.float32),
        weights=flat.astype(np.float32),
        starts=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
    )


START = 1_600_000_000
LATER = START + 86_400


def user_state(item_codes: Sequence[int], weights: Sequence[float] | None = None, user_code: int = COLD) -> UserState:
    """Return a user who met these items a second apart and asks a day later."""
    n = len(item_codes)
    return UserState(
        user_code=user_code,
        item_codes=np.array(item_codes, dtype=np.int32),
        weights=np.array([1.0] * n if weights is None else weights, dtype=np.float32),
        timestamps=START + np.arange(n, dtype=np.int64),
        now=LATER,
    )


def checkerboard(n: int = 40) -> Interactions:
    """Even users like even items, odd users odd ones; each user's own number is withheld, so it is the answer."""
    rng = np.random.default_rng(0)
    return interactions(
        [rng.permutation([item for item in range(user % 2, n, 2) if item != user]).tolist() for user in range(n)]
    )


def two_clusters(n_users: int = 20, n_items: int = 10, n_met: int = 5) -> Interactions:
    """Return two groups of users, each of whom met `n_met` of the group's own items and none of the other's.

    Users and items below `n_users` and `n_items` are the first group, as many more are the second, so for each user
    the rest of the group's items comes before all of the other's.
    """
    rng = np.random.default_rng(0)
    return interactions(
        [
            (group * n_items + rng.choice(n_items, n_met, replace=False)).tolist()
            for group in (0, 1)
            for _ in range(n_users)
        ]
    )


def popularity_only(n_users: int = 400, n_items: int = 8) -> Interactions:
    """Return users who all have one taste: each meets item j with chance 1 - j / n_items, whatever else he met.

    Nothing of a user's history says more than popularity does, and the right order is that of the codes.
    """
    rng = np.random.default_rng(0)
    met = rng.random((n_users, n_items)) < 1 - np.arange(n_items) / n_items
    return interactions([rng.permutation(np.flatnonzero(row)).tolist() for row in met])


def as_frame(world: Interactions) -> pl.DataFrame:
    """Return a world as the table that a user of the package would load, with codes for ids."""
    return pl.DataFrame({"user_id": world.user_codes, "item_id": world.item_codes, "timestamp": world.timestamps})
